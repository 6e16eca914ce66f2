"""`factory service`: a unit that systemd accepts, that holds no secret, and whose lines do what they say."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from foundation.errors import UsageError
from foundation.workspace import Workspace
from queue_workers import service, snapshot
from queue_workers.redis_server import stop
from tests.support.commands import REPOSITORY, run, run_json

ODD = 'my 100% "own" $HOME corpus'


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for units that is not this user's."""
    folder = tmp_path / "config of %u"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.init(tmp_path / ODD)


def value(text: str, key: str) -> str:
    """What the unit says of `key`, its specifiers resolved as systemd does."""
    (found,) = [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]
    return found.replace("%%", "%")


def test_install_writes_the_unit_whole_and_runs_nothing(workspace: Workspace, config: Path) -> None:
    made = service.install(workspace)
    assert made.path == config / "systemd" / "user" / "qpt-factory-my-100-own-home-corpus.service"
    assert made.path.read_text() == made.text and made.installed and made.current
    assert value(made.text, "WorkingDirectory") == str(workspace.root)
    assert (value(made.text, "KillMode"), value(made.text, "TimeoutStopSec")) == ("control-group", "110")
    assert (value(made.text, "Restart"), value(made.text, "RestartPreventExitStatus")) == ("on-failure", "2")
    assert made.start_commands == (
        f"systemctl --user enable --now {made.name}",
        f"loginctl enable-linger {getpass.getuser()}",
    )
    assert [path.name for path in made.path.parent.iterdir()] == [made.path.name]

    made.path.write_text(made.text.replace("RestartSec=15", "RestartSec=1"))
    assert service.describe(workspace).installed and not service.describe(workspace).current
    assert service.install(workspace).current, "ours is replaced whole"


def test_a_longer_drain_gets_its_time(workspace: Workspace, config: Path) -> None:
    file = workspace.root / "factory.toml"
    file.write_text(file.read_text().replace("drain = 90", "drain = 300"))
    assert value(service.describe(Workspace(workspace.root)).text, "TimeoutStopSec") == "320"


def test_a_file_of_somebody_else_is_left_alone(workspace: Workspace, config: Path) -> None:
    path = service.describe(workspace).path
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(UsageError, match="did not write") as caught:
        service.install(workspace)
    assert caught.value.where == str(path)
    assert service.uninstall(workspace)[1] is False
    assert path.read_text() == "[Service]\nExecStart=/bin/true\n"


def test_two_workspaces_of_one_name_get_two_units(tmp_path: Path, config: Path) -> None:
    first, second = (Workspace.init(tmp_path / parent / "history") for parent in "ab")
    one, two = service.install(first), service.install(second)
    assert one.name == "qpt-factory-history" and two.name.startswith("qpt-factory-history-") and one.path != two.path
    assert service.uninstall(first)[1]
    assert service.describe(second).path == two.path, "it is found again when the other is gone"
    assert service.uninstall(second)[1] and not two.path.exists()


def test_uninstall_takes_away_what_enabled_it(workspace: Workspace, config: Path) -> None:
    made = service.install(workspace)
    wants = made.path.parent / "default.target.wants" / made.path.name
    wants.parent.mkdir()
    wants.symlink_to(made.path)
    assert service.uninstall(workspace)[1]
    assert not wants.is_symlink() and not made.path.exists()
    assert service.uninstall(workspace)[1] is False


def test_secrets_stay_in_a_file_that_only_its_owner_reads(
    workspace: Workspace, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_QUEUE__URL", "rediss://:very-secret@queue.example/0")
    made = service.install(Workspace(workspace.root))
    assert "very-secret" not in made.text and "FACTORY_QUEUE__URL" in service.left_out()
    assert value(made.text, "EnvironmentFile") == f"-{made.environment}"
    made.environment.parent.mkdir(parents=True)
    made.environment.write_text("FACTORY_QUEUE__URL=rediss://:very-secret@queue.example/0\n")
    made.environment.chmod(0o640)
    with pytest.raises(UsageError, match="others can read") as caught:
        service.install(workspace)
    assert "chmod 600" in caught.value.mend and "very-secret" not in str(caught.value)
    made.environment.chmod(0o600)
    service.install(workspace)


@pytest.mark.parametrize("name", ["line\nbreak", "ends in a backslash\\", "ends in a space "])
def test_a_path_that_a_unit_cannot_say_is_refused(tmp_path: Path, config: Path, name: str) -> None:
    workspace = Workspace.init(tmp_path / name)
    with pytest.raises(UsageError, match="systemd cannot be told"):
        service.install(workspace)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_it(workspace: Workspace, config: Path, tmp_path: Path) -> None:
    made = service.install(workspace)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    command = ["systemd-analyze", "verify", "--user", "--man=no", str(made.path)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_command_line_tells_what_comes_next(workspace: Workspace, config: Path) -> None:
    assert "not installed" in run("factory", "service", "show", cwd=workspace.root).stderr
    out = run("factory", "service", "install", cwd=workspace.root).stdout
    assert "systemctl --user enable --now" in out and "enable-linger" in out
    document = run_json("factory", "service", "show", cwd=workspace.root)
    assert document["installed"] and document["current"] and "ExecStart" in document["text"]
    assert run_json("factory", "service", "uninstall", cwd=workspace.root)["removed"] is True
    assert "no service" in run("factory", "service", "uninstall", cwd=workspace.root).stdout


def test_its_lines_start_the_factory_and_drain_it(workspace: Workspace, config: Path, tmp_path: Path) -> None:
    """ExecStart and ExecStop as systemd would call them: from its words, in its folder, with nothing of this shell."""
    (tmp_path / "text.md").write_text(
        "# Osmark\n\n" + " ".join(f"In 19{n:02d} the siege of Osmark began again." for n in range(10, 60))
    )
    run("factory", "ingest", str(tmp_path / "text.md"), cwd=workspace.root)
    text = service.install(workspace).text
    words = shlex.split(value(text, "Environment"))
    environment = dict(word.split("=", 1) for word in words)
    environment |= {"HOME": str(tmp_path), "FACTORY_TEACHER__BACKEND": "rules", "PYTHONPATH": str(REPOSITORY)}
    environment |= {"QPT_DEVICES": os.environ["QPT_DEVICES"]}
    folder = value(text, "WorkingDirectory")
    with open(tmp_path / "log", "wb") as log:
        start = shlex.split(value(text, "ExecStart"))
        process = subprocess.Popen(start, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 90
        while not any(workspace.store.list("shards")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.2)
        subprocess.run(shlex.split(value(text, "ExecStop")), cwd=folder, env=environment, check=True, timeout=200)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
        assert snapshot.read(workspace) == [] and not list(workspace.run.glob("work-[0-9]*"))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
        stop(workspace)
