"""One export: a checkpoint becomes a folder that others load, with a card, and an entry in the archive.

Guarantees: what is wrong with name, label, place or shape is told before anything is written; model and entry appear in
the archive at once (an export elsewhere first, then its entry); a name that is taken is left as it is.
Cost: that of `hf.write_model`, and of one read of the shards for the card.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import Failure, UsageError
from trainer import checkpoint
from trainer.answer import find_checkpoint, tokenizer_of
from trainer.export.archive import CARD, Entry, checked_label, entry_folder, write_entry
from trainer.export.card import card
from trainer.export.describe import data_of, losses_of, preset_and_git
from trainer.export.hf import Dtype, Source, refuse_taken, whole_folder, write_model
from trainer.export.layouts import layout_of
from trainer.metrics import read_rounds, read_run_info
from trainer.paths import run_folder

if TYPE_CHECKING:
    from foundation.workspace import Workspace
    from trainer.checkpoint import TrainState


@dataclass(frozen=True)
class Wanted:
    """What is asked for. Empty `name`: RUN-STEP; no `out`: beside its entry in the archive; empty `label`: none yet."""

    run: str
    checkpoint: Path | None = None
    name: str = ""
    out: Path | None = None
    dtype: Dtype = "float32"
    label: str = ""


def export(workspace: Workspace, wanted: Wanted) -> tuple[Path, Entry]:
    """Write the model; returns its folder and its entry. Raises `UsageError` or `Failure`; nothing of it is left then."""
    label = checked_label(wanted.label) if wanted.label else ""
    path, state = find_checkpoint(workspace, wanted.run, wanted.checkpoint)
    name = wanted.name or f"{state.run}-{state.step:06d}{'-bf16' if wanted.dtype == 'bfloat16' else ''}"
    home = entry_folder(workspace, name)
    target = home if wanted.out is None else wanted.out.absolute()
    if wanted.out is not None and target == home:
        raise UsageError("that is where the archive keeps it", where=str(target), mend="leave --out out")
    layout_of(state.model)
    source = Source(path, state.model, tokenizer_of(workspace, path, state))
    with workspace.lock("models"):
        for place in (home, target):
            refuse_taken(place)
        described = _describe(workspace, name, path, state).model_copy(
            update={"label": label, "dtype": wanted.dtype, "folder": "." if target == home else str(target)}
        )
        with whole_folder(target) as folder:
            sizes = write_model(folder, source, wanted.dtype)
            entry = described.model_copy(update={"bytes": sum(sizes.values())})
            (folder / CARD).write_text(card(entry), "utf-8")
            if target == home:
                write_entry(folder, entry)
        if target != home:
            write_entry(home, entry)
    return target, entry


def _describe(workspace: Workspace, name: str, path: Path, state: TrainState) -> Entry:
    run = path.resolve().parent.parent
    if not (run / "run.json").is_file():  # a checkpoint that was copied elsewhere
        run = run_folder(workspace, state.run)
    preset, git = preset_and_git(run, dict(state.identity))
    return Entry(
        name=name,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        run=state.run,
        step=state.step,
        steps=state.steps,
        tokens=state.tokens,
        preset=preset,
        git=git,
        layout=layout_of(state.model),
        dtype="float32",
        parameters=state.model.parameters,
        bytes=0,
        tokenizer=state.tokenizer,
        losses=losses_of(run, state.step),
        rounds=tuple(one for one in read_rounds(run) if one.step == state.step),
        data=data_of(workspace, path / checkpoint.MANIFEST, _share(run)),
        config=state.model,
        settings=dict(state.identity),
    )


def _share(run: Path) -> float:
    """The share of the records that the run's packs took, as its recipe says; all of them where it says nothing."""
    with contextlib.suppress(Failure, TypeError, ValueError):
        return float(read_run_info(run).recipe.get("share", 1.0))
    return 1.0
