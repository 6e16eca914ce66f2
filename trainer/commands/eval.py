"""`trainer eval`. Cost: torch is imported when it runs (about 2 s), never for `--help`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from foundation.console import emit_json, plain, say, table
from foundation.splits import split_name
from trainer.commands.options import AS_JSON, CHECKPOINT, DEVICE, RUN, Asked, Device, splits_of

if TYPE_CHECKING:
    from foundation.workspace import Workspace
    from trainer.evaluate import Evaluation

CONTEXTS = 128
SHOWN = 240  # characters of a memorised span that are shown
SHARES = {
    "exact": "exact match",
    "all_facts": "all facts there",
    "ended": "ended by itself",
    "loops": "loops",
}
MEMORISED = {"all_memorised": "all one training run", "parroted": "  and no fact asked for"}
DASH = "–"
LEGEND = """
In brackets: 95 % intervals, each answer taken for one of its own. Whether an answer is right, `judge run` says; these are words
compared with words. exact match: but for case, articles and punctuation. facts: dates, figures and names of the reference that
the question does not give away. loops: the same words over and over, as the judge has it: two to twelve of them four times in a
row, one word five times, or the same five words five times anywhere. all one training run: see below."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("eval")(eval_command)


def eval_command(
    split: list[Asked] = typer.Option(
        [Asked.all],
        metavar="SPLIT",
        help="What it is measured on: train (trained phrasings), phrasing (held-out phrasings), unseen (unseen articles) "
        "or all; may be given again.",
    ),
    limit: int | None = typer.Option(
        None, min=1, help="Questions a split, at most; default: judge.answers of factory.toml."
    ),
    contexts: int = typer.Option(
        CONTEXTS, min=1, help="Contexts of a split that its loss is taken over, at most, drawn by the run's seed."
    ),
    max_tokens: int = typer.Option(256, min=1, help="Tokens in an answer, at most."),
    out: Path | None = typer.Option(
        None,
        metavar="FILE",
        help="File for every answer with its figures, as JSON lines; the summary goes beside it.",
    ),
    run: str = RUN,
    checkpoint: Path | None = CHECKPOINT,
    device: Device = DEVICE,
    as_json: bool = AS_JSON,
) -> None:
    """Measure a trained model without a judge: losses, matches, facts, repetition, lengths, memorised spans.

    The summary is kept in the run's folder, as eval-step-NNNNNN.json.
    """
    from foundation.workspace import Workspace
    from trainer.commands.answer import check_out, gpu_held

    if out is not None:
        check_out(out)
    workspace = Workspace.find()
    splits = [one for one in ("train", "phrasing", "unseen") if one in splits_of(split)]
    try:
        from trainer.evaluate import evaluate
        from trainer.setup import choose_device

        with gpu_held(workspace, device, "trainer eval"):
            found = evaluate(
                workspace,
                run,
                choose_device(device),
                splits=splits,
                limit=limit or workspace.settings.judge.answers,
                max_tokens=max_tokens,
                contexts=contexts,
                named=checkpoint,
            )
    except KeyboardInterrupt:
        say("stopped before the end: nothing of this is kept")
        raise
    summary = found.summary | {"files": _write(workspace, found, out)}
    if as_json:
        emit_json(summary)
        return
    _show(summary)


def _write(workspace: Workspace, found: Evaluation, out: Path | None) -> list[str]:
    """Put the files in place, each whole, the run's own summary first: minutes went into it. Returns where they are."""
    import json

    from foundation.store import LocalStore
    from trainer.paths import run_folder

    folder = run_folder(workspace, found.summary["run"])
    if not folder.is_dir():
        say(f"there is no run {found.summary['run']} in this workspace: the summary is not kept in its folder")
    own = [folder / f"eval-step-{found.summary['step']:06d}.json"] if folder.is_dir() else []
    data = json.dumps(found.summary, ensure_ascii=False, indent=1).encode() + b"\n"
    for file in own:
        LocalStore(file.parent).put(file.name, data)
    if out is None:
        return [str(file) for file in own]
    rows = b"".join(row.model_dump_json().encode() + b"\n" for row in found.rows)
    beside = out.with_name(f"{out.name}.summary.json")
    try:
        LocalStore(out.parent).put(out.name, rows)
        LocalStore(out.parent).put(beside.name, data)
    except OSError:
        for file in own:
            say(f"the summary is kept all the same: {file}")
        raise
    return [str(file) for file in (out, beside, *own)]


