"""`factory prompts`, `preview` and `check` as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.workspace import Workspace
from generator.catalogue import load_catalogue
from generator.ingest.run import ingest
from generator.teachers.rules.teacher import MAKERS
from tests.support.commands import REPOSITORY, run, run_json, shard_records

CONTRASTIVE = [f"contrastive/{name}" for name in ("date", "event", "number", "person", "place")]
RULES = {"FACTORY_TEACHER__BACKEND": "rules"}


def test_list_and_show_speak_json(tmp_path: Path) -> None:
    listed = run_json("factory", "prompts", "list", cwd=tmp_path)
    shown = run_json("factory", "prompts", "show", "contrastive/person", cwd=tmp_path)

    assert {"id", "version", "fields", "fingerprint", "rules", "file"} <= listed[0].keys()
    assert len(listed) == 84
    assert {one["id"] for one in listed if one["rules"]} == set(MAKERS)
    assert shown["options"]["order"] == "both"
    assert [phase["name"] for phase in shown["phases"]] == ["extract"]
    assert Path(shown["file"]) == REPOSITORY / "prompts/contrastive/person.md"
    assert "<passage>" in shown["user"]


def test_list_takes_families_and_ids_and_says_what_rules_cannot_make(tmp_path: Path) -> None:
    done = run("factory", "prompts", "list", "cloze", "wh/who", cwd=tmp_path)
    everything = run("factory", "prompts", "list", cwd=tmp_path)

    ids = [line.split()[0] for line in done.stdout.splitlines()]
    assert ids == ["id", "cloze/date", "cloze/entity", "cloze/key-phrase", "cloze/number", "wh/who"]
    without = sorted(set(load_catalogue()) - set(MAKERS))
    assert without and all(id_ in everything.stderr for id_ in without)
    assert f"makes {len(MAKERS)} of them" in everything.stderr


def test_show_is_readable_and_has_all_phases(tmp_path: Path) -> None:
    plain = run("factory", "prompts", "show", "wh/who", cwd=tmp_path).stdout
    chain = run("factory", "prompts", "show", "contrastive/person", cwd=tmp_path).stdout
    cross = run("factory", "prompts", "show", "cross/compared-passages", cwd=tmp_path).stdout

    assert "--- record: assistant" in plain
    assert "--- extract: system" in chain and "--- ask: user" in chain
    assert re.search(r"^each +people$", chain, re.MULTILINE)
    assert re.search(r"^options +option_1, option_2; .* in right; both$", chain, re.MULTILINE)
    assert re.search(r"^partner +same-article$", cross, re.MULTILINE)
    assert re.search(r"^weight +1\.0$", cross, re.MULTILINE)


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
    assert [look["prompt_type"] for look in looks] == [id_ for id_ in CONTRASTIVE for _ in range(3)]
    assert all(look["records"] or look["rejects"] for look in looks)
    assert all(call[1]["content"].endswith("</passage>") for look in looks for call in look["prompts"])
    assert max(len(look["prompts"]) for look in looks) > 1
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


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace on the rules teacher with one article."""
    found = Workspace.init(tmp_path / "w")
    (found.root / "factory.toml").write_text('[teacher]\nbackend = "rules"\n', "utf-8")
    ingest(found, [REPOSITORY / "examples/wwii/articles/battle-of-midway.md"])
    return found.root


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def test_new_writes_a_type_that_lints_lists_and_previews_at_once(workspace: Path) -> None:
    # given a new type, made without a line of Python
    made = run("factory", "prompts", "new", "mine/first", cwd=workspace)

    # when it is checked, listed and tried
    linted = run_json("factory", "prompts", "lint", "mine/first", cwd=workspace)
    listed = run_json("factory", "prompts", "list", "mine", cwd=workspace)
    (look,) = run_json("factory", "preview", "--prompt-type", "mine/first", "-n", "1", cwd=workspace)

    # then its file is named, all of it holds, and a language model could answer it
    path = workspace / "prompts/mine/first.md"
    assert made.stdout.strip() == str(path)
    assert "factory preview --prompt-type mine/first" in made.stderr
    assert (linted["ok"], linted["errors"], [one["code"] for one in linted["problems"]]) == (True, 0, ["not-recorded"])
    assert [(one["id"], one["file"], one["rules"]) for one in listed] == [("mine/first", str(path), False)]
    assert look["prompts"][0][1]["content"].endswith("</passage>")
    assert "rules cannot make mine/first" in look["rejects"][0]["reason"]


def test_new_from_a_type_of_the_projects_stands_in_its_place(workspace: Path) -> None:
    # given a copy of wh/who in the workspace, with another request in its record
    run("factory", "prompts", "new", "wh/who", "--from", "wh/who", cwd=workspace)
    _edit(workspace / "prompts/wh/who.md", "{{ question }}", "Tell me: {{ question }}")

    # when it is previewed
    looks = run_json("factory", "preview", "--prompt-type", "wh/who", "-n", "4", cwd=workspace)

    # then records are made as the copy says, and its version is one up
    records = [record for look in looks for record in look["records"]]
    assert records
    assert all(record["messages"][0]["content"].startswith("Tell me: ") for record in records)
    shown = run_json("factory", "prompts", "show", "wh/who", cwd=workspace)
    assert shown["version"] == load_catalogue()["wh/who"].version + 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mine/first"], "here already"),
        (["wh/who"], "--from wh/who"),
        (["mine/second", "--from", "wh/whom"], "wh/who"),
    ],
)
def test_new_refuses_and_writes_nothing(workspace: Path, arguments: list[str], says: str) -> None:
    path = workspace / "prompts/mine/first.md"
    path.parent.mkdir(parents=True)
    path.write_text("mine", "utf-8")

    done = run("factory", "prompts", "new", *arguments, cwd=workspace, code=2)

    assert says in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert _files(workspace / "prompts") == {"mine/first.md": b"mine"}


