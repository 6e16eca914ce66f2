"""The page of `judge report`: judgings in, one self-contained HTML document out.

Guarantees: every text is escaped, and cleaned of what could turn or hide it; the page loads nothing, and its content
policy allows the one style and the one script that stand in it, by their hashes. The script reads no data but the page's
own elements; without it everything is there, unfiltered. Where a score is refused no rate is written.
Cost: 0.2 ms an answer, and 1.1 KB besides its texts, each snippet once: 1.4 MB for the demo's 600. In a browser 2,000 answers
are narrowed within 0.15 s.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from foundation.splits import SPLIT_NAMES, split_name
from judge.report import words
from judge.report.bars import Axis, Bar, axis
from judge.report.collect import Canary, Judging, Row
from judge.report.compare import Comparison, compare, keyed
from judge.report.doubts import doubts

HERE = Path(__file__).parent
FILTERS = "shown sentence count many percent interval points chance short seconds moment spoken".split()
MISSED = 40  # canaries judged wrongly that the page shows
TALL = 40  # rows of a table that are shown whole; a longer one scrolls
REASONS = {
    "empty": "nothing was written",
    "punctuation": "nothing but marks",
    "echo": "the question again",
    "looping": "the same words over and over",
    "opener": "a reasoning opener alone",
    "contradicted": "says other than the passage",
    "unsupported": "facts that nothing supports",
    "hedged": "leaves it open",
    "negated": "denies what is so",
    "reference": "the reference asks for nothing",
    "competing": "more than one answer at once",
    "polarity": "yes for no, or no for yes",
    "off-topic": "not about what was asked",
    "missing": "lacks what was asked for",
    "parse": "no verdict could be read",
    "length": "the grader was cut off",
    "refusal": "the grader declined",
    "engine": "the engine failed",
}


@dataclass(frozen=True)
class Said:
    """One judging's answer to a question. `change`: gained, lost or empty, beside the first judging."""

    run: int
    row: Row
    change: str


@dataclass(frozen=True)
class Card:
    """One question with all that was answered. `passage` is the number of its snippet."""

    number: int
    row: Row
    passage: int
    said: list[Said]


@dataclass(frozen=True)
class Table:
    """Rows on one axis, and what they are. `note`: which answers they are of; `split`: and which split, if of one alone."""

    id: str
    title: str
    what: str
    rows: list[Bar]
    axis: Axis
    note: str = ""
    split: str = ""

    @property
    def tall(self) -> bool:
        """Whether it is too long to be shown whole."""
        return len(self.rows) > TALL

    @property
    def shuffled(self) -> bool:
        """Whether any row has a baseline."""
        return any(row.shuffled is not None for row in self.rows)


@dataclass(frozen=True)
class View:
    """One judging as the page shows it."""

    judging: Judging
    prefix: str
    validity: str
    tone: str
    doubts: list[str]
    hero: Table
    tables: list[Table]
    note: str
    reasons: dict[str, list[tuple[str, int, float, str]]]
    missed: list[Canary]