def _show(summary: dict[str, Any]) -> None:
    splits: dict[str, Any] = summary["splits"]
    for name, told in splits.items():
        if not told["answers"]:
            say(f"the split {name} has no question to ask: {told['questions']}")
    steps = f"{summary['steps']:,} step{'' if summary['steps'] == 1 else 's'}"
    print(f"{summary['checkpoint']} of {steps}, {summary['parameters']:,} parameters\n")
    headings = ["", *(split_name(name) for name in splits)]
    if summary["gap"]:
        headings.append("trained minus held-out")
    table(headings, _rows(splits, summary["gap"]))
    print(LEGEND)
    print("\nBy prompt family")
    families = sorted({family for told in splits.values() for family in told["by_family"]})
    pairs = [(family, name) for family in families for name in splits if family in splits[name]["by_family"]]
    table(
        ("family", "", "answers", *SHARES.values(), "facts there", "repeated 4-grams", "length"),
        ((family, split_name(name), *_family(splits[name]["by_family"][family])) for family, name in pairs),
    )
    least = summary["memorised"]["least"]
    print(
        f"\nMemorised: each answer's longest run of training tokens, word for word ({least} or more; a shorter one is none,"
        " and a shorter answer is left out)."
        "\nOf qpt on trained phrasings this is wanted: the passage is what was asked for. Anywhere else, have a look."
    )
    table(
        ("family", "", "answers", "median, tokens", "90 % within", "share of the answer", *MEMORISED.values()),
        ((family, split_name(name), *_spans(splits[name]["by_family"][family])) for family, name in pairs),
    )
    longest, elsewhere = summary["memorised"]["longest"], summary["memorised"]["longest_elsewhere"]
    _longest("The longest", longest)
    _longest("The longest others, where none is wanted", [row for row in elsewhere if row not in longest])
    print()
    table(("kept in", ""), (("", file) for file in summary["files"]))


def _rows(splits: dict[str, Any], gap: dict[str, Any] | None) -> Iterator[list[str]]:
    """The figures that a split as a whole has, a line each."""
    told = list(splits.values())

    def row(name: str, cells: Sequence[str], difference: str) -> list[str]:
        return [name, *cells, *([difference] if gap else [])]

    gaps: dict[str, Any] = gap or {}
    for name, label in (("loss", "loss, nats a token"), ("perplexity", "perplexity")):
        cells = [f"{one['loss'][name]:.3f}" if one["loss"] else DASH for one in told]
        yield row(label, cells, _change(gaps.get(name), "{:+.3f}"))
    measured = [
        f"{one['loss']['contexts']:,} of {one['loss']['of_contexts']:,}" if one["loss"] else DASH for one in told
    ]
    yield row("  over contexts", measured, "")
    yield row("answers", [f"{one['answers']:,}" for one in told], "")
    for name, label in {**SHARES, **MEMORISED}.items():
        yield row(label, [_share(one[name], one["answers"]) for one in told], _change(gaps.get(name), percent=True))
    for name, label in (("facts", "facts there, mean"), ("repetition", "repeated 4-grams, mean")):
        cells = [_mean(one[name], percent=True, answers=one["answers"]) for one in told]
        yield row(label, cells, _change(gaps.get(name), percent=True))
    yield row("tokens, mean", [_mean(one["tokens"]) for one in told], _change(gaps.get("tokens"), "{:+.1f}"))
    cells = [_mean(one["reference_tokens"]) for one in told]
    yield row("  of the reference", cells, _change(gaps.get("reference_tokens"), "{:+.1f}"))
    cells = [_number(one["length"], "{:.2f}") for one in told]
    yield row("  answer by reference, median", cells, _change(gaps.get("length"), "{:+.2f}"))


def _family(told: dict[str, Any]) -> list[str]:
    shares = [_share(told[name], told["answers"]) for name in SHARES]
    means = [_mean(told[name], percent=True) for name in ("facts", "repetition")]
    return [f"{told['answers']:,}", *shares, *means, _number(told["length"], "{:.2f}")]


def _spans(told: dict[str, Any]) -> list[str]:
    spans = told["memorised"]
    return [
        f"{told['answers']:,}",
        _number(spans and spans["median"], "{:g}"),
        _number(spans and spans["p90"], "{:,}"),
        _mean(told["covered"], percent=True, answers=told["answers"]),
        *(_share(told[name], told["answers"]) for name in MEMORISED),
    ]


def _longest(title: str, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    print(f"\n{title}")
    for row in rows:
        where = f"{row['prompt_type']}, {split_name(row['split'])}"
        text = " ".join(row["text"].split())
        text = text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
        print(f"  {row['span']} of {row['of']} tokens; {where}\n    asked: {plain(row['question'])}\n    {plain(text)}")


def _share(share: dict[str, Any] | None, answers: int) -> str:
    """`41.2 % (34.0–48.8)`, with its number where that is not all of the answers."""
    if share is None:
        return DASH
    of = f" of {share['of']:,}" if share["of"] != answers else ""
    return f"{100 * share['value']:.1f} % ({100 * share['low']:.1f}–{100 * share['high']:.1f}){of}"


def _mean(mean: dict[str, Any] | None, *, percent: bool = False, answers: int = 0) -> str:
    """The mean, with its number where that is not all of the `answers`."""
    if mean is None:
        return DASH
    of = f" of {mean['of']:,}" if answers and mean["of"] != answers else ""
    return (f"{100 * mean['mean']:.1f} %" if percent else f"{mean['mean']:.1f}") + of


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else form.format(value)


def _change(change: dict[str, Any] | None, form: str = "", *, percent: bool = False) -> str:
    if change is None:
        return DASH
    if not percent:
        return form.format(change["value"])
    ends = f" ({100 * change['low']:+.1f} to {100 * change['high']:+.1f})" if "low" in change else ""
    return f"{100 * change['value']:+.1f} points{ends}"
