"""Labels: read from whatever a spreadsheet leaves, made blind in a terminal or over a pipe, and never lost."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from foundation.errors import UsageError
from judge.agree import answer_id
from judge.label import Label, field, opened, read_labels, sample, sheet
from tests.judge.judgings import answers_of, write_answers, write_judging
from tests.support.commands import REPOSITORY, run, run_json

COMMAND = [sys.executable, "-c", "from judge.cli import main; main()", "label"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def _piped(folder: Path, keys: str, *more: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    argv = [*COMMAND, "--answers", "answers.jsonl", "--labels", "l.jsonl", *more]
    done = subprocess.run(argv, cwd=folder, env=ENVIRONMENT, input=keys, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done


def _words(path: Path) -> list[str]:
    return [json.loads(line)["label"] for line in path.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_answers(tmp_path / "answers.jsonl", answers_of(12))
    return tmp_path


# -- reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"item_id,label,answer\ni1,PASS,One\ni2,f,Two\n",
        b"\xef\xbb\xbfItem ID;Label;Answer\r\ni1;1;One\r\n;;\r\ni2;wrong;Two\r\n",
        b"label\tanswer\titem_id\nRight\tOne\ti1\n0\tTwo\ti2\n",
        "item_id;answer;label\r\ni1;One;true\r\ni2;Two;FALSE\r\n".encode("utf-16"),
        b'\n{"item_id": "i1", "label": true, "answer": "One"}\r\n{"item_id": "i2", "label": 0, "answer": "Two"}',
        b'\xef\xbb\xbf{"item_id": "i1", "label": "p", "answer": "One", "more": 1}\n{"item_id":"i2","label":"F","answer":"Two"}\n',
    ],
)
def test_what_spreadsheets_and_people_write_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "l").write_bytes(content)
    labels, blank = read_labels(tmp_path / "l")
    assert [(one.item_id, one.label, one.answer) for one in labels] == [("i1", "PASS", "One"), ("i2", "FAIL", "Two")]
    assert blank == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file of labels"]),
        (b"", ["holds no label"]),
        (b"item_id,label\ni1,\ni2, \n", ["none of the 2 rows is labelled yet"]),
        (b"item_id,verdict\ni1,PASS\n", ["no column label", "l:1"]),
        (b"item_id,label\ni1,PASS\ni2,perhaps\n", ["perhaps", "l:3"]),
        (b"item_id,label\n,PASS\n", ["item_id", "missing", "l:2"]),
        (b"item_id,label\n9.79E+23,PASS\n", ["turned into a number", "l:2"]),
        (b"item_id,label\ni1,PASS,and more\n", ["3 cells", "l:2"]),
        (b'item_id,label,answer\ni1,PASS,"two\nlines"\ni2,PASS,"open\n', ["no CSV", "l:4"]),
        (b"item_id,label,answer\ni1,PASS,caf\xe9\n", ["not UTF-8", "l:2"]),
        (b'{"item_id": "i1", "label": "p"}\n{"item_id": "i2"}\n', ["lacks label", "l:2"]),
        (b'{"item_id": "i1", "label": "p"}\n[1]\n', ["no JSON object", "l:2"]),
        (b'{"item_id": "i1", "label": "p"}\n{"item\n', ["no JSON", "l:2"]),
    ],
)
def test_what_cannot_be_read_is_named_by_line(tmp_path: Path, content: bytes | None, words: list[str]) -> None:
    if content is not None:
        (tmp_path / "l").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_labels(tmp_path / "l")
    for word in [*words, "mend:"]:
        assert word in str(caught.value)


# -- drawing ------------------------------------------------------------------------------------------------------------


def test_a_sample_is_random_repeatable_and_grows_at_its_end() -> None:
    answers = answers_of(300)
    first = sample(answers, 50, 1)
    assert first == sample([*reversed(answers), answers[0]], 50, 1)
    assert sample(answers, 80, 1)[:50] == first
    assert sample(answers, 50, 2) != first
    numbers = [int(answer.item.id[1:]) for answer in sample(answers, 100, 3)]
    assert 110 < sum(numbers) / 100 < 190  # from all over the file
    assert len(sample(answers, 1000, 1)) == 300


def test_a_sheet_is_safe_in_a_spreadsheet_and_comes_back(tmp_path: Path) -> None:
    hostile = ["=1+1", "+A1", "-2", "@SUM(A1)", "\t=x", " =cmd|' /C calc'!A0", 'a,b;"c"\nd', "fine"]
    answers = [one.model_copy(update={"text": text}) for one, text in zip(answers_of(8), hostile, strict=True)]
    text = sheet(answers).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    for row, own in zip(rows, hostile, strict=True):
        assert not row["answer"].lstrip().startswith(("=", "+", "-", "@"))
        assert row["answer"].endswith(own)
    # filled in, it is read back, and each label is about its text
    filled = [{**row, "label": "PASS" if n else "fail"} for n, row in enumerate(rows)]
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), delimiter=";")
    writer.writeheader()
    writer.writerows(filled)
    (tmp_path / "s.csv").write_text(out.getvalue(), "utf-8", newline="")
    labels, _ = read_labels(tmp_path / "s.csv")
    assert [one.key for one in labels] == [(one.item.id, answer_id(one.text)) for one in answers]
    assert [one.label for one in labels] == ["FAIL"] + ["PASS"] * 7


def test_a_sheet_is_not_overwritten(folder: Path) -> None:
    command = ("judge", "label", "--answers", "answers.jsonl", "--sheet", "s.csv", "-n", "5", "--split", "unseen")
    run(*command, cwd=folder)
    before = (folder / "s.csv").read_bytes()
    assert len(list(csv.reader(io.StringIO(before.decode("utf-8-sig"))))) == 6
    assert "may hold labels" in run(*command, cwd=folder, code=2).stderr
    assert (folder / "s.csv").read_bytes() == before


# -- labelling ----------------------------------------------------------------------------------------------------------


def test_keys_over_a_pipe_become_labels_and_it_goes_on_where_it_was(folder: Path) -> None:
    first = _piped(folder, "p\nnonsense\nFAIL\nq\n", "-n", "4")
    assert _words(folder / "l.jsonl") == ["PASS", "FAIL"]
    assert "2 left" in first.stdout
    assert "1 of 4" in first.stderr
    assert "3 of 4" in first.stderr
    second = _piped(folder, "f\np\n", "-n", "4")
    assert "2 of 4 are labelled already" in second.stderr
    assert "all 4 labelled" in second.stdout
    assert _words(folder / "l.jsonl") == ["PASS", "FAIL", "FAIL", "PASS"]
    # more of them: the first four stay as they are
    _piped(folder, "p\n" * 8, "-n", "12")
    labels, _ = read_labels(folder / "l.jsonl")
    assert len({one.item_id for one in labels}) == 12
    # and another person begins anew, in the same file
    _piped(folder, "f\n", "-n", "12", "--annotator", "bob")
    assert [one.annotator for one in read_labels(folder / "l.jsonl")[0]] == [""] * 12 + ["bob"]


def test_back_takes_the_last_label_away_and_skip_leaves_none(folder: Path) -> None:
    shown = _piped(folder, "b\np\nf\nb\np\ns\nb\nf\ns\nq\n", "-n", "12").stderr
    assert "the first one of this session" in shown
    assert _words(folder / "l.jsonl") == ["PASS", "PASS", "FAIL"]
    chosen = sample(answers_of(12), 12, 1)
    assert [one.item_id for one in read_labels(folder / "l.jsonl")[0]] == [one.item.id for one in chosen[:3]]


def test_who_labels_sees_no_verdict(folder: Path) -> None:
    write_judging(folder / "v.jsonl", folder / "answers.jsonl", "PFFFFFFFFFFF", "rules")
    done = _piped(folder, "p\n" * 12, "-n", "12")
    for word in ("PASS", "FAIL", "missing", "thinks so"):
        assert word not in done.stderr + done.stdout


def test_labels_made_here_calibrate_a_judging(folder: Path) -> None:
    words = {f"i{n}": "p" if n % 3 else "f" for n in range(12)}
    keys = "".join(words[one.item.id] + "\n" for one in sample(answers_of(12), 12, 1))
    _piped(folder, keys, "-n", "12")
    write_judging(folder / "v.jsonl", folder / "answers.jsonl", "".join(words[f"i{n}"].upper() for n in range(12)))
    found = run_json("judge", "calibrate", "--labels", "l.jsonl", "--verdicts", "v.jsonl", cwd=folder)
    assert found["agreement"]["count"] == found["agreement"]["of"] == 12


@contextmanager
def _terminal(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    leader, follower = pty.openpty()
    argv = [*COMMAND, "--answers", "answers.jsonl", "--labels", "l.jsonl", "-n", "12"]
    process = subprocess.Popen(
        argv, cwd=folder, env=ENVIRONMENT, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    )
    os.close(follower)
    try:
        yield process, leader
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def _until_asked(leader: int) -> str:
    """What the terminal shows up to the next question's prompt."""
    text, until = "", time.monotonic() + 30
    while not text.endswith("> "):
        assert time.monotonic() < until, text
        if select.select([leader], [], [], 0.1)[0]:
            text += os.read(leader, 65536).decode()
    return text