def render(judgings: Sequence[Judging], title: str = "") -> str:
    """The page as text; UTF-8 has room for all of it."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update({name: getattr(words, name) for name in FILTERS}, link=link)
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    made, passages = cards(judgings)
    return environment.get_template("page.html.j2").render(
        title=title or default_title(judgings),
        views=[view(judging, number) for number, judging in enumerate(judgings, 1)],
        comparisons=comparisons(judgings),
        cards=made,
        passages=passages,
        options=options(made, judgings),
        splits=SPLIT_NAMES,
        most=MISSED,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        made=words.moment(datetime.now(UTC)),
        version=_version(),
    )


def _finalize(value: Any) -> Any:
    """Whatever is written into the page goes through here: no field is forgotten."""
    return words.clean(value) if type(value) is str else value


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _version() -> str:
    try:
        return version("qpt-factory")
    except PackageNotFoundError:
        return "from a checkout that is not installed"


def default_title(judgings: Sequence[Judging]) -> str:
    """By checkpoint, where the user names none."""
    if len(judgings) == 1:
        return f"How {judgings[0].checkpoint or judgings[0].label} answered"
    return f"{len(judgings)} {_compared(judgings)}s compared"


def _compared(judgings: Sequence[Judging]) -> str:
    """What each of them is of its own: a student, or another judging of one student."""
    return "student" if len({one.checkpoint for one in judgings}) == len(judgings) else "judging"


def link(pair: tuple[str, str]) -> str:
    """The address that narrows the answers below to one value."""
    return f"#{pair[0]}={quote(words.clean(pair[1]), safe='')}"


def comparisons(judgings: Sequence[Judging]) -> list[Comparison]:
    """Each judging against the first."""
    return [compare(judgings[0], other) for other in judgings[1:]]


def view(judging: Judging, number: int) -> View:
    """One judging's tables and words."""
    summary = judging.summary
    by_split = summary.get("by_split") or {}
    prefix = f"run{number}-" if number > 1 else ""
    splits = [_split(name, by_split[name]) for name in _ordered(by_split)]
    tables = [Table(f"{prefix}splits", "By split", "Questions", splits, axis(splits))] if splits else []
    note = _note(judging)
    for id_, title, what, rows in (
        ("families", "By prompt family", "Family", _bars("family", judging.grouped(lambda item: item.family))),
        ("articles", "By article", "Article", _articles(judging)),
        ("types", "By prompt type", "Prompt type", _bars("type", judging.grouped(lambda item: item.prompt_type))),
    ):
        tables.append(Table(f"{prefix}{id_}", title, what, rows, axis(rows), note, judging.measure))
    return View(
        judging=judging,
        prefix=prefix,
        validity=_validity(summary),
        tone=_tone(judging),
        doubts=doubts(judging),
        hero=_hero(judging.headline, prefix),
        tables=[table for table in tables if table.rows],
        note=note,
        reasons={name: _reasons(judging.headline, name) for name in ("FAIL", "UNSCORED")},
        missed=[one for one in judging.canaries or () if one.missed],
    )


def _validity(summary: Mapping[str, Any]) -> str:
    """What is known of a score that nothing speaks against: no more than that."""
    classes = (summary.get("canaries") or {}).get("classes") or {}
    declared = sum(one.get("floor") is not None for one in classes.values())
    kept = sum(one.get("ok") is True for one in classes.values())
    if not classes:
        return "Valid, but no canaries were judged: the grader is taken at its word"
    if not declared:
        return "Valid, but the grader declares no floor that it could have failed"
    return (
        f"Valid: the grader kept {'every floor' if kept == declared else f'{kept} of {declared} floors'} that it declares"
        + ("" if kept == declared else "; the others had too few canaries")
    )


def _tone(judging: Judging) -> str:
    """`good` only where the grader was put to the test."""
    classes = (judging.summary.get("canaries") or {}).get("classes") or {}
    if not judging.valid:
        return "bad"
    return "good" if any(one.get("ok") is True for one in classes.values()) else "odd"


def _hero(summary: Mapping[str, Any], prefix: str) -> Table:
    """The headline, each way to look at it on a line of its own."""
    value = summary.get("pass_rate")
    rows = [Bar("as judged", {"pass_rate": value, "low": summary.get("low"), "high": summary.get("high")})]
    for name, figures in (
        ("articles redrawn", {"value": value, **summary["clustered"]} if summary.get("clustered") else None),
        ("corrected", summary.get("corrected")),
    ):
        if figures:
            rows.append(Bar(name, {"pass_rate": figures["value"], "low": figures["low"], "high": figures["high"]}))
    baseline = summary.get("baseline") or {}
    if baseline.get("pass_rate") is not None:
        rows.append(
            Bar(
                "shuffled answers",
                {"pass_rate": baseline["pass_rate"], "low": baseline["low"], "high": baseline["high"]},
            )
        )
    return Table(f"{prefix}score", "", "", rows, axis(rows))


def _note(judging: Judging) -> str:
    """Which answers a table is of, where several splits were judged."""
    if len(judging.summary.get("by_split") or {}) < 2:
        return ""
    if not judging.measure:
        return "All splits together: phrasings the student was trained on may be among them."
    some, all_ = len(judging.measured), words.many(len(judging.rows), "answer")
    return f"Of {split_name(judging.measure)} alone, as the pass rate above: {some:,} of {all_}."


def _articles(judging: Judging) -> list[Bar]:
    """Those with the most answers that were scored first."""
    titles = {row.answer.item.article_id: row.answer.item.title for row in judging.rows}
    groups = judging.grouped(lambda item: item.article_id).items()
    ordered = sorted(groups, key=lambda one: (-_scored(one[1]), titles[one[0]], one[0]))
    return [Bar(titles[id_] or id_, figures, ("article", id_)) for id_, figures in ordered]


def _ordered(by_split: Mapping[str, Any]) -> list[str]:
    return [name for name in SPLIT_NAMES if name in by_split] + sorted(set(by_split) - set(SPLIT_NAMES))