def test_new_needs_a_workspace_or_a_folder(tmp_path: Path) -> None:
    refused = run("factory", "prompts", "new", "mine/first", cwd=tmp_path, code=2)
    made = run("factory", "prompts", "new", "mine/first", "--folder", "drafts", cwd=tmp_path)
    linted = run_json("factory", "prompts", "lint", "drafts/mine/first.md", cwd=tmp_path)

    assert "--folder" in refused.stderr
    assert made.stdout.strip() == "drafts/mine/first.md"
    assert (linted["ok"], linted["files"]) == (True, 1)


def test_lint_records_versions_and_then_tells_a_change(workspace: Path) -> None:
    # given a type whose version is recorded
    run("factory", "prompts", "new", "mine/first", cwd=workspace)
    recorded = run_json("factory", "prompts", "lint", "mine", "--write", cwd=workspace)
    assert (recorded["recorded"], recorded["problems"]) == ([{"id": "mine/first", "version": 1}], [])

    # when its template changes and its version does not
    _edit(workspace / "prompts/mine/first.md", "You write questions", "You write hard questions")
    done = run("factory", "prompts", "lint", "mine", "--write", cwd=workspace, code=1)

    # then it is an error with file, line and mend, and exit code 1
    assert done.stdout.startswith("prompts/mine/first.md:3: error: ")
    assert "mend: raise `version` to 2" in done.stdout
    assert json.loads((workspace / "prompts/versions.json").read_text())["mine/first"].keys() == {"1"}


def test_lint_tells_every_broken_file_though_the_catalogue_stops_at_the_first(workspace: Path) -> None:
    for name in ("one", "two"):
        run("factory", "prompts", "new", f"mine/{name}", cwd=workspace)
        _edit(workspace / f"prompts/mine/{name}.md", "{{ answer }}", "{{ anser }}")

    stopped = run("factory", "prompts", "list", cwd=workspace, code=2)
    linted = json.loads(run("factory", "prompts", "lint", "mine", "--json", cwd=workspace, code=1).stdout)
    unknown = run("factory", "prompts", "lint", "mine/too", cwd=workspace, code=2)

    assert "one.md" in stopped.stderr and "two.md" not in stopped.stderr
    broken = [(Path(one["file"]).name, one["code"]) for one in linted["problems"] if one["level"] == "error"]
    assert broken == [("one.md", "load"), ("two.md", "load")]
    assert "mine/two" in unknown.stderr


@pytest.mark.parametrize("after", ["edited", "broken", "deleted"])
def test_what_is_planned_runs_as_it_was_planned_whatever_becomes_of_its_file(workspace: Path, after: str) -> None:
    # given units of one version of a type in the queue, and a file that changes meanwhile
    path = workspace / "prompts/wh/who.md"
    run("factory", "prompts", "new", "wh/who", "--from", "wh/who", cwd=workspace)
    _edit(path, "{{ question }}", "Tell me: {{ question }}")
    planned = run_json("factory", "prompts", "show", "wh/who", cwd=workspace)["fingerprint"]
    assert run_json("factory", "enqueue", "--prompt-type", "wh/who", cwd=workspace)["queued"] > 0
    if after == "deleted":
        path.unlink()
    else:
        _edit(path, "Tell me: {{ question }}", "Now: {{ question }}" if after == "edited" else "{{ nothing }}")

    # when the queue is worked off
    run("factory", "work", "--burst", cwd=workspace)

    # then every record is of the planned version, and every item is accounted for
    status = run_json("factory", "status", cwd=workspace)
    records = shard_records(workspace)
    assert {record["fingerprint"] for record in records} == {planned}
    assert all(record["messages"][0]["content"].startswith("Tell me: ") for record in records)
    assert status["items"] == status["items_accepted"] + status["items_rejected"] > 0
    assert status["failed"] == 0

    # and the edited file is told to want a new version; with one, it is planned beside the first
    if after == "edited":
        found = json.loads(run("factory", "prompts", "lint", "wh/who", "--json", cwd=workspace, code=1).stdout)
        assert "changed" in {one["code"] for one in found["problems"]}
        version = load_catalogue()["wh/who"].version + 1
        _edit(path, f"version: {version}\n", f"version: {version + 1}\n")
        assert run_json("factory", "prompts", "lint", "wh/who", cwd=workspace)["ok"]
        run("factory", "enqueue", "--prompt-type", "wh/who", cwd=workspace)
        run("factory", "work", "--burst", cwd=workspace)
        later = [record for record in shard_records(workspace) if record["fingerprint"] != planned]
        assert later and all(record["messages"][0]["content"].startswith("Now: ") for record in later)
    run("factory", "stop", cwd=workspace)
