"""An export that is killed, meets a full disk, or runs beside generation: what was there stays, what appears is whole."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from foundation.reader import pin
from foundation.workspace import Workspace
from tests.faults.conftest import clear
from tests.faults.test_disk import fill, small_disk
from tests.faults.test_kills import WORK
from tests.generator.export_workspace import assert_whole, records_of, tree
from tests.support.commands import run, run_json
from tests.support.faults import committed, dies_at, ended, factory, finish, make_workspace, output, wait_for

__all__ = ["small_disk"]  # a fixture
pytestmark = pytest.mark.xdist_group("export-faults")  # what they share is made once
MB = 2**20
FORMATS = ("jsonl", "parquet", "hf")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Some two hundred records; tests only read them."""
    made = make_workspace(tmp_path_factory.mktemp("export") / "w", blocks=16)
    finish(made, *WORK)
    yield made
    clear(made)


@pytest.fixture(scope="module")
def undisturbed(filled: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The files of an export that nothing disturbed, by format."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for form in ("jsonl", "hf"):
        run("factory", *export(folder / form, form), cwd=filled.root)
    return {form: tree(folder / form) for form in ("jsonl", "hf")}


def export(out: Path, form: str) -> tuple[str, ...]:
    return ("export", str(out), "--format", form)


def kill(workspace: Workspace, prelude: str, *command: str) -> None:
    with factory(workspace, *command, prelude=prelude) as process:
        assert process.wait(100) == -signal.SIGKILL, output(workspace).read_text()[-3000:]


PLACES = {
    "half-way": dies_at("generator.export.formats:SplitFiles.add", nth=100),
    "at the card": dies_at("generator.export.run:_write_words"),
    "before the rename": dies_at("os:rename", when="str(a[1]).endswith('/out')"),
}


@pytest.mark.parametrize("form", ["jsonl", "hf"])
@pytest.mark.parametrize("place", PLACES)
def test_killed_before_it_is_whole(
    filled: Workspace, undisturbed: dict[str, dict[str, bytes]], tmp_path: Path, place: str, form: str
) -> None:
    kill(filled, PLACES[place], *export(tmp_path / "out", form))
    assert [path.name for path in tmp_path.iterdir()] == [".out.exporting"]
    done = run("factory", *export(tmp_path / "out", form), cwd=filled.root)
    assert "removed what an export that was broken off had left" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert_whole(tmp_path / "out")
    assert tree(tmp_path / "out") == undisturbed[form]


def test_killed_right_after_the_rename(filled: Workspace, tmp_path: Path) -> None:
    prelude = dies_at("os:rename", after=True, when="str(a[1]).endswith('/out')")
    kill(filled, prelude, *export(tmp_path / "out", "hf"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "out" / ".lock").unlink()  # empty; all that it leaves
    assert_whole(tmp_path / "out")


def test_interrupted_it_leaves_nothing(filled: Workspace, tmp_path: Path) -> None:
    prelude = PLACES["half-way"].replace("SIGKILL", "SIGINT")
    with factory(filled, *export(tmp_path / "out", "parquet"), prelude=prelude) as process:
        ended(process, filled, code=130)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", FORMATS)
def test_no_file_may_grow(filled: Workspace, tmp_path: Path, form: str) -> None:
    """RLIMIT_FSIZE lets small files through and refuses the rows: what a quota does."""
    (tmp_path / "mine").write_text("keep me")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 1024, resource.RLIM_INFINITY))

    argv = ["export", str(tmp_path / "out"), "--format", form]
    start = "from generator.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start, *argv], cwd=filled.root, capture_output=True, text=True, preexec_fn=limited
    )
    assert done.returncode == 1
    assert "the disk is full: the export was given up, and nothing of it is left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert tree(tmp_path) == {"mine": b"keep me"}


def test_too_little_room_is_seen_before(filled: Workspace, small_disk: Path) -> None:
    fill(small_disk, leave=8 * MB)
    done = run("factory", *export(small_disk / "out", "hf"), cwd=filled.root, code=1)
    assert "not enough room" in done.stderr
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_the_disk_fills_up_meanwhile(filled: Workspace, small_disk: Path) -> None:
    """The room there was is taken by another one once it is looked at."""
    ballast = small_disk / "ballast"
    prelude = "\n".join(
        [
            "import generator.export.run as run",
            "first = run._write_words",
            "def words(*a):",
            f"    with open({str(ballast)!r}, 'wb', buffering=0) as file:",
            "        try:",
            "            while True: file.write(bytes(4096))",
            "        except OSError: pass",
            "    return first(*a)",
            "run._write_words = words",
        ]
    )
    with factory(filled, *export(small_disk / "out", "jsonl"), prelude=prelude) as process:
        ended(process, filled, code=1)
    assert "the disk is full: the export was given up" in output(filled).read_text()
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]
    ballast.unlink()
    run("factory", *export(small_disk / "out", "jsonl"), cwd=filled.root)
    assert_whole(small_disk / "out")


