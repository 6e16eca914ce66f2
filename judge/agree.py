"""Two judgings of the same answers, side by side; and a judging read back: each verdict with the answer it is about.

Guarantees: rows are matched by item and by the answer's text, so that another round's answer to the same question is
never taken for this one; answers that changed since they were judged are refused. Unscored rows count as neither. A
judging whose score is refused has no pass rate here either, nor a difference to another's.
Cost: 25 µs a row to read, 50 µs to compare. Misses: that two judges agree does not make either right; people may be
asked instead (`judge.calibrate`).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from foundation.errors import UsageError
from foundation.ids import stable_id
from foundation.records import Answer, Verdict
from judge import stats
from judge.files import read_answers, read_summary, read_verdicts

WORDS = ("PASS", "FAIL", "UNSCORED")
FEW = 30  # compared rows under which every figure is little more than a guess
ENOUGH = 10  # compared rows a split or a family must have to get figures of its own
Key = tuple[str, str]
Pair = tuple[str, str]


def answer_id(text: str) -> str:
    """What names an answer's text: with the item's id, all that a label or a verdict is about."""
    return stable_id("answer", text)


@dataclass(frozen=True, slots=True)
class Row:
    """One answer and what was said of it."""

    answer: Answer
    verdict: Verdict


@dataclass(frozen=True)
class Judging:
    """A judging as its files tell it. `rows`: by item id and `answer_id`."""

    path: Path
    answers: Path
    summary: Mapping[str, Any]
    rows: Mapping[Key, Row]

    @property
    def grader(self) -> str:
        return str((self.summary.get("grader") or {}).get("name", "?"))

    @property
    def refused(self) -> bool:
        """Whether its judge failed its canaries: then nobody is told its pass rate."""
        return bool(self.summary.get("refused"))


def read_judging(path: Path, answers: Path | None = None) -> Judging:
    """The verdicts `path` with the answers its summary names (or `answers`). Raises `UsageError` if they do not fit."""
    verdicts, summary = read_verdicts(path), read_summary(path)
    told = summary.get("answers")
    told = told if isinstance(told, dict) else {}
    answers = answers or _find(path, str(told.get("file", "")), str(told.get("sha256", "")))
    found, _ = read_answers(answers)
    if [one.item_id for one in verdicts] != [one.item.id for one in found]:
        raise UsageError(
            f"these verdicts are not on these answers ({len(verdicts):,} verdicts, {len(found):,} answers)",
            where=f"{path}, {answers}",
            mend="name the answers that were judged with --answers, or run `judge run` again",
        )
    rows: dict[Key, Row] = {}
    for answer, verdict in zip(found, verdicts, strict=True):
        rows.setdefault((answer.item.id, answer_id(answer.text)), Row(answer, verdict))
    return Judging(path, answers, summary, rows)


def _find(path: Path, named: str, sha: str) -> Path:
    """The answers a summary names: as it names them, else from one of the folders above the verdicts, else beside them."""
    places = [Path(named), *(folder / named for folder in path.absolute().parents), path.parent / Path(named).name]
    there = [place for place in places if named and place.is_file()]
    for place in there:
        if hashlib.sha256(place.read_bytes()).hexdigest() == sha:
            return place
    if there:
        raise UsageError(
            "the answers have changed since they were judged",
            where=f"{there[0]}, judged in {path}",
            mend="run `judge run` again: only what changed is judged anew",
        )
    raise UsageError(
        "the answers that were judged are not where they were",
        where=named or str(path),
        mend="name them with --answers",
    )


def agree(a: Judging, b: Judging) -> dict[str, Any]:
    """How far two judgings of the same answers agree. Raises `UsageError` if they have no answer in common."""
    common = [key for key in a.rows if key in b.rows]
    items_a, items_b = {item for item, _ in a.rows}, {item for item, _ in b.rows}
    same = {item for item, _ in common}
    other = len((items_a & items_b) - same)
    if not common:
        raise UsageError(
            f"the two judged no answer in common: {other:,} questions are in both, but were answered differently"
            if other
            else "the two judged no answer in common, and no question either",
            where=f"{a.path} ({a.answers}), {b.path} ({b.answers})",
            mend="compare two judgings of one file of answers: `judge run --answers FILE`, once with each grader",
        )
    pairs = [(a.rows[key].verdict.verdict, b.rows[key].verdict.verdict) for key in common]
    items = [a.rows[key].answer.item for key in common]
    figures_of = partial(figures, refused=a.refused or b.refused)
    document = {
        "v": 1,
        "a": _about(a, common),
        "b": _about(b, common),
        "rows": {
            "common": len(common),
            "answered_differently": other,
            "only_a": len(items_a - items_b),
            "only_b": len(items_b - items_a),
        },
        **figures_of(pairs),
        "by_split": grouped(pairs, [item.split for item in items], figures_of),
        "by_family": grouped(pairs, [item.family for item in items], figures_of),
        "disagreements": [
            described(a.rows[key]) | {name: _said(judging.rows[key].verdict) for name, judging in (("a", a), ("b", b))}
            for key, pair in zip(common, pairs, strict=True)
            if set(pair) == {"PASS", "FAIL"}
        ],
    }
    return document | {"notes": _notes(document)}


def figures(pairs: Sequence[Pair], refused: bool = False) -> dict[str, Any]:
    """Confusion (first × second), agreement, kappa, and who passes more: of pairs of PASS, FAIL and UNSCORED.

    `refused`: the score of one is, so the difference of their rates is None.
    """
    scored = [(one == "PASS", other == "PASS") for one, other in pairs if "UNSCORED" not in (one, other)]
    cell = Counter(scored)
    gap = paired_difference(cell[True, True], cell[True, False], cell[False, True], cell[False, False])
    kappa = stats.cohen_kappa(scored)
    return {
        "n": len(pairs),
        "confusion": confusion(pairs, WORDS),
        "agreement": share(cell[True, True] + cell[False, False], len(scored)),
        "kappa": asdict(kappa) if kappa else None,
        "difference": asdict(gap) if gap and not refused else None,
        "only_first_passes": cell[True, False],
        "only_second_passes": cell[False, True],
        "mcnemar_p": stats.mcnemar(cell[True, False], cell[False, True]) if scored else None,
    }


def confusion(pairs: Sequence[Pair], first: Iterable[str]) -> dict[str, dict[str, int]]:
    """Counts by what the `first` said, then by what the second did."""
    counts = Counter(pairs)
    return {one: {other: counts[one, other] for other in WORDS} for one in first}


def grouped(
    pairs: Sequence[Pair], names: Sequence[str], figures_of: Callable[[Sequence[Pair]], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Figures by group; one with fewer than `ENOUGH` scored has its number alone: rates of so few would only mislead."""
    groups = {
        name: [pair for pair, own in zip(pairs, names, strict=True) if own == name] for name in sorted(set(names))
    }
    return {
        name: figures_of(own) if sum("UNSCORED" not in pair for pair in own) >= ENOUGH else {"n": len(own)}
        for name, own in groups.items()
    }


