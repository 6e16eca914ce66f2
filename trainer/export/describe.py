"""What there is to say of a checkpoint that is exported, gathered from its run, its manifest and the committed shards.

Guarantees: what is not known is left empty, never guessed; a judging counts only if it was at this very step.
Cost: one read of the manifest's shards, about 10 µs a record. No torch is imported.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from foundation.console import progress, say
from foundation.errors import Failure
from foundation.reader import Manifest, read
from trainer.export.archive import Data, Losses, Origin
from trainer.metrics import Metric, read_metrics, read_run_info

if TYPE_CHECKING:
    from foundation.workspace import Workspace

TRAIN_STEPS = 20  # a step's own loss is noisy: the mean of so many is told


def losses_at(metrics: list[Metric], step: int) -> Losses:
    """The losses of a run at `step`: a held-out one as last measured up to there."""
    until = [one for one in metrics if one.step <= step]
    train = [one.loss for one in until if one.loss is not None][-TRAIN_STEPS:]
    phrasing = [one.phrasing for one in until if one.phrasing is not None]
    unseen = [one.unseen for one in until if one.unseen is not None]
    return Losses(
        train=round(sum(train) / len(train), 6) if train else None,
        train_steps=len(train),
        phrasing=phrasing[-1] if phrasing else None,
        unseen=unseen[-1] if unseen else None,
    )


def losses_of(run: Path, step: int) -> Losses:
    """`losses_at` of the run in that folder."""
    return losses_at(read_metrics(run), step)


def preset_and_git(run: Path, settings: dict[str, object]) -> tuple[str, str]:
    """Name of the preset and revision of the code; the first from the checkpoint where the run does not say."""
    with contextlib.suppress(Failure):
        info = read_run_info(run)
        return info.preset, info.git
    return str(settings.get("train.preset", "")), ""


def data_of(workspace: Workspace, manifest: Path, share: float) -> Data:
    """The data a checkpoint was trained on, by its `manifest.json`; empty but for the share if it has none."""
    try:
        pinned = Manifest.model_validate_json(manifest.read_bytes())
    except FileNotFoundError:
        return Data(share=share)
    except ValidationError:
        say(f"{manifest} cannot be read: the card says nothing of the data")
        return Data(share=share)
    there = [one.name for one in pinned.shards if workspace.store.exists(one.name)]
    kinds: Counter[str] = Counter()
    teachers: Counter[str] = Counter()
    records: Counter[tuple[str, str]] = Counter()
    articles: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    with progress("records described") as bar:
        for record in read(workspace.store, pinned, names=there):
            bar.advance()
            if record.split != "train":
                continue
            kinds[record.prompt_type] += 1
            teachers[record.teacher] += 1
            records[record.source, record.license] += 1
            articles[record.source, record.license].add(record.article_id)
    return Data(
        manifest=pinned.fingerprint,
        shards=len(pinned.shards),
        missing=len(pinned.shards) - len(there),
        records=dict(sorted(kinds.items())),
        share=share,
        origins=tuple(
            Origin(source=source, license=license_, records=count, articles=len(articles[source, license_]))
            for (source, license_), count in sorted(records.items())
        ),
        teachers=dict(sorted(teachers.items())),
    )
