"""The model card: what a model is, what it was trained on, how well it did, how good it is, and what it cannot do.

Guarantees: every figure is the entry's; what is not known is said to be so; text of the corpus cannot break out of its
table. Cost: none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from foundation.splits import SPLIT_NAMES
from trainer.export.archive import label_line
from trainer.export.layouts import CLASSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trainer.export.archive import Entry
    from trainer.metrics import RoundPoint
    from trainer.shape import ModelConfig

ROWS = 100  # of a table, at most


def card(entry: Entry) -> str:
    """`README.md` of an exported model."""
    parts = [
        "---\nlanguage: en\nlibrary_name: transformers\npipeline_tag: text-generation\n---",
        f"# {entry.name}",
        label_line(entry.label),
        _opening(entry),
        f"## How to use it\n\n{_use(entry)}",
        f"## Shape\n\n{_table(('', ''), _shape(entry))}",
        f"## How well it did\n\n{_figures(entry)}",
        f"## Data\n\n{_data(entry)}",
        f"## Limits\n\n{_limits(entry)}",
        f"## Where it comes from\n\n{_table(('', ''), _origin(entry))}",
    ]
    return "\n\n".join(parts) + "\n"


def _opening(entry: Entry) -> str:
    what = "a small language model" if entry.parameters < 10**9 else "a language model"
    return (
        f"{what.capitalize()} of {entry.parameters:,} parameters, trained from random weights on grounded records: questions, "
        f"answers and passages of a chosen corpus. It was exported at step {entry.step:,} of {entry.steps:,}. "
        "The label is its maker's own word: `good`, `collapsed`, or `not-good` with the reason."
    )


def _use(entry: Entry) -> str:
    tokens = min(256, entry.config.context // 2)
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = (kind.from_pretrained("path/to/this/folder") for kind in (AutoModelForCausalLM, AutoTokenizer))
question = [{{"role": "user", "content": "Who commanded the Sixth Army?"}}]
inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**inputs, max_new_tokens={tokens})[0, inputs["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))
```

It is asked in ChatML and ends its answer with `<|im_end|>`; `generation_config.json` draws among the 40 likeliest tokens at
temperature 0.75. The class is `{CLASSES[entry.layout]}`, so vLLM and others serve it as they are."""


def _shape(entry: Entry) -> list[tuple[str, object]]:
    config = entry.config
    return [
        ("parameters", f"{entry.parameters:,}"),
        ("preset", entry.preset or "not known"),
        ("layers, width", f"{config.layers}, {config.width:,}"),
        ("heads", f"{config.heads} over {config.kv_heads} of keys and values, of {config.head_size}"),
        ("feed-forward", f"{config.activation}, {config.ffn:,}"),
        ("norm, positions", f"{config.norm}, {config.positions}"),
        ("vocabulary", f"{config.vocabulary:,}, {'tied' if config.tied else 'untied'}"),
        ("context", f"{config.context:,} tokens"),
        ("layout", _layout(entry)),
        ("numbers", entry.dtype),
    ]


def _layout(entry: Entry) -> str:
    config, notes = entry.config, [CLASSES[entry.layout]]
    if config.qk_norm:
        notes.append("the weights of q_norm and k_norm are all 1")
    if config.embedding_norm:
        notes.append(
            "the embedding holds each row scaled to a root mean square of 1, the LM head the rows as trained"
            if config.tied
            else "the embedding holds each row scaled to a root mean square of 1"
        )
    if entry.layout == "gpt2" and config.kv_heads != config.heads:
        notes.append("grouped keys and values are written once for every query head")
    return "; ".join(notes)


def _figures(entry: Entry) -> str:
    losses = entry.losses
    rows: list[tuple[str, object]] = [
        (f"loss, train (mean of the last {losses.train_steps} steps)", _number(losses.train)),
        ("loss, held-out phrasing", _number(losses.phrasing)),
        ("loss, unseen article", _number(losses.unseen)),
    ]
    for split, name in SPLIT_NAMES.items():
        rows.append((f"judged right, {name}", told(entry.judging(split))))
        found = entry.judged(split)
        if found and found.corrected is not None:
            corrected = _within(found.corrected, found.corrected_low, found.corrected_high)
            rows.append(("&nbsp;&nbsp;corrected for the errors the judge made on answers of known worth", corrected))
        if found and found.baseline is not None:
            rows.append(("&nbsp;&nbsp;the same, each question with another's answer", f"{100 * found.baseline:.1f} %"))
        if found and found.stop_rate is not None:
            rows.append(("&nbsp;&nbsp;answers that ended by themselves", f"{100 * found.stop_rate:.1f} %"))
    return _table(("", ""), rows) + (
        "\n\nLosses are nats per token of an answer. Intervals of a pass rate are Wilson's at 95 %. Trained phrasing: questions "
        "as they stood in its training; held-out phrasing: other questions on the same passages; unseen article: questions on "
        "articles it never saw."
    )