def test_two_to_one_place(filled: Workspace, tmp_path: Path) -> None:
    waits = "import generator.export.run as run, time\nrun._write_words = lambda *a: time.sleep(100)"
    with factory(filled, *export(tmp_path / "out", "jsonl"), prelude=waits):
        wait_for(lambda: (tmp_path / ".out.exporting" / "train-00000-of-00001.jsonl").exists(), what="its rows")
        done = run("factory", *export(tmp_path / "out", "jsonl"), cwd=filled.root, code=1)
        assert "another export to this place is going on" in done.stderr
        assert (tmp_path / ".out.exporting" / "train-00000-of-00001.jsonl").stat().st_size


def test_a_place_taken_meanwhile_is_left(filled: Workspace, tmp_path: Path) -> None:
    takes = "\n".join(
        [
            "import os, generator.export.run as run",
            "first = run._write_words",
            f"def words(*a): os.mkdir({str(tmp_path / 'out')!r}); open({str(tmp_path / 'out' / 'mine')!r}, 'w'); first(*a)",
            "run._write_words = words",
        ]
    )
    with factory(filled, *export(tmp_path / "out", "jsonl"), prelude=takes) as process:
        ended(process, filled, code=2)
    assert tree(tmp_path) == {"out/mine": b""}


def test_a_hidden_folder_of_somebody_else_is_left(filled: Workspace, tmp_path: Path) -> None:
    (tmp_path / ".out.exporting").mkdir()
    (tmp_path / ".out.exporting" / "mine").write_text("keep me")
    done = run("factory", *export(tmp_path / "out", "jsonl"), cwd=filled.root, code=2)
    assert "taken by something that is no export" in done.stderr
    assert tree(tmp_path) == {".out.exporting/mine": b"keep me"}


def test_what_is_committed_meanwhile_is_not_in_it(
    filled: Workspace, undisturbed: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """Between the two passes another unit is committed, and an article withdrawn: the manifest stands."""
    root = Path(shutil.copytree(filled.root, tmp_path / "w", ignore=shutil.ignore_patterns("run", "cache")))
    shard = min(root.glob("shards/wh/who/*.jsonl"))
    stone = {"kind": "article", "value": records_of(root)[0].article_id}
    meanwhile = "\n".join(
        [
            "import generator.export.run as run",
            "from foundation.reader import Tombstone",
            "from foundation.store import LocalStore",
            "from pathlib import Path",
            "first = run._Export.compare",
            "def compare(self):",
            "    found = first(self)",
            f"    self.store.put('shards/wh/who/000000000000000000000000.jsonl', Path({str(shard)!r}).read_bytes())",
            f"    stone = Tombstone(**{stone!r})",
            "    self.store.put(stone.name, stone.model_dump_json().encode())",
            "    return found",
            "run._Export.compare = compare",
        ]
    )
    workspace = Workspace(root)
    with factory(workspace, *export(tmp_path / "out", "jsonl"), prelude=meanwhile) as process:
        ended(process, workspace)
    assert tree(tmp_path / "out") == undisturbed["jsonl"]


def test_shards_that_are_edited_meanwhile_are_noticed(filled: Workspace, tmp_path: Path) -> None:
    root = Path(shutil.copytree(filled.root, tmp_path / "w", ignore=shutil.ignore_patterns("run", "cache")))
    workspace = Workspace(root)
    for number, change in enumerate(("write_bytes(b'')", "unlink()")):
        edited = "\n".join(
            [
                "import generator.export.run as run",
                "from pathlib import Path",
                "first = run._Export.compare",
                "def compare(self):",
                "    found = first(self)",
                f"    max(Path({str(root)!r}).glob('shards/wh/who/*.jsonl')).{change}",
                "    return found",
                "run._Export.compare = compare",
            ]
        )
        with factory(workspace, *export(tmp_path / "out", "parquet"), prelude=edited) as process:
            ended(process, workspace, code=1)
        words = ("a shard was changed while it was exported", "a shard went away while it was exported")[number]
        assert words in output(workspace).read_text()
        assert not [path for path in tmp_path.iterdir() if "out" in path.name and path.is_dir()]


def test_exports_while_units_are_made(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", blocks=16, size=16)
    try:
        with factory(workspace, *WORK) as process:
            seen = []
            while process.poll() is None and len(seen) < 3:
                wait_for(lambda: committed(workspace), what="the first unit")
                out = tmp_path / f"out{len(seen)}"
                seen.append(run_json("factory", *export(out, FORMATS[len(seen) % 3]), cwd=workspace.root)["shards"])
                assert_whole(out)
                assert json.loads((out / "manifest.json").read_text())["shards"] == seen[-1]
            ended(process, workspace)
        assert seen == sorted(seen)
        assert seen[0] < len(pin(workspace.store).shards)
    finally:
        clear(workspace)


def test_without_pyarrow(filled: Workspace, tmp_path: Path) -> None:
    missing = "import sys\nsys.modules['pyarrow'] = None"
    for form, code in (("hf", 1), ("parquet", 1), ("jsonl", 0)):
        with factory(filled, *export(tmp_path / form, form), prelude=missing) as process:
            ended(process, filled, code=code)
    assert "pip install 'qpt-factory[export]', or choose --format jsonl" in output(filled).read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["jsonl"]