def _split(name: str, figures: Mapping[str, Any]) -> Bar:
    notes = []
    if figures.get("corrected"):
        one = figures["corrected"]
        notes.append(f"corrected {words.percent(one['value'])} ({words.interval(one['low'], one['high'])})")
    if figures.get("clustered"):
        notes.append(f"articles redrawn {words.interval(figures['clustered']['low'], figures['clustered']['high'])}")
    if figures.get("stop_rate") is not None:
        notes.append(f"came to an end {words.percent(figures['stop_rate'])}")
    return Bar(split_name(name), figures, ("split", name), tuple(notes))


def _bars(kind: str, groups: Mapping[str, Mapping[str, Any]]) -> list[Bar]:
    return [Bar(name, figures, (kind, name)) for name, figures in sorted(groups.items())]


def _scored(figures: Mapping[str, Any]) -> int:
    return int((figures.get("counts") or {}).get("PASS", 0)) + int((figures.get("counts") or {}).get("FAIL", 0))


def _reasons(summary: Mapping[str, Any], name: str) -> list[tuple[str, int, float, str]]:
    """Of all answers with that verdict: reason, count, share, and what it means."""
    found = (summary.get("reasons") or {}).get(name) or {}
    total = sum(found.values())
    return [(reason, times, times / total, REASONS.get(reason, "")) for reason, times in found.items() if times]


def cards(judgings: Sequence[Judging]) -> tuple[list[Card], list[tuple[str, str]]]:
    """Every question once, in the order of the first judging that has it; and the snippets, each once, with their titles."""
    found: dict[tuple[str, str, str, int], list[Said]] = {}
    for number, judging in enumerate(judgings, 1):
        for key, row in keyed(judging.rows):
            earlier = found.setdefault(key, [])
            found[key].append(Said(number, row, _change(earlier, row)))
    passages: dict[tuple[str, str], int] = {}
    made = []
    for number, said in enumerate(found.values(), 1):
        item = said[0].row.answer.item
        passage = passages.setdefault((item.title, item.snippet), len(passages) + 1)
        made.append(Card(number, said[0].row, passage, said))
    return made, list(passages)


def _change(earlier: Sequence[Said], row: Row) -> str:
    """What became of the first judging's verdict on the same question."""
    first = next((one.row.verdict.verdict for one in earlier if one.run == 1), "")
    now = row.verdict.verdict
    return {("FAIL", "PASS"): "gained", ("PASS", "FAIL"): "lost"}.get((first, now), "")


def options(made: Sequence[Card], judgings: Sequence[Judging]) -> list[tuple[str, str, list[tuple[str, str, int]]]]:
    """What can be filtered by: (name, words for it, [(value, shown, answers)]). One that could not narrow anything is left out."""
    counts: dict[str, dict[str, int]] = {}
    shown: dict[str, dict[str, str]] = {"article": {}}

    def see(name: str, value: str) -> None:
        if value:
            of = counts.setdefault(name, {})
            of[value] = of.get(value, 0) + 1

    for card in made:
        item = card.row.answer.item
        shown["article"][item.article_id] = item.title
        for said in card.said:
            verdict = said.row.verdict
            for name, value in (
                ("verdict", verdict.verdict), ("reason", verdict.reason), ("run", str(said.run)), ("change", said.change),
                ("split", item.split), ("family", item.family), ("type", item.prompt_type), ("article", item.article_id),
            ):  # fmt: skip
                see(name, value)
    shown["split"] = dict(SPLIT_NAMES.items())
    shown["run"] = {str(number): judging.label for number, judging in enumerate(judgings, 1)}
    shown["change"] = {"gained": "wrong before, right now", "lost": "right before, wrong now"}
    kinds = {
        "run": _compared(judgings).capitalize(),
        "change": "Changed",
        "verdict": "Verdict",
        "reason": "Reason",
        "split": "Split",
    }
    kinds |= {"family": "Family", "type": "Prompt type", "article": "Article"}
    found = []
    for name, heading in kinds.items():
        of = counts.get(name, {})
        if len(of) > 1 or (name in ("verdict", "change") and of):
            names = shown.get(name, {})
            entries = [(value, names.get(value) or value, times) for value, times in of.items()]
            order = list(names) if name in ("split", "run") else []
            entries.sort(key=lambda one: (order.index(one[0]) if one[0] in order else 99, one[1].casefold()))
            found.append((name, heading, entries))
    return found
