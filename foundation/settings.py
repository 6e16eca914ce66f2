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

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from foundation.errors import UsageError

WORKERS_OF_RULES, WORKERS_OF_SERVER = 4, 3
VERSION = 1  # of a workspace's layout
PREFIX = "FACTORY_"
OTHER_VARIABLES = {"FACTORY_WORKSPACE", "FACTORY_DEBUG"}  # theirs is not a setting's form


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusSettings(Table):
    source: str = Field(
        default="corpus", description="Stable name of a collection that does not name itself (never a path or a date)."
    )
    window: int = Field(default=8, ge=1, le=64, description="Sentences in a snippet.")
    stride: int = Field(default=4, ge=1, le=64, description="Sentences the window moves by.")
    min_words: int = Field(default=80, ge=0, description="Articles with fewer words are stubs: skipped and counted.")

    @model_validator(mode="after")
    def _no_gaps(self) -> CorpusSettings:
        if self.stride > self.window:
            raise ValueError(
                f"stride {self.stride} is longer than window {self.window}: sentences between would be lost"
            )
        return self


class SplitSettings(Table):
    key: str = Field(
        default="qpt",
        min_length=1,
        description="Key of the hash that decides the splits. Fixed once a unit is planned.",
    )
    unseen: float = Field(default=0.05, ge=0, lt=1, description="Share of articles held out whole.")
    phrasing: float = Field(
        default=0.02, ge=0, lt=1, description="Share of the other snippet x prompt type pairs held out."
    )


class TeacherSettings(Table):
    backend: Literal["auto", "rules", "vllm", "openai"] = Field(
        default="auto", description="auto: vllm where a GPU is found, else rules (embedded, no weights, no LLM)."
    )
    profile: Literal["auto", "none", "cpu", "16gb", "24gb", "80gb"] = Field(
        default="auto",
        description="vllm: model and settings by the size of the card (`factory teacher profiles`); auto: this one's; none: args alone.",
    )
    model: str = Field(
        default="", description="Model name, or a folder with its weights; empty: the profile's. openai: must be named."
    )
    revision: str = Field(default="", description="Revision of the model; empty: the hub's main.")
    base_url: str = Field(default="", description="openai: URL of the server, ending in /v1.")
    api_key: SecretStr = Field(
        default=SecretStr(""), description="openai: the key. Better set as FACTORY_TEACHER__API_KEY."
    )
    concurrency: int = Field(
        default=64, ge=1, le=4096, description="Requests in flight per worker, at most: it adapts to the server."
    )
    timeout: float = Field(default=120.0, gt=0, description="Seconds one request may take.")
    context: int = Field(default=0, ge=0, description="vllm: longest prompt plus answer, in tokens; 0: the profile's.")
    start_timeout: float = Field(default=900.0, gt=0, description="vllm: seconds the server may take to load.")
    args: list[str] = Field(
        default_factory=list,
        description='vllm: more arguments for its server; one of the profile\'s of the same name gives way, "--no-FLAG" takes it out.',
    )

    @model_validator(mode="after")
    def _some_context(self) -> TeacherSettings:
        if 0 < self.context < 256:
            raise ValueError(f"context {self.context} is too short: 256 tokens at least, or 0 for the profile's")
        return self


class QueueSettings(Table):
    url: SecretStr = Field(
        default=SecretStr(""), description="Redis URL; empty: the workspace's own Redis on a private socket."
    )
    lease: int = Field(
        default=180,
        ge=5,
        description="Seconds a unit may go without a word from its teacher; in all it may take 20 times.",
    )
    heartbeat: int = Field(
        default=20, ge=1, description="Seconds without a sign of life after which a worker counts as lost."
    )
    max_failures: int = Field(default=3, ge=1, description="Failures of a unit's own before it is set aside.")
    max_lost: int = Field(default=10, ge=1, description="Deliveries lost with their worker before a unit is set aside.")


