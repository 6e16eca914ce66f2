"""A judging beside what people say of the same answers: how far to believe its pass rate, and what it would be.

Guarantees: a label counts only for the text it was given to; answers that the judge left unscored, and those that two
people see differently, count as neither right nor wrong, and are counted apart; of a judging whose score is refused neither
the pass rate nor its correction is told, only what people would pass of what it passes and of what it fails. Cost: about 40 µs a label.
Misses: the rates hold for all answers only if the labelled ones are a random part of them, as `judge label` draws them;
people err too, and their errors are taken for the judge's. Sources: Rogan & Gladen 1978 for the corrected rate, as
`judge.stats.corrected` computes it; Tenenbein 1970 for the weighted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from foundation.errors import UsageError
from foundation.splits import split_name
from judge import stats
from judge.agree import FEW, Judging, Key, Pair, Row, confusion, described, grouped, pass_rate, percent, share, strength
from judge.label import Label

WITHIN = 5.0  # percentage points: the half-width that is asked for, unless told otherwise
MOST = 100  # times as many labels as there are: beyond that no number is worth naming


@dataclass(frozen=True)
class Matched:
    """Labels sorted by what they are about. `rows`: one word a row, that all its annotators share."""

    rows: Sequence[tuple[Row, str, list[Label]]]
    split: Sequence[tuple[Row, list[Label]]]
    other_text: int
    unknown: int
    assumed: int
    by_annotator: Mapping[str, Mapping[Key, str]]


def calibrate(
    judging: Judging, labels: Sequence[Label], file: Path, *, blank: int = 0, within: float = WITHIN
) -> dict[str, Any]:
    """All figures, as one document; `within`: percentage points.

    Raises `UsageError` for labels that contradict each other, or if none is about this judging.
    """
    matched = match(judging, labels, file)
    pairs = [(word, row.verdict.verdict) for row, word, _ in matched.rows]
    items = [row.answer.item for row, _, _ in matched.rows]
    verdicts = [row.verdict.verdict for row in judging.rows.values()]
    passed = verdicts.count("PASS")
    raw = stats.rate(passed, passed + verdicts.count("FAIL"))
    found = figures(pairs)
    corrected = None if judging.refused else stats.corrected(raw, *_rates(pairs))
    by_verdict = weighted(raw, pairs)
    document = {
        "v": 1,
        "labels": {
            "file": str(file),
            "labels": len(labels),
            "not_yet": blank,
            "compared": len(pairs),
            "without_a_text": matched.assumed,
            "of_another_answer": matched.other_text,
            "of_other_questions": matched.unknown,
            "annotators_differ": len(matched.split),
        },
        "verdicts": str(judging.path),
        "answers": str(judging.answers),
        "grader": judging.summary.get("grader"),
        "refused": judging.refused,
        "problems": list(judging.summary.get("problems") or []),
        **found,
        "without_labels": sorted(
            {row.answer.item.split for row in judging.rows.values()} - {one.split for one in items}
        ),
        "by_split": grouped(pairs, [item.split for item in items], figures),
        "by_family": grouped(pairs, [item.family for item in items], figures),
        "judging": {
            "rows": len(verdicts),
            **pass_rate(judging, raw),
            "corrected": asdict(corrected) if corrected else None,
            "weighted": asdict(by_verdict) if by_verdict else None,
        },
        "canaries": _canaries(judging.summary.get("canaries"), pairs),
        "annotators": _annotators(matched.by_annotator),
        "needed": {"within": within, "labels": needed(raw, pairs, within / 100)},
        "disagreements": [
            described(row) | _said(row, word, own)
            for row, word, own in matched.rows
            if {word, row.verdict.verdict} == {"PASS", "FAIL"}
        ],
        "annotators_differ": [
            described(row) | {"people": {label.annotator: label.label for label in own}} for row, own in matched.split
        ],
    }
    return document | {"bottom_line": bottom_line(document)}


def match(judging: Judging, labels: Sequence[Label], file: Path) -> Matched:
    """Which label is about which row."""
    texts: dict[str, list[Key]] = defaultdict(list)
    for key in judging.rows:
        texts[key[0]].append(key)
    said: dict[Key, dict[str, Label]] = defaultdict(dict)
    other = unknown = assumed = 0
    for label in labels:
        named = bool(label.answer_id or label.answer.strip())
        keys = [key for key in texts.get(label.item_id, ()) if not named or _is_about(label, judging.rows[key], key)]
        if len(keys) > 1:
            raise UsageError(
                "this label does not say which of the question's answers it is about",
                where=label.where,
                mend="add the answer's text in a column `answer`",
            )
        if not keys:
            other, unknown = other + (label.item_id in texts), unknown + (label.item_id not in texts)
            continue
        before = said[keys[0]].setdefault(label.annotator, label)
        if before.label != label.label:
            raise UsageError(
                f"two labels of {label.annotator or 'one annotator'} contradict each other: {before.label}, then {label.label}",
                where=f"{before.where}, {label.where}",
                mend="remove one; or, if two people made them, say who in a column `annotator`",
            )
        assumed += not named
    if not said:
        _refuse(labels, judging, file, other)
    rows, split = [], []
    by: dict[str, dict[Key, str]] = defaultdict(dict)
    for key, own in said.items():
        for annotator, label in own.items():
            by[annotator][key] = label.label
        words = {label.label for label in own.values()}
        if len(words) == 1:
            rows.append((judging.rows[key], words.pop(), list(own.values())))
        else:
            split.append((judging.rows[key], list(own.values())))
    return Matched(rows, split, other, unknown, assumed, by)


def _is_about(label: Label, row: Row, key: Key) -> bool:
    """By its id; else by its text, whose white space and guard a spreadsheet may have changed."""
    if label.answer_id:
        return label.answer_id == key[1]
    return " ".join(label.answer.split()).lstrip("'") == " ".join(row.answer.text.split()).lstrip("'")


def _refuse(labels: Sequence[Label], judging: Judging, file: Path, other: int) -> None:
    first = labels[0]
    if other:
        raise UsageError(
            f"none of the {len(labels):,} labels is about this judging: {other:,} are on its questions, but on other "
            "answers to them (of another round, say)",
            where=f"{file}, {judging.answers}",
            mend="name the verdicts on the answers that were labelled, or label these: `judge label`",
        )
    raise UsageError(
        f"none of the {len(labels):,} labels is about this judging: it has no item {first.item_id[:60]}, to begin with",
        where=f"{first.where}, {judging.answers}",
        mend="name the verdicts on the answers that were labelled with --verdicts",
    )


def figures(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Of pairs of a person's word and the judge's: confusion, agreement, kappa, rates, and what people passed."""
    scored = [(human == "PASS", judge == "PASS") for human, judge in pairs if judge != "UNSCORED"]
    tpr, fpr = _rates(pairs)
    kappa = stats.cohen_kappa(scored)
    return {
        "n": len(pairs),
        "confusion": confusion(pairs, ("PASS", "FAIL")),
        "agreement": share(sum(human == judge for human, judge in scored), len(scored)),
        "kappa": asdict(kappa) if kappa else None,
        "tpr": stats.as_json(tpr),
        "fpr": stats.as_json(fpr),
        "people_passed": stats.as_json(stats.rate(sum(human == "PASS" for human, _ in pairs), len(pairs))),
    }