def test_one_key_each_on_a_terminal_and_kill_loses_nothing(folder: Path) -> None:
    with _terminal(folder) as (process, leader):
        for number, keys in enumerate((b"p", b"\x1bOP", b"pp", b"f", b"p")):  # the second one is F1
            shown = _until_asked(leader)
            assert ("passage:" in shown) == (number not in (2, 3))  # F1 and a paste are no keys: asked again
            os.write(leader, keys)
        _until_asked(leader)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert _words(folder / "l.jsonl") == ["PASS", "FAIL", "PASS"]
    with _terminal(folder) as (process, leader):
        assert "4 of 12" in _until_asked(leader)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert len(_words(folder / "l.jsonl")) == 3


def test_a_torn_line_is_cut_off_and_a_foreign_file_is_left_alone(folder: Path) -> None:
    _piped(folder, "p\nf\n", "-n", "12")
    with open(folder / "l.jsonl", "ab") as file:
        file.write(b'{"item_id": "i5", "lab')
    _piped(folder, "p\n", "-n", "12")
    assert _words(folder / "l.jsonl") == ["PASS", "FAIL", "PASS"]
    # a last line that lacks nothing but its end is a label
    (folder / "l.jsonl").write_text((folder / "l.jsonl").read_text().rstrip("\n"))
    _piped(folder, "f\n", "-n", "12")
    assert _words(folder / "l.jsonl") == ["PASS", "FAIL", "PASS", "FAIL"]
    for content in (b"item_id,label\ni1,PASS", b"Dear diary"):
        (folder / "l.jsonl").write_bytes(content)
        assert "no JSONL of labels" in _piped(folder, "p\n", code=2).stderr
        assert (folder / "l.jsonl").read_bytes() == content