def share(count: int, of: int) -> dict[str, float | int | None]:
    """A share with Wilson's interval, as JSON; its figures are None of none."""
    rate = stats.rate(count, of)
    return {"count": count, "of": of, "value": rate.value, "low": rate.low, "high": rate.high}


def paired_difference(both: int, first: int, second: int, neither: int) -> stats.Estimate | None:
    """How much higher the first judge's pass rate is, both having judged the same answers; None without any.

    `first`, `second`: answers that only that one passed. Newcombe's interval for paired data (1998, Stat. in Medicine 17,
    2635, method 10): narrower than for two samples, since hard answers are hard for both.
    """
    n = both + first + second + neither
    if not n:
        return None
    one, other = stats.rate(both + first, n), stats.rate(both + second, n)
    assert one.value is not None and one.low is not None and one.high is not None
    assert other.value is not None and other.low is not None and other.high is not None
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    product = both * neither - first * second
    cross = max(product - n / 2, 0.0) if product > 0 else product
    phi = cross / math.sqrt(margins) if margins else 0.0
    below, above = one.value - one.low, other.high - other.value
    down = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    below, above = other.value - other.low, one.high - one.value
    up = math.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))
    gap = (first - second) / n
    return stats.Estimate(round(gap, 6), round(gap - down, 6), round(gap + up, 6))


def strength(kappa: Mapping[str, float]) -> str:
    """Kappa in words (Landis & Koch 1977), by its figure."""
    value = kappa["value"]
    words = ((0.8, "almost perfect"), (0.6, "good"), (0.4, "moderate"), (0.2, "weak"))
    return next((word for least, word in words if value > least), "hardly better than chance")


