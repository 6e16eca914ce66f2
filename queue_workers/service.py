"""`factory service`: a systemd user unit that runs `factory run` from boot to boot.

Guarantees: absolute paths only, quoted as systemd reads them; no secret is written: the settings of the environment
come from a file that only its owner can read, or the unit is refused; a unit file that we did not write is never touched.
Nothing is started, stopped or enabled here: the commands for that are said. Cost: a small file.

A stop drains: ExecStop is our own `factory stop`, and only what is left after it is signalled, as a group.
"""

from __future__ import annotations

import getpass
import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import Failure, UsageError
from foundation.ids import stable_id
from foundation.settings import OTHER_VARIABLES
from foundation.settings import PREFIX as VARIABLE
from foundation.store import replace_file

if TYPE_CHECKING:
    from foundation.workspace import Workspace

PREFIX = "qpt-factory-"
MARK = "# Written by `factory service install` for the workspace "
STOP_SECONDS = 110  # the default drain of 90 s and what follows it; a spot machine gives 120
SLACK = 20
WANTS = "default.target"
_PASSED_ON = ("CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE", "LD_LIBRARY_PATH", "TMPDIR")


@dataclass(frozen=True)
class Service:
    """The unit of one workspace: `path` is where systemd reads it, `environment` the file with the settings' variables."""

    name: str
    path: Path
    environment: Path
    text: str

    @property
    def installed(self) -> bool:
        return _read(self.path).startswith(MARK)

    @property
    def current(self) -> bool:
        """Whether what is installed is what would be written now."""
        return _read(self.path) == self.text

    @property
    def start_commands(self) -> tuple[str, str]:
        """What makes it run, now and after every boot."""
        return f"systemctl --user enable --now {self.name}", f"loginctl enable-linger {getpass.getuser()}"

    @property
    def stop_commands(self) -> tuple[str, str]:
        return f"systemctl --user stop {self.name}", "systemctl --user daemon-reload"


def describe(workspace: Workspace) -> Service:
    """The unit as it would be written now. Raises `UsageError` for a path that systemd cannot read, `Failure` without `factory`."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    units = config / "systemd" / "user"
    slug = re.sub(r"[^A-Za-z0-9]+", "-", workspace.root.name).strip("-").lower() or "workspace"
    name, longer = f"{PREFIX}{slug}", f"{PREFIX}{slug}-{stable_id(str(workspace.root))[:6]}"
    owner = _read(units / f"{name}.service")
    others = owner.startswith(MARK) and not owner.startswith(_mark(workspace))  # a folder elsewhere with the same name
    if others or _read(units / f"{longer}.service").startswith(_mark(workspace)):
        name = longer
    environment = config / "qpt-factory" / f"{name.removeprefix(PREFIX)}.env"
    return Service(name, units / f"{name}.service", environment, _text(workspace, environment))


def install(workspace: Workspace) -> Service:
    """Write the unit, whole. Raises `UsageError` if another's file stands there, or others can read the environment file."""
    service = describe(workspace)
    check_environment(service.environment)
    there = service.path.is_symlink() or service.path.exists()
    if there and not service.installed:
        raise UsageError(
            "a file that `factory service` did not write stands there, and is left alone",
            where=str(service.path),
            mend="remove it, or rename the folder of the workspace: the name of the unit comes from it",
        )
    service.path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(service.path, service.text.encode())
    return service


def uninstall(workspace: Workspace) -> tuple[Service, bool]:
    """Remove the unit and what enabled it; whether there was one. What runs goes on until it is stopped."""
    service = describe(workspace)
    if not service.installed:
        return service, False
    (service.path.parent / f"{WANTS}.wants" / service.path.name).unlink(missing_ok=True)
    service.path.unlink()
    return service, True


def check_environment(path: Path) -> None:
    """Raises `UsageError` unless the environment file is missing, or its owner's alone."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return
    if mode & 0o077:
        raise UsageError(
            f"others can read the file with the settings' secrets (mode {mode:04o})",
            where=str(path),
            mend=f"chmod 600 '{path}'; a password that others may have read should be changed",
        )


def left_out() -> list[str]:
    """Variables that are set here and would not be in the service: settings, and what vLLM goes by."""
    names = [name for name in os.environ if name.startswith(VARIABLE) and name not in OTHER_VARIABLES]
    return sorted(names) + [name for name in _PASSED_ON if name in os.environ]


def _mark(workspace: Workspace) -> str:
    return f"{MARK}{workspace.root}\n"


def _text(workspace: Workspace, environment: Path) -> str:
    root, factory = str(workspace.root), _factory()
    for path in (root, factory, str(environment), sys.prefix):
        _refuse_odd(path)
    path = ":".join(dict.fromkeys([str(Path(factory).parent), *filter(os.path.isabs, os.get_exec_path())]))
    stop = max(STOP_SECONDS, workspace.settings.work.drain + SLACK)
    return f"""{_mark(workspace)}# It is written anew each time: put what you change into `systemctl --user edit`.
[Unit]
Description=QPT Factory in {_escape(root)}
# Never given up: what a run waits for (a Redis, a driver, a disk) may take hours to come back.
StartLimitIntervalSec=0

[Service]
Type=exec
WorkingDirectory={_escape(root)}
Environment={_quote(f"PATH={path}")}
# Settings with secrets, a line each, in a file of mode 0600: FACTORY_QUEUE__URL=rediss://..., FACTORY_TEACHER__API_KEY=...
EnvironmentFile=-{_escape(str(environment))}
ExecStart={_quote(factory)} run
ExecStop={_quote(factory)} stop
KillMode=control-group
TimeoutStopSec={stop}
Restart=on-failure
RestartSec=15
# Wrong settings or use: another start would end as this one did.
RestartPreventExitStatus=2
# A worker that memory ran out for is started again by the factory itself.
OOMPolicy=continue

[Install]
WantedBy={WANTS}
"""


def _factory() -> str:
    """The absolute path of the `factory` of this installation."""
    beside = Path(sys.executable).parent / "factory"
    if not os.access(beside, os.X_OK):
        raise Failure(
            "there is no `factory` command beside this Python, so no service could start it",
            where=str(beside),
            mend="install the project into this environment: pip install qpt-factory",
        )
    return str(beside)


def _escape(path: str) -> str:
    """For values that systemd takes as they are, but for its specifiers."""
    return path.replace("%", "%%")


def _quote(word: str) -> str:
    """One word of a line that systemd splits."""
    return '"' + _escape(word).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _refuse_odd(path: str) -> None:
    """What no line of a unit file can say."""
    if not path.isprintable() or path != path.strip() or path.endswith("\\"):
        raise UsageError(
            "systemd cannot be told this path: it has a line break, or ends in a space or a backslash",
            where=repr(path),
            mend="rename the folder",
        )


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return ""
