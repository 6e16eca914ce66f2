"""`factory prompts`, `preview` and `check` as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import REPOSITORY, run, run_json

RULES = {"FACTORY_TEACHER__BACKEND": "rules"}


def test_list_and_show_speak_json(tmp_path: Path) -> None:
    listed = run_json("factory", "prompts", "list", cwd=tmp_path)
    shown = run_json("factory", "prompts", "show", "contrastive/person", cwd=tmp_path)

    assert {"id", "version", "fields", "fingerprint"} <= listed[0].keys()
    assert len(listed) >= 12
    assert shown["options"]["order"] == "both"
    assert "<passage>" in shown["user"]


def test_list_and_show_are_readable(tmp_path: Path) -> None:
    assert "contrastive/person" in run("factory", "prompts", "list", cwd=tmp_path).stdout
    assert "--- record: assistant" in run("factory", "prompts", "show", "wh/who", cwd=tmp_path).stdout


@pytest.mark.parametrize(("name", "says"), [("wh/whom", "wh/who"), ("wh", "is a family")])
def test_show_refuses_what_is_no_type(tmp_path: Path, name: str, says: str) -> None:
    done = run("factory", "prompts", "show", name, cwd=tmp_path, code=2)

    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_preview_shows_prompt_and_record_and_writes_nothing(wwii_workspace: Path) -> None:
    before = _files(wwii_workspace)

    text = run("factory", "preview", "--prompt-type", "qpt/formal", "-n", "2", cwd=wwii_workspace, env=RULES).stdout
    looks = run_json("factory", "preview", "--prompt-type", "contrastive", "-n", "3", cwd=wwii_workspace, env=RULES)

    assert _files(wwii_workspace) == before
    assert text.count("--- prompt: user") == 2
    assert "--- record" in text
    assert [look["prompt_type"] for look in looks] == ["contrastive/date"] * 3 + ["contrastive/person"] * 3
    assert all(bool(look["records"]) != bool(look["rejects"]) for look in looks)
    assert all(look["prompt"][1]["content"].endswith("</passage>") for look in looks)
    assert all(reject["reason"] for look in looks for reject in look["rejects"])


def test_preview_refuses_an_unknown_type_and_an_empty_corpus(wwii_workspace: Path, tmp_path: Path) -> None:
    unknown = run("factory", "preview", "--prompt-type", "contrastve", cwd=wwii_workspace, code=2, env=RULES)
    run("factory", "init", "w", cwd=tmp_path)
    empty = run("factory", "preview", "--prompt-type", "wh/who", cwd=tmp_path / "w", code=2, env=RULES)
    nowhere = run("factory", "preview", "--prompt-type", "wh/who", cwd=tmp_path, code=2, env=RULES)

    assert "contrastive" in unknown.stderr
    assert "the corpus is empty" in empty.stderr
    assert "not a workspace" in nowhere.stderr


def test_check_prints_one_line_for_each_and_exits_1_if_any_is_rejected(tmp_path: Path) -> None:
    # given a file with two good lines and two bad ones
    (tmp_path / "in.jsonl").write_text(
        '{"question": "When?", "answer": "1942"}\n{"text": "雪 fell"}\nSnow fell on Moscow.\n1942\n', "utf-8"
    )

    # when it is checked
    done = run("factory", "check", "in.jsonl", "--json", cwd=tmp_path, code=1)

    # then there is one result a line, in order
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(result["ok"], result["gate"]) for result in results] == [
        (True, ""),
        (False, "cjk"),
        (True, ""),
        (False, "language"),
    ]
    assert all(bool(result["reason"]) != result["ok"] for result in results)


def test_check_reads_standard_input_and_exits_0_when_all_pass(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from generator.cli import main; main()", "check"],
        input="Snow fell.\nTanks froze.\n",
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stdout) == (0, "")
    assert "2 lines, 2 accepted" in done.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('Snow fell.\n{"text": "a"\n', "in.jsonl:2"),
        ('{"n": 1}\n', "in.jsonl:1"),
        ("", "no line to check"),
        (None, "no such file"),
    ],
)
def test_check_names_what_it_cannot_read(tmp_path: Path, content: str | None, says: str) -> None:
    if content is not None:
        (tmp_path / "in.jsonl").write_text(content, "utf-8")

    done = run("factory", "check", "in.jsonl", cwd=tmp_path, code=2)

    assert says in done.stderr
    assert "mend" in done.stderr
    assert "Traceback" not in done.stderr
