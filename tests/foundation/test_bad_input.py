"""What a workspace can meet: another version's files, a file system that cannot do what commits need, no right to write."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foundation.corpus import Corpus
from foundation.errors import Failure, UsageError
from foundation.parse import parse
from foundation.reader import ReadReport, read
from foundation.records import Snippet, SplitPolicy, Unit
from foundation.settings import load, template
from foundation.store import TEMPORARY, LocalStore
from foundation.workspace import FILE, Workspace
from queue_workers.plan import load_plan
from tests.support.commands import REPOSITORY, run, run_json


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.init(tmp_path / "w")


def files(workspace: Workspace) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()}


# Another version's files


@pytest.mark.parametrize(
    ("line", "told", "mend"),
    [
        ("version = 2", "version 2, and this factory (qpt-factory", "upgrade this one"),
        ('version = "next"', "version 'next'", "write version = 1"),
        ("version = 0", "version 0", "write version = 1"),
    ],
)
def test_a_workspace_of_another_version_names_both_and_is_not_touched(
    workspace: Workspace, line: str, told: str, mend: str
) -> None:
    file = workspace.root / FILE
    file.write_text(f"# mine\n{line}\n[table-of-the-future]\nkey = 1\n")
    before = files(workspace)
    with pytest.raises(UsageError) as caught:
        Workspace.find(workspace.root)
    assert told in caught.value.what and "works with version 1" in caught.value.what
    assert caught.value.where == f"{file}:2" and mend in caught.value.mend
    run("factory", "status", cwd=workspace.root, code=2)
    run("factory", "enqueue", "--all", cwd=workspace.root, code=2)
    assert files(workspace) == before


def test_a_newer_contract_is_named_with_both_versions() -> None:
    policy = SplitPolicy(key="k", unseen=0.1, phrasing=0.1)
    assert parse(SplitPolicy, policy.model_dump_json().encode(), "plan/split.json") == policy
    newer = json.dumps(policy.model_dump() | {"v": 2}).encode()
    with pytest.raises(
        Failure, match=r"SplitPolicy of version 2, and this one \(qpt-factory .*\) reads version 1"
    ) as caught:
        parse(SplitPolicy, newer, "plan/split.json")
    assert caught.value.where == "plan/split.json" and "upgrade" in caught.value.mend
    with pytest.raises(Failure, match="does not know") as caught:
        parse(SplitPolicy, json.dumps(policy.model_dump() | {"salt": 1}).encode(), "x")
    assert "has salt, which" in caught.value.what
    for broken in (b"{", b"[]", b'{"v": 1, "key": 3}'):
        with pytest.raises(Failure, match="is broken: SplitPolicy"):
            parse(SplitPolicy, broken, "x")


def test_a_newer_plan_and_newer_text_stop_the_command(workspace: Workspace) -> None:
    workspace.store.put("plan/000001-new.jsonl", b'{"v": 7, "what": "nobody knows"}\n')
    with pytest.raises(Failure, match="another version of the factory wrote this: PlanLine"):
        load_plan(workspace.store)
    error = run("factory", "status", cwd=workspace.root, code=1).stderr
    assert "plan/000001-new.jsonl" in error and "Traceback" not in error

    text = Snippet(id="i", article_id="a", title="t", source="s", index=0, sentences=("x",), text="x")
    newer = json.dumps(text.model_dump() | {"v": 2}).encode()
    workspace.store.put("corpus/blocks/000001-aaaaaaaaaaaa-1.jsonl", newer)
    with pytest.raises(Failure, match="Snippet of version 2"):
        Corpus(workspace.store).snippets("000001-aaaaaaaaaaaa-1")


def test_records_of_a_newer_version_are_not_taken_for_broken_lines(workspace: Workspace) -> None:
    workspace.store.put("shards/wh/who/a.jsonl", b'{"v": 1, "torn\n')
    report = ReadReport()
    assert list(read(workspace.store, report=report)) == [] and report.broken_lines == 1
    workspace.store.put("shards/wh/who/b.jsonl", b'{"v": 2, "id": "x"}\n')
    with pytest.raises(Failure, match="Record of version 2") as caught:
        list(read(workspace.store))
    assert caught.value.where == "shards/wh/who/b.jsonl:1"


# A file system that cannot do what commits need


def refuse(number: int) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


def test_the_probe_leaves_nothing_behind(workspace: Workspace) -> None:
    workspace.check_store()
    workspace.check_store()
    assert not [path for path in workspace.root.rglob("*") if path.is_file() and path.name != FILE]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_no_hard_links_is_found_before_any_work(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A stand-in for vfat and its like, which this kernel may lack: the call refuses as theirs does."""
    monkeypatch.setattr(os, "link", refuse(number))
    with pytest.raises(Failure, match="has no hard links") as caught:
        workspace.check_store()
    assert caught.value.where == str(workspace.root / "shards") and "ext4" in caught.value.mend
    with pytest.raises(Failure, match="has no hard links"):
        workspace.store.put_once("shards/x", b"x")
    assert not list(workspace.root.rglob(f"{TEMPORARY}*"))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_no_fsync_is_found_before_any_work(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A stand-in for a FUSE file system without it."""
    monkeypatch.setattr(os, "fsync", refuse(number))
    with pytest.raises(Failure, match="refuses fsync") as caught:
        workspace.check_store()
    assert "power loss" in caught.value.what and caught.value.where.startswith(str(workspace.root))
    assert not list(workspace.root.rglob(f"{TEMPORARY}*"))


def test_a_link_whose_answer_got_lost_is_ours(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS, where a repeated request finds its own first one done."""
    link = os.link

    def twice(*names: Any) -> None:
        link(*names)
        link(*names)

    monkeypatch.setattr(os, "link", twice)
    assert workspace.store.put_once("shards/x", b"x") is True
    assert workspace.store.put_once("shards/x", b"y") is False
    assert workspace.store.get("shards/x") == b"x" and not list(workspace.root.rglob(f"{TEMPORARY}*"))


def test_a_real_file_system_without_hard_links(tmp_path: Path) -> None:
    """vfat on a loop device, where root and the kernel allow it."""
    image, folder = tmp_path / "image", tmp_path / "vfat"
    folder.mkdir()
    image.write_bytes(bytes(4 << 20))
    made = subprocess.run(
        ["sh", "-c", f"mkfs.vfat {image} && mount -o loop {image} {folder}"], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no vfat can be made and mounted here")
    try:
        with pytest.raises(Failure, match="has no hard links"):
            LocalStore(folder).probe("shards")
        assert not list(folder.rglob(f"{TEMPORARY}*"))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# No right to write


@pytest.fixture
def read_only(workspace: Workspace, tmp_path: Path) -> Iterator[Path]:
    """The workspace once more, through a mount that is read-only."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mount = f"mount --bind {workspace.root} {folder} && mount -o remount,ro,bind {folder}"
    if subprocess.run(["sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("a read-only mount cannot be made here: that takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def planned(workspace: Workspace) -> None:
    """Something to look at: text, a plan, and one committed shard."""
    lines = " ".join(
        f"In 19{number} Admiral Brecht left the harbour of Tarvik for the {number}th time." for number in range(10, 60)
    )
    (workspace.root / "text.md").write_text(f"# Tarvik\n\n{lines}\n")
    run("factory", "ingest", "text.md", cwd=workspace.root)
    run("factory", "enqueue", "--prompt-type", "wh/who", cwd=workspace.root)
    unit: Unit = next(load_plan(workspace.store).units())
    workspace.store.put(unit.shard, b"")


@pytest.mark.parametrize("index", [True, False])
def test_status_works_where_nothing_can_be_written(workspace: Workspace, read_only: Path, index: bool) -> None:
    planned(workspace)
    if index:
        run("factory", "status", cwd=workspace.root)
    before = files(workspace)
    assert run_json("factory", "status", cwd=read_only)["committed"] == 1
    assert files(workspace) == before


@pytest.mark.parametrize(
    "command", [("enqueue", "--all"), ("work", "--burst"), ("ingest", "text.md"), ("gc",), ("pause",), ("reconcile",)]
)
def test_a_read_only_workspace_names_the_path_and_the_mend(
    workspace: Workspace, read_only: Path, command: tuple[str, ...]
) -> None:
    planned(workspace)
    error = run("factory", *command, cwd=read_only, code=1).stderr
    assert "read-only" in error and str(read_only) in error and "remount,rw" in error and "Traceback" not in error


@pytest.mark.skipif(os.getuid() != 0, reason="takes root, to become somebody else")
def test_somebody_elses_workspace_can_be_looked_at_and_says_what_to_mend(workspace: Workspace) -> None:
    planned(workspace)
    run("factory", "status", cwd=workspace.root)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom foundation.workspace import Workspace\n"
        "from foundation.errors import from_os_error\nfrom queue_workers.view import Counts\n"
        "workspace = Workspace(Path(sys.argv[1]))\n"
        "Counts(workspace).get()  # imports what the other user may not be allowed to read\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(Counts(workspace).get()[1].units)\n"
        "try:\n    workspace.store.put('plan/x', b'')\nexcept OSError as error:\n    print(from_os_error(error))\n"
    )
    for folder in (*reversed(workspace.root.parents), workspace.root):
        if folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o055)
    command = [sys.executable, "-c", code, str(workspace.root)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1\nnot allowed to write or read: Permission denied")
    assert f"{workspace.root}/plan/{TEMPORARY}" in done.stdout and "check the owner and mode" in done.stdout


# Settings with keys of the user's own


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('version = 1\n[plan]\norder = ["a"]\nweights = {"wh/who" = "x"}\n', 4),
        ('version = 1\n\n[plan.weights]\n"qpt" = 1\n"wh/who" = "x"\n', 5),
        ('version = 1\n[plan]\nweights."wh/who" = "x"\n', 3),
    ],
)
def test_a_wrong_value_under_a_name_of_the_users_own_is_found(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UsageError, match=r"setting plan\.weights\.wh/who: .*number") as caught:
        load(tmp_path / FILE)
    assert caught.value.where == f"{tmp_path / FILE}:{line}"


def test_a_wrong_entry_of_a_list_names_the_line_of_the_list(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('version = 1\n[plan]\norder = [\n  "qpt",\n  3,\n]\n')
    with pytest.raises(UsageError, match=r"plan\.order\.1") as caught:
        load(tmp_path / FILE)
    assert caught.value.where.endswith(":3")


def test_tables_come_from_the_environment_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_text('version = 1\n[plan]\norder = ["qpt"]\n')
    monkeypatch.setenv("FACTORY_PLAN__WEIGHTS", '{"wh/who": 3}')
    plan = load(tmp_path / FILE).plan
    assert (plan.order, plan.weights) == (["qpt"], {"wh/who": 3.0})
    monkeypatch.setenv("FACTORY_PLAN__WEIGHTS", '{"wh/who": "x"}')
    with pytest.raises(UsageError) as caught:
        load(tmp_path / FILE)
    assert caught.value.where == "FACTORY_PLAN__WEIGHTS"
    monkeypatch.setenv("FACTORY_PLAN__WEIGHTS", "wh=3")
    with pytest.raises(UsageError, match="not JSON") as caught:
        load(tmp_path / FILE)
    assert caught.value.where == "FACTORY_PLAN__WEIGHTS"
    monkeypatch.delenv("FACTORY_PLAN__WEIGHTS")
    monkeypatch.setenv("FACTORY_PLAN__WEIGHTS__WH", "3")
    with pytest.raises(UsageError, match="no such setting") as caught:
        load(tmp_path / FILE)
    assert "as JSON: FACTORY_PLAN__WEIGHTS=" in caught.value.mend


def test_inline_tables_and_lists_round_trip_through_the_template(tmp_path: Path) -> None:
    text = template()
    text = text.replace("weights = {}", 'weights = {"wh/who" = 2.5, "qpt" = 0}').replace(
        "order = []", 'order = ["qpt"]'
    )
    (tmp_path / FILE).write_text(text)
    plan = load(tmp_path / FILE).plan
    assert (plan.weights, plan.order) == ({"wh/who": 2.5, "qpt": 0.0}, ["qpt"])
    assert max(map(len, text.splitlines())) <= 140