def _rates(pairs: Sequence[Pair], times: float = 1.0) -> tuple[stats.Rate, stats.Rate]:
    """How much of what people pass the judge passes (TPR), and of what they fail (FPR); as if there were `times` as many."""
    found = []
    for human in ("PASS", "FAIL"):
        own = [judge for word, judge in pairs if word == human and judge != "UNSCORED"]
        found.append(stats.rate(round(own.count("PASS") * times), round(len(own) * times)))
    return found[0], found[1]


def weighted(raw: stats.Rate, pairs: Sequence[Pair], times: float = 1.0) -> stats.Estimate | None:
    """What people would pass of all: what they pass of those the judge passes and of those it fails, each by its share.

    Of double sampling (Tenenbein 1970, J. Am. Stat. Assoc. 65, 1350): unlike the correction by rates it needs labels
    from this very judging, and then is narrower, and holds for a judge that errs much, or where more of the passed were
    labelled on purpose. The interval puts together Wilson's of its three shares (Zou & Donner 2008). `times`: as if there
    were so many times the labels. None where nothing of one verdict was labelled.
    """
    if raw.value is None or raw.low is None or raw.high is None:
        return None
    value, low, high, rates = 0.0, 0.0, 0.0, []
    for judge, part in (("PASS", raw.value), ("FAIL", 1 - raw.value)):
        own = [human == "PASS" for human, word in pairs if word == judge]
        rate = stats.rate(round(sum(own) * times), round(len(own) * times))
        if rate.value is None or rate.low is None or rate.high is None:
            if part > 0:
                return None
            continue
        value += part * rate.value
        low, high = low + (part * (rate.value - rate.low)) ** 2, high + (part * (rate.high - rate.value)) ** 2
        rates.append(rate.value)
    gap = rates[0] - rates[1] if len(rates) == 2 else 0.0
    ends = (gap * (raw.value - raw.low)) ** 2, (gap * (raw.high - raw.value)) ** 2
    low, high = low + ends[gap < 0], high + ends[gap >= 0]
    return stats.Estimate(round(value, 6), round(max(0.0, value - low**0.5), 6), round(min(1.0, value + high**0.5), 6))