class WorkSettings(Table):
    workers: int = Field(
        default=0, ge=0, le=64, description="Worker processes; 0: one a core for rules, three for a server."
    )
    drain: int = Field(
        default=90, ge=1, description="Seconds a stop waits for units in hand; then they are given back, not lost."
    )
    hung_after: int = Field(
        default=120,
        ge=1,
        description="Seconds without a token, with requests in flight, after which vLLM is restarted.",
    )
    min_free: int = Field(default=512, ge=0, description="MB of free disk below which no unit is begun.")
    hourly_price: float = Field(default=0.0, ge=0, description="What an hour of this machine costs; 0: not counted.")
    kwh_price: float = Field(default=0.0, ge=0, description="What a kWh of the GPU's energy costs; 0: not counted.")

    def workers_for(self, *, rules: bool) -> int:
        """As many as are set; else those that fit the teacher: `rules` computes in them, and three keep a server's batch full."""
        return self.workers or (min(WORKERS_OF_RULES, len(os.sched_getaffinity(0))) if rules else WORKERS_OF_SERVER)


class PlanSettings(Table):
    order: list[str] = Field(
        default_factory=list,
        description='Prompt types or families that `factory run` takes first, each finished before the next: ["qpt", "wh/who"].',
    )
    weights: dict[str, float] = Field(
        default_factory=dict,
        description='How the rest is mixed, by prompt type or family: {"qpt" = 3, "cloze" = 0}; 0 leaves one out. '
        "Default: the prompt file's weight.",
    )
    caps: dict[str, int] = Field(
        default_factory=dict,
        description='Items at most, all rounds together, by prompt type or family: {"wh" = 200000}.',
    )
    rounds: int = Field(default=0, ge=0, description="Rounds over the corpus at most; 0: always another one.")
    low_water: int = Field(default=32, ge=1, description="Units waiting below which `factory run` plans more.")


class TrainSettings(Table):
    preset: str = Field(default="demo", description="Model shape: see `trainer params`.")
    vocabulary: int = Field(default=4096, ge=512, le=65536, description="Tokens in the tokenizer.")
    context: int = Field(default=512, ge=64, description="Tokens in one packed context.")
    batch: int = Field(default=2, ge=1, description="Contexts in one optimizer step.")
    epochs: float = Field(default=4.0, gt=0, description="Passes over the training split.")
    learning_rate: float = Field(default=3e-3, gt=0, description="Peak learning rate of AdamW.")
    min_learning_rate: float = Field(default=0.1, ge=0, le=1, description="Share of the peak the decay ends at.")
    warmup: float = Field(default=0.05, ge=0, le=1, description="Share of the steps spent warming up.")
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW's weight decay, on matrices only.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    seed: int = Field(default=1, ge=0, description="Seed of weights, order and shuffling.")
    checkpoint_every: int = Field(default=200, ge=1, description="Steps between checkpoints.")
    evaluate_every: int = Field(default=100, ge=1, description="Steps between losses on the held-out splits.")
    rounds: int = Field(default=2, ge=1, description="Rounds of train, answer, judge in `trainer run --orchestrate`.")


class JudgeSettings(Table):
    backend: Literal["rules", "vllm", "openai"] = Field(
        default="rules", description="Who grades; rules: normalised fact containment, no LLM."
    )
    model: str = Field(default="Qwen/Qwen3-4B", description="vllm, openai: the grader's model.")
    base_url: str = Field(default="", description="openai: URL of the server, ending in /v1.")
    api_key: SecretStr = Field(
        default=SecretStr(""), description="openai: the key. Better set as FACTORY_JUDGE__API_KEY."
    )
    concurrency: int = Field(default=32, ge=1, le=4096, description="Requests in flight.")
    max_tokens: int = Field(default=1024, ge=16, description="Room for the grader's thinking and its verdict.")
    context: int = Field(default=8192, ge=256, description="vllm: longest prompt plus answer, in tokens.")
    start_timeout: float = Field(default=900.0, gt=0, description="vllm: seconds the server may take to load.")
    args: list[str] = Field(default_factory=list, description="vllm: more arguments for its server, as a list.")
    answers: int = Field(default=200, ge=1, description="Held-out questions a split contributes, at most.")


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
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    return repr(value)