def test_two_sessions_on_one_file_are_refused(folder: Path) -> None:
    with opened(folder / "l.jsonl", ""):
        assert "another session labels" in _piped(folder, "p\n", code=1).stderr


def test_wrong_use_is_named(folder: Path) -> None:
    label = ("judge", "label", "--answers", "answers.jsonl")
    for more, words in (
        ((), "name one place"),
        (("--labels", "l", "--sheet", "s"), "name one place"),
        (("--labels", "answers.jsonl"), "the file of answers"),
        (("--labels", "no/l"), "does not exist"),
        (("--labels", "l", "--family", "none"), "no answer is of that split and family"),
    ):
        assert words in run(*label, *more, cwd=folder, code=2).stderr


def test_hostile_text_is_wrapped_and_harmless(folder: Path) -> None:
    hostile = "\x1b[2J\x1b]0;title\x07 \u202e{n}\r" + "long " * 60 + "\nquestion:  What now?"
    write_answers(folder / "answers.jsonl", answers_of(2, hostile))
    shown = _piped(folder, "q\n").stderr
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown)
    assert max(map(len, shown.splitlines())) <= 100
    assert "           question:  What now?" in shown
    assert field("answer", "", 80) == "answer:    (nothing)"
    assert Label("i", "PASS").key == ("i", "")