def described(row: Row) -> dict[str, Any]:
    """What a person needs to see of a row to form an opinion."""
    item = row.answer.item
    return {
        "item_id": item.id,
        "answer_id": answer_id(row.answer.text),
        "split": item.split,
        "family": item.family,
        "title": item.title,
        "question": item.question,
        "reference": item.reference,
        "answer": row.answer.text,
    }


def pass_rate(judging: Judging, rate: stats.Rate) -> dict[str, float | int | None]:
    """The rate as JSON; of a judging whose score is refused the counts alone."""
    found = stats.as_json(rate)
    return found | dict.fromkeys(("pass_rate", "low", "high")) if judging.refused else found


def percent(part: Mapping[str, Any], name: str = "value") -> str:
    """`41.2 % (34.0–48.8)` of a figure with its interval as JSON, or a dash."""
    if part.get(name) is None:
        return "–"
    return f"{100 * part[name]:.1f} % ({100 * part['low']:.1f}–{100 * part['high']:.1f})"


def _about(judging: Judging, common: Sequence[Key]) -> dict[str, Any]:
    """One side: its grader, and its figures on the answers in common."""
    counts: Counter[str] = Counter(judging.rows[key].verdict.verdict for key in common)
    reasons = Counter(judging.rows[key].verdict.reason for key in common if _unscored(judging.rows[key]))
    return {
        "verdicts": str(judging.path),
        "answers": str(judging.answers),
        "grader": judging.summary.get("grader"),
        "fingerprint": judging.summary.get("fingerprint"),
        "rows": len(judging.rows),
        "counts": {word: counts[word] for word in WORDS},
        "unscored": dict(reasons.most_common()),
        "refused": judging.refused,
        "problems": list(judging.summary.get("problems") or []),
        **pass_rate(judging, stats.rate(counts["PASS"], counts["PASS"] + counts["FAIL"])),
    }


def _unscored(row: Row) -> bool:
    return row.verdict.verdict == "UNSCORED"


def _said(verdict: Verdict) -> dict[str, str]:
    return {"verdict": verdict.verdict, "reason": verdict.reason, "explanation": verdict.explanation}


def _notes(document: Mapping[str, Any]) -> list[str]:
    """What the figures mean, in sentences."""
    a, b, scored = document["a"], document["b"], document["agreement"]["of"]
    notes = []
    if a["fingerprint"] == b["fingerprint"]:
        notes.append("Both are the same grader with the same settings: what differs is its own chance.")
    elif a["grader"] == b["grader"]:
        notes.append("Both graders have one name, but their settings, prompt or version differ.")
    for side, about in (("A", a), ("B", b)):
        if about["problems"]:
            notes.append(f"{side}'s judging itself says: {' '.join(about['problems'])}")
        if about["refused"]:
            notes.append(f"{side}'s score is refused: its pass rate is not told, nor how far it is from the other's.")
        if not about["scored"]:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in about["unscored"].items())
            notes.append(f"{side} scored none of these answers ({reasons}), so there is no agreement to tell.")
    if not scored:
        return notes or ["No answer was scored by both, so there is no agreement to tell."]
    if scored < FEW:
        notes.append(f"Only {scored} answers are scored by both: too few to say much.")
    kappa = document["kappa"]
    if kappa is None:
        notes.append(
            f"They agree on {percent(document['agreement'])} of {scored:,} answers; since one of them says the same of all, "
            "kappa is undefined: chance would agree as often."
        )
    else:
        notes.append(
            f"They agree on {percent(document['agreement'])} of {scored:,} answers; beyond chance that is "
            f"{strength(kappa)} (kappa {kappa['value']:.2f}, {kappa['low']:.2f} to {kappa['high']:.2f})."
        )
    first, second, p = document["only_first_passes"], document["only_second_passes"], document["mcnemar_p"]
    if p < 0.05:
        lenient, strict = ("A", "B") if first > second else ("B", "A")
        more, fewer = max(first, second), min(first, second)
        notes.append(
            f"{lenient} is the more lenient: it alone passes {more:,} answers, {strict} alone {fewer:,} "
            f"(McNemar's exact p = {p:g})."
        )
    elif first + second:
        notes.append(
            f"No sign that one is the more lenient: A alone passes {first:,} answers, B alone {second:,} "
            f"(McNemar's exact p = {p:g})."
        )
    return [*notes, "Agreement is not truth: two judges can share a mistake. `judge calibrate` compares with people."]
