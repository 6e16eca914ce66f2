"""The archive of exports: what each model is, where it came from, how well it did, and a label that says so honestly.

One folder a model in the workspace's `models/`, with `archive.json` in it; the weights lie there too, or where `--out` put them.
Guarantees: a label is one of the forms that `LABELS` lists, or none yet; an entry is read whole or refused by name, so one
damaged file hides no other. Cost: one small file a model; no torch is imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from foundation.console import say
from foundation.errors import Failure, UsageError
from foundation.records import Contract
from foundation.store import LocalStore
from trainer.export.layouts import LayoutName
from trainer.metrics import RoundPoint
from trainer.shape import ModelConfig

if TYPE_CHECKING:
    from foundation.workspace import Workspace

MODELS, ENTRY, CARD = "models", "archive.json", "README.md"
LABELS = ("good", "collapsed", "not-good: REASON")
UNLABELLED = "unlabelled"
LABEL_LINE = re.compile(r"^\*\*Label:\*\*.*$", re.MULTILINE)


class Origin(Contract):
    """Records of one source under one licence. `license` is empty where none is stated."""

    source: str
    license: str
    records: int
    articles: int


class Data(Contract):
    """What the model was trained on, counted from the shards its manifest names.

    `manifest` is that manifest's fingerprint, empty where the checkpoint has none. `records` are those of the train
    split, by prompt type; `share` of them were taken. `missing` shards are no longer there, and are not counted.
    """

    manifest: str = ""
    shards: int = 0
    missing: int = 0
    records: dict[str, int] = Field(default_factory=dict)
    share: float = 1.0
    origins: tuple[Origin, ...] = ()
    teachers: dict[str, int] = Field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.records.values())


class Losses(Contract):
    """Nats per supervised token, as last measured up to the step. `train` is the mean of the last `train_steps` steps."""

    train: float | None = None
    train_steps: int = 0
    phrasing: float | None = None
    unseen: float | None = None


class Entry(Contract):
    """One exported model. `parameters` and `tokens` are the trained ones; `bytes` the size of its files.

    `folder` is where the weights are: `.`, beside the entry, or the full path that `--out` named. `rounds` are the judgings at
    this very step. `settings` are what made the run that run.
    """

    v: Literal[1] = 1
    name: str
    label: str = ""
    folder: str = "."
    date: str
    run: str
    step: int
    steps: int
    tokens: int
    preset: str
    git: str
    layout: LayoutName
    dtype: str
    parameters: int
    bytes: int
    tokenizer: str
    losses: Losses
    rounds: tuple[RoundPoint, ...] = ()
    data: Data
    config: ModelConfig
    settings: dict[str, Any] = Field(default_factory=dict)

    def judging(self, split: str = "phrasing") -> RoundPoint | None:
        """The last judging of that split at this step, whether it came to a figure, and whether that is to be believed."""
        found = [one for one in self.rounds if one.split == split]
        return found[-1] if found else None

    def judged(self, split: str = "phrasing") -> RoundPoint | None:
        """The last judging of that split at this step, if its pass rate is to be believed: nothing else is one to show."""
        found = self.judging(split)
        return found if found is not None and found.believed else None


def checked_label(label: str) -> str:
    """The label, tidied. Raises `UsageError` that lists the forms there are."""
    kind, colon, reason = (part.strip() for part in " ".join(label.split()).partition(":"))
    if not colon and kind in ("good", "collapsed"):
        return kind
    if kind == "not-good" and reason:
        return f"not-good: {reason}"
    raise UsageError(
        f"not a label: {label!r}",
        where="the label",
        mend="one of: good, collapsed, 'not-good: REASON' (in quotes: what is wrong with it, in your words)",
    )


def models_folder(workspace: Workspace) -> Path:
    return workspace.root / MODELS


def entry_folder(workspace: Workspace, name: str) -> Path:
    """Where a model's entry lives. Raises `UsageError` for a name that is no plain name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", name):
        raise UsageError(f"not a model's name: {name!r}", where="--name", mend="use letters, digits, '.', '_' and '-'")
    return models_folder(workspace) / name


def entries(workspace: Workspace) -> Iterator[Entry]:
    """Every model of the archive, by name. Says which entries cannot be read."""
    for path in sorted(models_folder(workspace).glob(f"*/{ENTRY}")):
        try:
            yield _read(path)
        except Failure as error:
            say(f"passed over {path.parent.name}: {error.what}")


def entry(workspace: Workspace, name: str) -> Entry:
    """The model of that name. Raises `UsageError` if there is none, `Failure` if its entry is damaged."""
    path = entry_folder(workspace, name) / ENTRY
    if not path.is_file():
        known = ", ".join(sorted(one.parent.name for one in models_folder(workspace).glob(f"*/{ENTRY}")))
        raise UsageError(
            f"the archive has no model {name}",
            where=str(path.parent),
            mend=f"it has: {known}" if known else "it has none yet: `trainer export` puts one there",
        )
    return _read(path)


def weights_folder(workspace: Workspace, one: Entry) -> Path:
    """Where its weights are, or were."""
    return (entry_folder(workspace, one.name) / one.folder).resolve()


def write_entry(folder: Path, one: Entry) -> None:
    LocalStore(folder).put(ENTRY, one.model_dump_json(indent=1).encode() + b"\n")


def relabel(workspace: Workspace, name: str, label: str) -> Entry:
    """Give a model a label, in the archive and on its card. Raises `UsageError` for a label of no known form."""
    changed = entry(workspace, name).model_copy(update={"label": checked_label(label)})
    write_entry(entry_folder(workspace, name), changed)
    path = weights_folder(workspace, changed) / CARD
    try:
        card = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        say(f"there is no card to put it on: {path}")
        return changed
    after, found = LABEL_LINE.subn(lambda _: label_line(changed.label), card, count=1)
    if not found:
        say(f"the card has no line `**Label:** ...`, so it is as it was: {path}")
    elif after != card:
        LocalStore(path.parent).put(CARD, after.encode())
    return changed


def label_line(label: str) -> str:
    """The line of the card that says how good the model is."""
    return f"**Label:** {label or UNLABELLED}"


def _read(path: Path) -> Entry:
    try:
        return Entry.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise Failure(f"{ENTRY} cannot be read", where=str(path), mend="export the model again") from error
