"""The workspace's settings: `factory.toml`, overridden by `FACTORY_TABLE__KEY` in the environment.

Guarantees: closed (an unknown key is refused, with the nearest name), every key documented here and nowhere else:
`factory init` writes the file from these descriptions. Cost: importing pydantic-settings, about 0.1 s, once a command.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from foundation.errors import UsageError
from foundation.tables import (
    CorpusSettings,
    JudgeSettings,
    MixSettings,
    OrchestrateSettings,
    PlanSettings,
    QueueSettings,
    SplitSettings,
    TeacherSettings,
    TrainSettings,
    WorkSettings,
)

VERSION = 1  # of a workspace's layout
PREFIX = "FACTORY_"
OTHER_VARIABLES = {"FACTORY_WORKSPACE", "FACTORY_DEBUG"}  # theirs is not a setting's form


class Settings(BaseSettings):
    """All of `factory.toml`. Each table is one room's."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix=PREFIX, env_nested_delimiter="__")

    version: Literal[1] = Field(default=1, description="Version of the workspace's layout.")
    corpus: CorpusSettings = CorpusSettings()
    split: SplitSettings = SplitSettings()
    teacher: TeacherSettings = TeacherSettings()
    queue: QueueSettings = QueueSettings()
    work: WorkSettings = WorkSettings()
    plan: PlanSettings = PlanSettings()
    train: TrainSettings = TrainSettings()
    mix: MixSettings = MixSettings()
    orchestrate: OrchestrateSettings = OrchestrateSettings()
    judge: JudgeSettings = JudgeSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file (which `load` passes in as init arguments)."""
        return env_settings, init_settings


def load(path: Path) -> Settings:
    """Read and check a `factory.toml` and the environment. Raises `UsageError` that names the key and the nearest right one."""
    _check_environment()
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"factory.toml cannot be read: {error}", where=str(path), mend="mend the line it names"
        ) from error
    _check_version(values.get("version", VERSION), path)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise _explain(error, path) from error
    except SettingsError as error:  # it names the table alone: whichever of its variables is no JSON
        table = str(error).partition('"')[2].partition('"')[0]
        names = [name for name in sorted(os.environ) if name.startswith(f"{PREFIX}{table}".upper())]
        raise UsageError(
            f"a variable for [{table}] is not JSON, which a list or a table asks for",
            where=", ".join(names),
            mend="""FACTORY_PLAN__ORDER='["wh/who", "qpt"]', FACTORY_PLAN__WEIGHTS='{"wh/who": 2}'""",
        ) from error


def _check_version(found: Any, path: Path) -> None:
    if found == VERSION:
        return
    from foundation.parse import installed

    newer = isinstance(found, int) and found > VERSION
    upgrade = "upgrade this one (`pip install --upgrade qpt-factory`), or use the one that made the workspace"
    raise UsageError(
        f"this workspace is of version {found!r}, and this factory ({installed()}) works with version {VERSION}",
        where=f"{path}{_line_of(path, ['version'])}",
        mend=f"{upgrade}; nothing was changed" if newer else f"write version = {VERSION}, if that is what it is",
    )


def _check_environment() -> None:
    """Refuse a variable that looks like a setting and is none: pydantic-settings would pass over it in silence."""
    for name in os.environ:
        if name.startswith(PREFIX) and name not in OTHER_VARIABLES:
            keys = name.removeprefix(PREFIX).lower().split("__")
            for depth, key in enumerate(keys):
                known = _known_keys(keys[:depth])
                if key not in known:
                    table = PREFIX + "__".join(keys[:depth]).upper()
                    free = _free(keys[:depth])
                    mend = f"set it whole, as JSON: {table}='{{\"wh/who\": 2}}'" if free else _nearest(key, known)
                    raise UsageError(f"no such setting: {'.'.join(keys)}", where=name, mend=mend)


def _explain(error: ValidationError, path: Path) -> UsageError:
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    name = ".".join(keys)
    if first["type"] != "extra_forbidden":
        variables = (PREFIX + "__".join(keys[:length]).upper() for length in range(len(keys), 0, -1))
        where = next((name for name in variables if name in os.environ), f"{path}{_line_of(path, keys)}")
        return UsageError(
            f"setting {name}: {first['msg']}", where=where, mend="give it a value of the kind it asks for"
        )
    return UsageError(
        f"no such setting: {name}",
        where=f"{path}{_line_of(path, keys)}",
        mend=_nearest(keys[-1], _known_keys(keys[:-1])),
    )


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"{f'did you mean {near[0]}? ' if near else ''}known here: {', '.join(known) or 'none'}"


def _known_keys(tables: list[str]) -> list[str]:
    """The keys of a table, or of the whole file; none where `tables` leads to a plain value."""
    model: Any = Settings
    for table in tables:
        model = model.model_fields[table].annotation
    return list(getattr(model, "model_fields", ()))


def _free(keys: list[str]) -> bool:
    """Whether `keys` lead to a table with keys of the user's own, such as `plan.weights`."""
    model: Any = Settings
    for key in keys:
        model = model.model_fields[key].annotation
    return bool(get_origin(model) is dict)


def _line_of(path: Path, keys: list[str]) -> str:
    """`:LINE` of a key, or of the nearest thing around it that the file has; empty if it came from elsewhere."""
    table: list[str] = []
    lines: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        text = line.strip()
        if text.startswith("["):
            table = _keys(text)
            lines.setdefault(tuple(table), number)
        elif "=" in text and not text.startswith("#"):
            lines.setdefault((*table, *_keys(f"{text.partition('=')[0]}= 0")), number)
    for length in range(len(keys), 0, -1):
        if tuple(keys[:length]) in lines:
            return f":{lines[tuple(keys[:length])]}"
    return ""


def _keys(line: str) -> list[str]:
    """The keys that one line of TOML names, `["plan", "weights", "wh/who"]`; none if it is a part of a longer value."""
    try:
        found: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return []
    keys: list[str] = []
    while isinstance(found, dict) and found:
        key, found = next(iter(found.items()))
        keys.append(key)
    return keys


def template() -> str:
    """The text of a new `factory.toml`: every key with its default, and what it means above it."""
    lines = [
        "# Settings of this workspace. The environment overrides them: FACTORY_TEACHER__BACKEND=rules.",
        "",
        f"# {Settings.model_fields['version'].description}",
        "version = 1",
    ]
    for name, field in Settings.model_fields.items():
        if name == "version":
            continue
        lines += ["", f"[{name}]"]
        for key, entry in field.annotation.model_fields.items():  # type: ignore[union-attr]
            default = entry.get_default(call_default_factory=True)
            lines += [f"# {entry.description}", f"{key} = {_toml(default)}"]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return repr(value)
