"""The tables of `factory.toml`, one a room: every key with its default, its bounds and what it means.

Guarantees: closed (an unknown key is refused); checked when built; `foundation.settings` reads the file into them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from foundation.errors import UsageError
from foundation.quantities import share, size_bytes

WORKERS_OF_RULES, WORKERS_OF_SERVER = 4, 3


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _as_number(read: Callable[[str], float], value: Any) -> Any:
    """What `read` makes of a text that is no plain number."""
    try:
        return read(value) if isinstance(value, str) and not value.replace(".", "", 1).isdigit() else value
    except UsageError as error:
        raise ValueError(f"{error.what}; {error.mend}") from error


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
    """0 in `vocabulary`, `context`, `batch` and `learning_rate` means the preset's own: `trainer.presets.recipe` fills them in."""

    preset: str = Field(default="demo", description="Model shape, and what goes with it: see `trainer params`.")
    vocabulary: int = Field(default=0, ge=0, le=262144, description="Tokens in the tokenizer; 0: the preset's.")
    context: int = Field(default=0, ge=0, description="Tokens in one packed context; 0: the preset's.")
    batch: int = Field(
        default=0, ge=0, description="Contexts in one optimizer step; 0: the preset's (demo 2, else 120)."
    )
    physical_batch: int = Field(
        default=0, ge=0, description="Contexts in memory at once, the step's others after them; 0: as many as fit."
    )
    leave_vram: float = Field(default=1.0, ge=0, description="GB of GPU memory that physical_batch = 0 leaves free.")
    epochs: float = Field(default=4.0, gt=0, description="Passes over the training split.")
    share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the records to train on, by keyed hash: a larger one holds a smaller one's.",
    )
    share_key: str = Field(default="share", min_length=1, description="Key of that hash.")
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: for the matrices of the blocks, AdamW for the rest."
    )
    learning_rate: float = Field(default=0.0, ge=0, description="Peak learning rate; 0: the preset's.")
    min_learning_rate: float = Field(default=0.1, ge=0, le=1, description="Share of the peak the decay ends at.")
    schedule: Literal["cosine", "wsd"] = Field(
        default="cosine", description="wsd: warmup, then stable, then a straight decay over the last steps."
    )
    warmup: float = Field(default=0.05, ge=0, le=1, description="Share of the steps spent warming up.")
    decay: float = Field(default=0.2, ge=0, le=1, description="wsd: share of the steps spent decaying.")
    weight_decay: list[tuple[float, float]] = Field(
        default=[(0.0, 0.1), (2.0, 0.05)],
        description="Weight decay of matrices, from each epoch on: [epoch, value], ...",
    )
    clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="torch.compile; auto: on a GPU, and on a CPU where a long run pays it back."
    )
    recompute: bool = Field(
        default=False, description="Activation checkpointing: blocks are computed twice, their activations not kept."
    )
    seed: int = Field(default=1, ge=0, description="Seed of weights, order and shuffling.")
    checkpoint_every: int = Field(default=200, ge=1, description="Steps between checkpoints.")
    keep: int = Field(default=2, ge=1, description="Newest checkpoints that are kept, besides the best.")
    evaluate_every: int = Field(default=100, ge=1, description="Steps between losses on the held-out splits.")
    tensorboard: bool = Field(default=False, description="Write figures for TensorBoard too (extra: tensorboard).")

    @field_validator("share", mode="before")
    @classmethod
    def _percent(cls, value: Any) -> Any:
        """As on the command line: 10% is 0.1."""
        return _as_number(share, value)

    @field_validator("leave_vram", mode="before")
    @classmethod
    def _gigabytes(cls, value: Any) -> Any:
        """As on the command line: 512M is 0.5."""
        return _as_number(lambda text: size_bytes(text) / (1 << 30), value)

    @field_validator("weight_decay", mode="before")
    @classmethod
    def _constant(cls, value: Any) -> Any:
        """A plain number holds from the first epoch on."""
        return [(0.0, value)] if isinstance(value, int | float) else value

    @field_validator("weight_decay")
    @classmethod
    def _in_order(cls, value: list[tuple[float, float]]) -> list[tuple[float, float]]:
        epochs = [epoch for epoch, _ in value]
        if not value or epochs[0] != 0 or epochs != sorted(set(epochs)) or any(decay < 0 for _, decay in value):
            raise ValueError(
                "[epoch, value] pairs begin with epoch 0, rise, and no value is below 0: [[0, 0.1], [2, 0.05]]"
            )
        return value


class MixSettings(Table):
    weights: dict[str, float] = Field(
        default_factory=dict,
        description='How often an epoch takes a record, by prompt type or family: {"qpt" = 2, "cloze" = 0.5}; the rest once.',
    )
    raw: float = Field(
        default=0.0, ge=0, lt=1, description="Share of an epoch's tokens that are raw text (`trainer pack --raw`)."
    )
    curriculum: list[dict[str, float]] = Field(
        default_factory=list,
        description='What is different in epoch 1, 2, ...; the last entry stays: [{"raw" = 0.5}, {"raw" = 0.1, "cloze" = 1}].',
    )


class OrchestrateSettings(Table):
    """`trainer run --orchestrate`. 0 and "" leave a thing out."""

    rounds: int = Field(default=2, ge=1, description="Rounds of train, answer, judge.")
    judge_every: int = Field(default=0, ge=0, description="Steps in a round; 0: as many as make `rounds` equal ones.")
    judge_device: str = Field(
        default="",
        pattern=r"^(|cpu|cuda:\d+)$",
        description='Where the judge runs beside the training: "cpu", or another GPU ("cuda:1"); empty: in turn with it.',
    )
    give_up_after: int = Field(
        default=0, ge=0, description="Judgings in a row that fail before training stops; 0: it never does for that."
    )
    flat_rounds: int = Field(
        default=0, ge=0, description="Rounds in a row without a higher pass rate after which training stops; 0: never."
    )


class JudgeSettings(Table):
    backend: Literal["rules", "vllm", "openai"] = Field(
        default="rules", description="Who grades; rules: normalised fact containment, no LLM."
    )
    model: str = Field(default="Qwen/Qwen3-4B", description="vllm, openai: the grader's model.")
    revision: str = Field(default="", description="vllm: revision of the model; empty: the hub's main.")
    base_url: str = Field(default="", description="openai: URL of the server, ending in /v1.")
    api_key: SecretStr = Field(
        default=SecretStr(""), description="openai: the key. Better set as FACTORY_JUDGE__API_KEY."
    )
    concurrency: int = Field(default=32, ge=1, le=4096, description="Requests in flight.")
    max_tokens: int = Field(default=4096, ge=16, description="Room for the grader's thinking and its verdict.")
    context: int = Field(
        default=8192, ge=256, description="Longest prompt plus answer, in tokens; openai: what that server has."
    )
    start_timeout: float = Field(default=900.0, gt=0, description="vllm: seconds the server may take to load.")
    args: list[str] = Field(default_factory=list, description="vllm: more arguments for its server, as a list.")
    answers: int = Field(default=200, ge=1, description="Questions a split contributes, at most.")
    canaries: int = Field(
        default=24,
        ge=8,
        le=1000,
        description="Answers of known worth that every run judges too, of each kind, at most.",
    )
