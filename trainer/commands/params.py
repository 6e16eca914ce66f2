"""`trainer params`. Cost: no torch is imported."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from foundation.console import emit_json, say, show, table
from trainer.commands.options import AS_JSON

PARTS = {
    "weights": "weights, 32 bits",
    "gradients": "gradients, 32 bits",
    "moments": "the optimizer's moments",
    "copies": "weights in 16 bits",
    "activations": "activations",
    "head": "LM head: logits, gradients",
    "working": "in backward beside it",
    "allowance": "CUDA, and lost between blocks",
}
VARIANTS = (("adamw", False), ("adamw", True), ("muon", False), ("muon", True))  # optimizer, recompute


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("params")(params_command)


def params_command(
    name: str = typer.Argument("", metavar="[PRESET]", help="One preset; default: all of them."),
    batch: int = typer.Option(1, "--batch", min=1, help="Contexts in memory at once."),
    context: int = typer.Option(0, "--context", min=0, help="Tokens in a context; default: the preset's."),
    vocabulary: int = typer.Option(0, "--vocabulary", min=0, help="Tokens in the tokenizer; default: the preset's."),
    supervised: str = typer.Option("70%", "--supervised", help="Share of the tokens that are trained on."),
    leave: str = typer.Option("1G", "--leave-vram", help="Memory of the card that is to stay free."),
    compiled: bool = typer.Option(True, "--compile/--no-compile", help="With torch.compile, as runs on a GPU are."),
    as_json: bool = AS_JSON,
) -> None:
    """Count a preset's parameters, the memory a training step takes, and what fits on which card.

    Estimates, for a GPU with bfloat16 and FlashAttention. A GB is 2^30 bytes; with --json all sizes are bytes.
    """
    from foundation.quantities import share, size_bytes
    from trainer.presets import PRESETS

    step = {"supervised": share(supervised), "compiled": compiled}
    rows = [_figures(one, context, vocabulary, batch, size_bytes(leave), step) for one in ([name] if name else PRESETS)]
    if as_json:
        emit_json(rows[0] if name else rows)
    elif name:
        _page(rows[0])
    else:
        _overview(rows)


def _figures(name: str, context: int, vocabulary: int, batch: int, leave: int, step: dict[str, Any]) -> dict[str, Any]:
    """All numbers about one preset. Raises `UsageError` where it cannot have that context or vocabulary."""
    from trainer.memory import CARDS, GB, estimate, largest_batch
    from trainer.presets import model_config, preset

    found = preset(name)
    tokens = context or found.config.context
    config = model_config(name, vocabulary or found.config.vocabulary, tokens)
    memory, fits = [], []
    for optimizer, recompute in VARIANTS:
        variant: dict[str, Any] = {"optimizer": optimizer, "recompute": recompute}
        held = estimate(config, batch, context=tokens, **variant, **step)
        memory.append({**variant, **asdict(held), "tensors": held.tensors, "total": held.total})
        for card, usable in CARDS.items():
            room = int(usable * GB) - leave
            most = largest_batch(config, room, context=tokens, **variant, **step)
            fits.append({**variant, "card": card * GB, "usable": int(usable * GB), "physical_batch": most})
    return {
        "preset": name,
        "parameters": config.parameters,
        "why": found.why,
        "batch": found.batch,
        "learning_rate": found.learning_rate,
        "shape": config.model_dump(),
        "physical_batch": batch,
        "context": tokens,
        **step,
        "leave_vram": leave,
        "memory": memory,
        "fits": fits,
    }


def _overview(rows: list[dict[str, Any]]) -> None:
    from trainer.memory import CARDS, GB

    cards = [f"{card} GB" for card in CARDS]
    table(
        ("preset", "parameters", "layers", "width", "vocabulary", "context", "GB", *cards),
        [
            (
                row["preset"],
                row["parameters"],
                row["shape"]["layers"],
                row["shape"]["width"],
                row["shape"]["vocabulary"],
                row["context"],
                f"{row['memory'][0]['total'] / GB:.1f}",
                *_most(row, *VARIANTS[0]),
            )
            for row in rows
        ],
    )
    at_once, left = rows[0]["physical_batch"], rows[0]["leave_vram"] / GB
    say(
        f"a step: its memory with {at_once} of its contexts at once, AdamW{', compiled' if rows[0]['compiled'] else ''}"
    )
    say(f"under the cards: the most contexts at once that leave {left:g} GB free; `trainer params PRESET` says more")
    if any(row["preset"] == "demo" for row in rows):
        say("demo takes the size of the tokenizer as its vocabulary")


def _page(row: dict[str, Any]) -> None:
    from trainer.memory import CARDS, GB

    shape = row["shape"]
    show(f"{row['preset']}: {row['parameters']:,} parameters", f"  {row['why']}", *_described(shape))
    show(f"  recipe: {row['batch']} contexts a step, peak learning rate {row['learning_rate']:g}", "")
    headings = [f"{optimizer}{', recompute' if recompute else ''}" for optimizer, recompute in VARIANTS]
    of_step = (
        f"GB of a step with {row['physical_batch']} of its contexts of {row['context']:,} tokens at once, "
        f"{row['supervised']:.0%} of them trained on"
    )
    parts = [
        (said, *(f"{one[key] / GB:.2f}" for one in row["memory"]))
        for key, said in PARTS.items()
        if any(one[key] for one in row["memory"])
    ]
    parts.append(("together", *(f"{one['total'] / GB:.2f}" for one in row["memory"])))
    show(of_step)
    table(("", *headings), parts)
    show("", f"contexts at once that fit a card, {row['leave_vram'] / GB:g} GB left free")
    most = [_most(row, *variant) for variant in VARIANTS]
    table(
        ("", *headings),
        [(f"{card} GB", *(one[place] for one in most)) for place, card in enumerate(CARDS)],
    )
    say(f"estimated{', compiled' if row['compiled'] else ''}; `trainer run --batch auto` measures")


def _described(shape: dict[str, Any]) -> tuple[str, str]:
    """A shape in two lines."""
    up = "SwiGLU" if shape["activation"] == "swiglu" else "GELU"
    inside = (
        f"{shape['layers']} layers of width {shape['width']:,}, {shape['heads']} heads over {shape['kv_heads']} "
        f"of keys and values, {up} {shape['ffn']:,}"
    )
    kinds = [
        f"vocabulary {shape['vocabulary']:,} ({'tied' if shape['tied'] else 'untied'})",
        "RMSNorm" if shape["norm"] == "rmsnorm" else "LayerNorm",
        "rotary positions" if shape["positions"] == "rope" else "learned positions",
        *(["biases"] if shape["bias"] else []),
        *(["QK-norm"] if shape["qk_norm"] else []),
    ]
    return f"  {inside}", f"  {', '.join(kinds)}"


def _most(row: dict[str, Any], optimizer: str, recompute: bool) -> list[str]:
    """The largest physical batch on each card, "no" where not even one context fits."""
    return [
        f"{one['physical_batch']:,}" if one["physical_batch"] else "no"
        for one in row["fits"]
        if (one["optimizer"], one["recompute"]) == (optimizer, recompute)
    ]