def told(point: RoundPoint | None) -> str:
    """What a judging came to: its pass rate; or that there was none; or why there is none to believe."""
    if point is None:
        return "not judged at this step"
    if point.error:
        return "not judged: the judging failed"
    if point.problems:
        return f"not believed: {'; '.join(point.problems)}"
    return pass_rate(point) if point.pass_rate is not None else "not judged: nothing was scored"


def summed_up(entry: Entry) -> str:
    """A line for each split that was judged at this step, for a table: its pass rate, or in a word that there is none."""
    lines = []
    for split, name in SPLIT_NAMES.items():
        point = entry.judging(split)
        if point is not None:
            said = pass_rate(point) if point.believed else "not believed" if point.problems else "failed"
            corrected = point.corrected if point.believed else None
            lines.append(f"{name} {said}" + (f", corrected {100 * corrected:.1f} %" if corrected is not None else ""))
    return "\n".join(lines) or "not judged"


def pass_rate(point: RoundPoint) -> str:
    """A pass rate with its interval, in per cent. The point must have one."""
    assert point.pass_rate is not None
    return _within(point.pass_rate, point.low, point.high)


def _within(rate: float, low: float | None, high: float | None) -> str:
    shown = f"{100 * rate:.1f} %"
    return shown if low is None or high is None else f"{shown} ({100 * low:.1f}–{100 * high:.1f})"


def _data(entry: Entry) -> str:
    data = entry.data
    if not data.manifest:
        return "The checkpoint names no manifest, so what it was trained on is not known here."
    part = f", of which {100 * data.share:g} % were taken" if data.share < 1 else ""
    made_by = ", ".join(f"{_cell(name)} ({count:,})" for name, count in data.teachers.items())
    text = (
        f"{data.total:,} records for training{part}, of {data.shards:,} shards with the fingerprint `{data.manifest}`. "
        f"They were written by: {made_by or 'nobody'}."
    )
    if data.missing:
        text += f" {data.missing:,} shards are no longer there and are not counted."
    text += _mixed(entry.settings)
    origins = [
        (one.source, one.license or "not stated", f"{one.articles:,}", f"{one.records:,}") for one in data.origins
    ]
    kinds = [(f"`{name}`", f"{count:,}") for name, count in data.records.items()]
    return "\n\n".join(
        (
            text,
            _table(("source", "licence", "articles", "records"), origins),
            "A licence of a source may bind what is made of its text: look before you hand the model on.",
            _table(("prompt type", "records"), kinds),
        )
    )


def _mixed(settings: dict[str, Any]) -> str:
    """What is not every record once an epoch, in the words of the settings."""
    odd = [
        f"{name} {_cell(value)}"
        for name in ("weights", "raw", "curriculum")
        if (value := settings.get(f"mix.{name}")) not in (None, 0, "", "{}", "[]")
    ]
    if not odd:
        return ""
    return f" They were mixed by these settings: {'; '.join(odd)} (`raw`: share of raw text of the corpus in an epoch's tokens)."


def _limits(entry: Entry) -> str:
    config: ModelConfig = entry.config
    lines = [
        "It knows what its records say, and makes up the rest in the same tone. Check every fact against the source.",
        "It has had no training in safety, and follows no instructions but the kinds of question above.",
        f"Question and answer together have room in {config.context:,} tokens. Positions beyond the longest record it was "
        "trained on are new to it.",
        "A tag such as `<|im_end|>` within a message's text is read as the tag by the chat template.",
    ]
    if entry.judged() is None:
        doubted = entry.judging() is not None
        why = (
            "The judging of its answers has no figure to believe"
            if doubted
            else "Nobody has judged its answers at this step"
        )
        lines.insert(0, f"{why}: its losses say little of what it can do.")
    return "\n".join(f"- {line}" for line in lines)


def _origin(entry: Entry) -> list[tuple[str, object]]:
    return [
        ("run, step", f"{entry.run}, {entry.step:,}"),
        ("tokens trained on", f"{entry.tokens:,}"),
        ("code", entry.git or "not known"),
        ("tokenizer (SHA-256)", f"`{entry.tokenizer}`"),
        ("exported", entry.date),
    ]


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    lines += [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows[:ROWS]]
    if len(rows) > ROWS:
        lines.append(f"| and {len(rows) - ROWS:,} more |{' |' * (len(heads) - 1)}")
    return "\n".join(lines)


def _cell(value: object) -> str:
    """Text that stays in its cell."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
