"""`trainer chat`: text as it comes and no character torn, an answer that can be stopped, a conversation that goes on."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from foundation.errors import Failure
from foundation.workspace import Workspace
from tests.support.commands import MODULES, REPOSITORY, run
from tests.trainer.saved_run import parrot, saved_run
from trainer.answer import Student, Tally, fitting, load_student, stream

CPU = torch.device("cpu")
WORDS = "Army 漢🙂!"


def student_of(workspace: Workspace, text: str, **how: bool | int) -> Student:
    config, model = parrot(workspace, text, **how)  # type: ignore[arg-type]
    saved_run(workspace, config, model=model)
    return load_student(workspace, "main", CPU)


def test_pieces_are_whole_characters_and_come_one_by_one(workspace: Workspace) -> None:
    student = student_of(workspace, WORDS)
    tokens = student.tokenizer.encode(WORDS, add_special_tokens=False).ids
    tally = Tally()
    pieces = list(stream(student, "What?", limit=90, tally=tally))
    assert "".join(pieces) == WORDS
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert 3 < len(pieces) < len(tokens), "a piece is what a token completes"
    assert (tally.tokens, tally.ended, tally.prompt) == (len(tokens) + 1, True, len(student.prompt("What?")))
    assert tally.rate is not None and 0 < tally.first < tally.seconds


def test_an_answer_cut_within_a_character_shows_nothing_of_it(workspace: Workspace) -> None:
    student = student_of(workspace, WORDS)
    tokens = student.tokenizer.encode(WORDS, add_special_tokens=False).ids
    cut = 0
    for limit in range(1, len(tokens) + 3):
        tally = Tally()
        text = "".join(stream(student, "What?", limit=limit, tally=tally))
        decoded = student.tokenizer.decode(tokens[:limit])
        assert text == decoded.rstrip("\N{REPLACEMENT CHARACTER}")
        assert tally.ended == (limit > len(tokens))
        cut += text != decoded
    assert cut > 2


def test_turns_before_go_into_the_prompt_and_the_oldest_make_room(workspace: Workspace) -> None:
    student = student_of(workspace, "won")
    turns = [("user", "Who?"), ("assistant", "won"), ("user", "When?"), ("assistant", "1943")]
    whole = student.prompt("Why?", turns)  # type: ignore[arg-type]
    assert student.tokenizer.decode(whole, skip_special_tokens=False) == (
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nwon<|im_end|>\n"
        "<|im_start|>user\nWhen?<|im_end|>\n<|im_start|>assistant\n1943<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert fitting(student, turns, "Why?", 96 - len(whole)) == turns  # type: ignore[arg-type]
    assert fitting(student, turns, "Why?", 97 - len(whole)) == turns[2:]  # type: ignore[arg-type]
    assert fitting(student, turns, "Why?", 96) == []  # type: ignore[arg-type]
    with pytest.raises(Failure, match="the question has"):
        list(stream(student, "Why? " * 100, limit=5))


def test_one_question_and_its_figures(workspace: Workspace) -> None:
    student_of(workspace, WORDS)
    done = run("trainer", "chat", "-p", "What?", "--stats", "--greedy", cwd=workspace.root)
    assert done.stdout == f"{WORDS}\n"
    assert "tokens/s" in done.stderr


def test_questions_from_a_pipe(workspace: Workspace) -> None:
    """A line that cannot be answered is told, and the next one is; an empty line is nothing; /quit ends."""
    student_of(workspace, WORDS)
    lines = f"What?\n\n{'Why? ' * 60}\nAnd then?\n/quit\nNot asked\n"
    argv = [sys.executable, "-c", f"from {MODULES['trainer']} import main; main()", "chat", "--greedy", "--history"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(argv, input=lines, cwd=workspace.root, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, f"{WORDS}\n" * 2), done.stderr
    assert "error: the question has" in done.stderr
    assert "/new forgets what was said" in done.stderr


def test_bytes_that_are_no_text_are_answered(workspace: Workspace) -> None:
    student_of(workspace, WORDS)
    argv = [sys.executable, "-c", f"from {MODULES['trainer']} import main; main()", "chat", "--greedy"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:surrogateescape"}
    done = subprocess.run(argv, input=b"Wh\xff?\n", cwd=workspace.root, env=env, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout.decode()) == (0, f"{WORDS}\n"), done.stderr.decode()


class Terminal:
    """A person's terminal with `trainer chat` in it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.master, slave = pty.openpty()
        argv = [sys.executable, "-c", f"from {MODULES['trainer']} import main; main()", "chat", *options]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "dumb"}
        self.process = subprocess.Popen(
            argv, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def look(self) -> None:
        """Wait a second for something to be shown."""
        if select.select([self.master], [], [], 1)[0]:
            self.seen += os.read(self.master, 65536).decode()

    def interrupt_until(self, text: str) -> None:
        """Ctrl-C, and again: one that comes in the moment before the terminal is read waits for the next key."""
        for _ in range(60):
            os.kill(self.process.pid, signal.SIGINT)
            self.look()
            if text in self.seen:
                break
        self.until(text)

    def until(self, text: str) -> str:
        """What came since the last time, up to `text`."""
        end = time.monotonic() + 120
        while text not in self.seen:
            assert time.monotonic() < end, self.seen
            self.look()
        before, _, self.seen = self.seen.partition(text)
        return before


def test_at_a_terminal(workspace: Workspace) -> None:
    """Ctrl-C stops the answer and not the program; the line can be edited and had again; a bell does not ring."""
    student_of(workspace, "won\a Army did", endless=True, context=20_000)
    terminal = Terminal(workspace.root, "--greedy", "--max-tokens", "19000")
    terminal.until("> ")
    terminal.type("Wha\x7fat\x01X\r")  # a letter rubbed out, then one put at the start of the line
    shown = terminal.until("did" + "won")
    assert "\\x07" in shown
    assert "\a Army" not in shown
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.until("stopped")
    terminal.until("> ")
    assert terminal.process.poll() is None
    terminal.interrupt_until("/quit or Ctrl-D ends")  # at the prompt
    terminal.until("> ")
    terminal.type("/quit\r")
    assert terminal.process.wait(30) == 0