def needed(raw: stats.Rate, pairs: Sequence[Pair], within: float) -> int | None:
    """About how many labels in all would give the weighted pass rate `within` (a half-width, as a share).

    None if there is none, or if no number within reason would do: then the judging itself has too few answers.
    """
    times = 1.0
    while times <= MOST:
        estimate = weighted(raw, pairs, times)
        if estimate is None:
            return None
        if (estimate.high - estimate.low) / 2 <= within:
            return round(len(pairs) * times)
        times *= 1.1
    return None


def _canaries(found: Any, pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """The canaries' rates beside those among labels; `differs`: the interval of the difference leaves out zero."""
    if not isinstance(found, dict):
        return None
    rates: dict[str, Any] = {}
    for name, human in zip(("tpr", "fpr"), _rates(pairs), strict=True):
        told = found.get(name) or {}
        canary = stats.rate(int(told.get("passed") or 0), int(told.get("scored") or 0))
        gap = stats.difference(human, canary)
        rates[name] = {
            "people": stats.as_json(human),
            "canaries": stats.as_json(canary),
            "difference": asdict(gap) if gap else None,
            "differs": None if gap is None else not gap.low <= 0 <= gap.high,
        }
    return rates


def _annotators(by: Mapping[str, Mapping[Key, str]]) -> list[dict[str, Any]]:
    """For each two people with answers in common: how far they agree."""
    found = []
    for one, other in combinations(sorted(by), 2):
        pairs = [(word == "PASS", by[other][key] == "PASS") for key, word in by[one].items() if key in by[other]]
        if pairs:
            kappa = stats.cohen_kappa(pairs)
            agreement = share(sum(first == second for first, second in pairs), len(pairs))
            found.append(
                {"annotators": [one, other], "agreement": agreement, "kappa": asdict(kappa) if kappa else None}
            )
    return found


def _said(row: Row, word: str, labels: Sequence[Label]) -> dict[str, Any]:
    return {
        "people": word,
        "judge": row.verdict.verdict,
        "reason": row.verdict.reason,
        "explanation": row.verdict.explanation,
        "annotators": [label.annotator for label in labels if label.annotator],
        "notes": [label.note for label in labels if label.note],
    }


def bottom_line(document: Mapping[str, Any]) -> list[str]:
    """What the figures mean, in sentences that depend on them."""
    scored, judging = document["agreement"]["of"], document["judging"]
    lines = list(filter(None, [_doubts(document["labels"])]))
    bare = [split_name(name) for name in document["without_labels"]]
    if bare:
        lines.append(f"No label is on {' or '.join(bare)}: what follows takes the judge to err there as elsewhere.")
    if document["problems"]:
        lines.append(f"The judging itself says: {' '.join(document['problems'])}")
    if document["refused"]:
        lines.append("Its score is refused: neither its pass rate is told, nor one corrected for its errors.")
    if not scored:
        return [*lines, "The judge scored none of the labelled answers, so nothing can be said of it."]
    if scored < FEW:
        lines.append(
            f"{scored} compared labels are few: whatever they show may be chance. From {FEW} on, better {2 * FEW} "
            "and more, it begins to tell."
        )
    lines += [_agreement(document), _leaning(document["confusion"])]
    corrected = judging["corrected"]
    if corrected is None:
        lines += [] if document["refused"] else [_uncorrectable(document)]
    else:
        lines.append(
            f"The judge passes {percent(judging, 'pass_rate')} of all {judging['scored']:,} scored answers; corrected for "
            f"its errors, people would pass {percent(corrected)}."
        )
    if judging["weighted"]:
        lines.append(
            "By what people say of those it passes and of those it fails, each by its share, they would pass "
            f"{percent(judging['weighted'])}; this holds if the labels were drawn from these very answers."
        )
        lines.append(
            _needed(judging["weighted"], document["needed"]["within"], document["needed"]["labels"], document["n"])
        )
    if scored < FEW:  # against so few, the canaries prove nothing either
        return lines
    return [*lines, *_of_canaries(document["canaries"], document["refused"])]


def _doubts(labels: Mapping[str, int]) -> str:
    told = (
        ("without_a_text", "{} labels do not say which text they are about, and are taken to be about these answers."),
        ("of_another_answer", "{} labels are on other answers to these questions, and are left out."),
        ("of_other_questions", "{} labels are on questions this judging has not, and are left out."),
        ("annotators_differ", "{} answers are left out because people disagree about them."),
    )
    return " ".join(text.format(f"{labels[name]:,}") for name, text in told if labels[name])


def _agreement(document: Mapping[str, Any]) -> str:
    kappa, agreement = document["kappa"], document["agreement"]
    text = f"Judge and people agree on {percent(agreement)} of {agreement['of']:,} answers"
    if kappa is None:
        return f"{text}; as one side says the same of all of them, that does not show whether the judge tells right from wrong."
    text += (
        f"; beyond chance: {strength(kappa)} (kappa {kappa['value']:.2f}, {kappa['low']:.2f} to {kappa['high']:.2f})"
    )
    if agreement["of"] < FEW:
        return f"{text}."
    if kappa["high"] < 0.4:
        return f"{text}: do not believe its verdicts."
    believed = kappa["low"] > 0.6 and not document["refused"]
    return f"{text}: it can be believed in the main." if believed else f"{text}."


def _leaning(counts: Mapping[str, Mapping[str, int]]) -> str:
    passed, failed = counts["FAIL"]["PASS"], counts["PASS"]["FAIL"]
    p = stats.mcnemar(passed, failed)
    told = f"it passes {passed:,} that people fail, and fails {failed:,} that people pass (McNemar's exact p = {p:g})"
    if not passed + failed:
        return "There is no answer they disagree about."
    if p >= 0.05:
        return f"No sign that it is too lenient or too strict: {told}."
    return f"The judge is too {'lenient' if passed > failed else 'strict'}: {told}."


def _uncorrectable(document: Mapping[str, Any]) -> str:
    tpr, fpr, raw = document["tpr"], document["fpr"], document["judging"]
    if not raw["scored"]:
        return "The judging scored no answer, so there is no pass rate to correct."
    lacking = [word for word, rate in (("right", tpr), ("wrong", fpr)) if not rate["scored"]]
    if lacking:
        return f"No labelled answer is {lacking[0]}, so the pass rate cannot be corrected: label more."
    return (
        f"The judge passes {percent(tpr, 'pass_rate')} of right answers and {percent(fpr, 'pass_rate')} of wrong ones: "
        "it hardly tells them apart, so its pass rate means little and cannot be corrected."
    )


def _needed(estimate: Mapping[str, float], within: float, labels: int | None, n: int) -> str:
    half = 50 * (estimate["high"] - estimate["low"])
    if half <= within:
        return f"That is within {half:.1f} points either way, which these {n:,} labels are enough for."
    if labels is None:
        return f"That is within {half:.1f} points; within {within:g} would take more answers in the judging, not labels alone."
    return f"That is within {half:.1f} points either way; within {within:g} would take about {labels:,} labels in all."


def _of_canaries(canaries: Mapping[str, Any] | None, refused: bool) -> list[str]:
    """Whether the canaries tell the truth about this judge."""
    if canaries is None:
        return []
    lines, told = [], 0
    for name, what in (("tpr", "right"), ("fpr", "wrong")):
        rates = canaries[name]
        if rates["difference"] is None:
            continue
        told += 1
        if rates["differs"]:
            better = (rates["difference"]["value"] < 0) == (name == "tpr")
            lines.append(
                f"Of {what} answers it passes {percent(rates['people'], 'pass_rate')} by the labels, "
                f"{percent(rates['canaries'], 'pass_rate')} by the canaries: these make the judge look "
                f"{'better' if better else 'worse'} than it is."
            )
    if lines and refused:
        return lines
    if lines:
        return [*lines, "Believe the pass rate corrected by people rather than the one corrected by canaries."]
    return ["The canaries' rates do not differ visibly from those among labels."] if told == 2 else []
