"""Draw the pictures of docs/training.md from the packs of a workspace: what is trained on, in which order, at which rate.

    python scripts/training_pictures.py WORKSPACE [--into docs/pictures] [--context 1024]

Guarantees: every picture is made by the code that trains (packing, layout, masks, schedules), from real records; the same
workspace gives the same pictures. Cost: about 5 s; imports torch for the mask alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context  # noqa: TID253 - a script, not a command
from matplotlib.colors import to_rgb  # noqa: TID253 - a script, not a command
from matplotlib.figure import Figure  # noqa: TID253 - a script, not a command
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from foundation.tables import TrainSettings  # noqa: E402
from foundation.workspace import Workspace  # noqa: E402
from trainer.bestfit import pack_lengths  # noqa: E402
from trainer.layout import make_batch  # noqa: E402
from trainer.pack import PackedData  # noqa: E402
from trainer.paths import TrainPaths  # noqa: E402
from trainer.plot import STYLE  # noqa: E402
from trainer.schedules import learning_rate, weight_decay  # noqa: E402
from trainer.tokenizer import load_tokenizer  # noqa: E402

# Of Okabe and Ito, for readers with any colour vision.
HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
PADDING = "#EDEDED"
CONTEXTS = (256, 512, 1024, 2048, 4096, 8192)
SHOWN = 12  # contexts in the picture of packing


class Source:
    """The records of a workspace's training split, packed at one context."""

    def __init__(self, folder: Path, context: int) -> None:
        workspace = Workspace.find(folder)
        paths = TrainPaths.of(workspace)
        self.data = PackedData.open(paths.pack("train"))
        self.tokenizer = load_tokenizer(paths.tokenizer)
        self.context = context
        self.lengths = np.diff(self.data.records).astype(np.int32)
        self.order, self.packs = pack_lengths(self.lengths, context)
        turn = np.random.default_rng(1).permutation(len(self.packs) - 1)
        self.contexts = [self.order[self.packs[one] : self.packs[one + 1]] for one in turn]

    def records(self, context: NDArray[np.int32]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        return [self.data.record(int(number)) for number in context]


def paler(colour: str, by: float) -> tuple[float, float, float]:
    """That colour, mixed with white."""
    red, green, blue = to_rgb(colour)
    return tuple(1 - (1 - one) * (1 - by) for one in (red, green, blue))  # type: ignore[return-value]


def packing(source: Source) -> Figure:
    """Contexts as rows; every record in a colour, what of it is trained on dark."""
    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    image = np.ones((SHOWN, source.context, 3)) * to_rgb(PADDING)
    for row, context in enumerate(source.contexts[:SHOWN]):
        at = 0
        for place, (ids, mask) in enumerate(source.records(context)):
            hue = HUES[(place + row) % len(HUES)]
            colours = np.where(np.asarray(mask, dtype=bool)[:, None], to_rgb(hue), paler(hue, 0.72))
            image[row, at : at + len(ids)] = colours
            image[row, at] = 1.0  # a hairline between records
            at += len(ids)
    axes.imshow(image, aspect="auto", interpolation="nearest", extent=(0, source.context, SHOWN - 0.5, -0.5))
    for row in range(1, SHOWN):
        axes.axhline(row - 0.5, color="white", linewidth=3)
    axes.set_yticks([])
    axes.set_xlabel("token of the context")
    full = source.lengths.sum(dtype=np.int64) / (len(source.contexts) * source.context)
    axes.set_title(
        f"{SHOWN} of {len(source.contexts):,} contexts of {source.context:,} tokens, all together {full:.2%} full. "
        "A colour is a record; dark is trained on, pale is read only"
    )
    return figure


def mask(source: Source) -> Figure:
    """Which token sees which in one context, as the layout says, and what a plain causal mask would let through."""
    context = next(one for one in source.contexts if 5 <= len(one) <= 8)
    records = source.records(context)
    layout = make_batch([records], source.context, 0).layout
    documents = layout.document_ids_N(source.context).numpy()
    causal = np.tril(np.ones((source.context, source.context), dtype=bool))
    seen = causal & (documents[:, None] == documents[None, :])
    image = np.ones((source.context, source.context, 3))
    image[causal] = paler("#999999", 0.78)
    ends = np.cumsum([len(ids) for ids, _ in records])
    which = np.searchsorted(ends, np.arange(source.context), side="right")
    for record in range(len(records)):
        image[seen & (which[:, None] == record)] = to_rgb(HUES[record % len(HUES)])
    image[seen & (which[:, None] >= len(records))] = to_rgb("#BBBBBB")
    figure = Figure(figsize=(6.4, 6.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(image, interpolation="nearest")
    axes.set_xlabel("token that is seen")
    axes.set_ylabel("token that looks")
    squares = sum(len(ids) ** 2 for ids, _ in records)
    axes.set_title(
        f"Attention in one context of {source.context:,} tokens, {len(records)} records.\n"
        f"Coloured: within a record, {squares / source.context**2:.0%} of the pairs. Pale grey: other records, never seen"
    )
    return figure


def schedules() -> Figure:
    """Learning rate and weight decay of the default recipe over four epochs."""
    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    rates, decays = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    steps, epochs = 1_000, 4.0
    settings = {kind: TrainSettings(learning_rate=1.0, epochs=epochs, schedule=kind) for kind in ("cosine", "wsd")}
    at = np.arange(steps) / steps * epochs
    for (kind, chosen), hue in zip(settings.items(), HUES, strict=False):
        rates.plot(at, [learning_rate(step, steps, chosen) for step in range(steps)], color=hue, label=kind)
    rates.set_title("Learning rate, of its peak")
    rates.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.08, 0.05))
    rates.set_ylim(0, 1.08)
    chosen = settings["cosine"]
    decays.step(at, [weight_decay(epoch, chosen) for epoch in at], where="post", color=HUES[2])
    decays.set_title("Weight decay of the matrices")
    decays.set_ylim(0, 0.12)
    decays.set_xlabel("epoch")
    decays.set_xticks(range(int(epochs) + 1))
    for axes in (rates, decays):
        axes.grid(axis="y")
    return figure


def next_fit(lengths: NDArray[np.int32], context: int) -> int:
    """Contexts that are filled in the records' order, a new one begun where a record does not fit."""
    contexts, room = 0, 0
    for length in lengths.tolist():
        if length > room:
            contexts, room = contexts + 1, context
        room -= length
    return contexts


def fill(source: Source) -> Figure:
    """How full contexts are: by best fit, by next fit, and with one record each."""
    figure = Figure(figsize=(10, 3.4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    lengths = np.random.default_rng(1).permutation(source.lengths)
    ways: dict[str, list[float]] = {"best fit": [], "next fit": [], "one record each": []}
    for context in CONTEXTS:
        fitting = lengths[lengths <= context]
        held = int(fitting.sum(dtype=np.int64))
        counts = (len(pack_lengths(fitting, context)[1]) - 1, next_fit(fitting, context), len(fitting))
        for shares, count in zip(ways.values(), counts, strict=True):
            shares.append(held / (count * context))
    for place, (way, shares) in enumerate(ways.items()):
        at = np.arange(len(CONTEXTS)) + (place - 1) * 0.27
        axes.bar(at, shares, width=0.25, color=(HUES[0], HUES[4], "#BBBBBB")[place], label=way)
        for x, share in zip(at, shares, strict=True):
            axes.text(x, share + 0.01, f"{share:.1%}", ha="center", fontsize=7)
    axes.set_xticks(range(len(CONTEXTS)), [f"{one:,}" for one in CONTEXTS])
    axes.set_xlabel("tokens in a context")
    axes.set_ylim(0, 1.12)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title(f"Share of positions that hold a record's token: {len(lengths):,} records of the example corpus")
    axes.legend(frameon=False, ncols=3, loc="upper right", bbox_to_anchor=(1, 1.16))
    return figure


def loss_mask(source: Source) -> Figure:
    """The text of one short record, token by token: trained on or read only."""
    kind = source.data.meta.types.index("qpt/teacher")
    numbers = np.flatnonzero((source.data.types == kind) & (source.lengths > 120) & (source.lengths < 175))
    ids, trained = source.data.record(int(numbers[0]))
    per_row, gap = 136, 0.75  # characters
    figure = Figure(figsize=(10, 2.9), dpi=120)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.9))
    axes.axis("off")
    column, row = 0.0, 0
    for number, on in zip(ids.tolist(), trained.tolist(), strict=True):
        text = source.tokenizer.decode([number], skip_special_tokens=False)
        shown = text.replace("\n", "\u23ce")
        if column + len(shown) > per_row:
            column, row = 0.0, row + 1
        colour = to_rgb(HUES[0]) if on else paler("#999999", 0.62)
        axes.text(
            column, -row, shown, family="monospace", fontsize=8.6, va="center", color="white" if on else "#222222",
            bbox={"facecolor": colour, "edgecolor": "white", "linewidth": 0.6, "pad": 2.0},
        )  # fmt: skip
        column += len(shown) + gap
        if text.endswith("\n"):
            column, row = 0.0, row + 1
    axes.set_xlim(-0.5, per_row + 1)
    axes.set_ylim(-row - 0.8, 0.8)
    on = int(np.count_nonzero(trained))
    figure.text(
        0.012,
        0.94,
        f"One record of {len(ids)} tokens: {on} are trained on (blue), the end of the turn too",
        fontsize=9.5,
    )
    return figure


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("workspace", type=Path)
    options.add_argument("--into", type=Path, default=REPOSITORY / "docs" / "pictures")
    options.add_argument("--context", type=int, default=1024)
    chosen = options.parse_args()
    source = Source(chosen.workspace, chosen.context)
    chosen.into.mkdir(parents=True, exist_ok=True)
    with rc_context(STYLE):
        for name, figure in {
            "packing": packing(source),
            "attention-mask": mask(source),
            "schedules": schedules(),
            "fill": fill(source),
            "loss-mask": loss_mask(source),
        }.items():
            figure.savefig(chosen.into / f"{name}.png", metadata={"Software": None})
            print(chosen.into / f"{name}.png")


if __name__ == "__main__":
    main()
