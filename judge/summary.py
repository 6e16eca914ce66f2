"""What a run of the judge comes to: pass rates with their uncertainty, and whether they are to be believed.

Guarantees: an unscored answer counts neither as right nor as wrong, and too many of them make the run invalid; a judge that
fails its canaries gives no pass rate at all, only counts; every reason for either is a sentence in `problems`.
Cost: 10 µs an answer, 20 ms for the bootstraps of a run, and numpy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import count
from typing import TYPE_CHECKING, Any

from foundation.splits import split_name
from judge import stats

if TYPE_CHECKING:
    from foundation.records import Answer, Verdict

MAX_UNSCORED = 0.02
NAMES = ("PASS", "FAIL", "UNSCORED")
# What the reasons for which an answer is unscored mean, and what mends them.
_MENDS = {
    "reference": "`reference`: the reference is empty or says nothing that the question does not; make the answers again "
    "with `trainer answer`, or leave those rows out",
    "parse": "`parse`: the judge gave no verdict that could be read; see its texts in the verdicts, or take another model",
    "length": "`length`: the judge's replies were cut off; give it more room",
    "refusal": "`refusal`: the judge would not say; take another model",
    "engine": "`engine`: the model or its server failed; judge again, and only these are asked again",
}
# What a judge that is not to be believed does not get to say.
_FIGURES = ("pass_rate", "low", "high", "corrected", "clustered")


def summarise(
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    shuffled: Sequence[Verdict],
    canaries: Mapping[str, Any],
    lost: Sequence[Verdict] = (),
) -> dict[str, Any]:
    """The summary, but for what the run itself did. Rows go by their place: verdict i is on answer i, shuffled or not.

    `canaries` is what `canaries.assess` found; `lost` are the canaries' verdicts that the engine failed to give.
    """
    refusals, faults = _below_floor(canaries), _invalid(answers, verdicts, canaries, lost)
    real, other = _rate(verdicts), _rate(shuffled)
    gap = stats.difference(real, other)
    found = {
        "v": 2,
        "valid": not refusals and not faults,
        "refused": bool(refusals),
        "problems": [*refusals, *faults],
        **_full(answers, verdicts, canaries),
        "baseline": _figures(shuffled) if shuffled else None,
        "above_baseline": asdict(gap) if gap else None,
        "clearly_above_baseline": stats.clearly_above(real, other),
        "by_split": {},
        "by_family": {},
        "by_article": {},
        "checkpoints": sorted({answer.checkpoint for answer in answers}),
        "canaries": canaries,
        "flips": _flips(verdicts),
    }
    for name, rows in _grouped(answer.item.split for answer in answers):
        own = _full([answers[row] for row in rows], [verdicts[row] for row in rows], canaries)
        found["by_split"][name] = {**own, "baseline": _baseline(shuffled, rows)}
    # Families and articles of the measure alone: beside trained phrasings they would flatter, beside unseen articles the reverse.
    found["measure"] = measure(found["by_split"])
    chosen = [row for row, answer in enumerate(answers) if found["measure"] in ("", answer.item.split)]
    for name, rows in _grouped((answers[row].item.family for row in chosen), chosen):
        found["by_family"][name] = {
            **_figures([verdicts[row] for row in rows]),
            "baseline": _baseline(shuffled, rows),
        }
    for name, rows in _grouped((answers[row].item.article_id for row in chosen), chosen):
        title = answers[rows[0]].item.title
        found["by_article"][name] = {"title": title, **_figures([verdicts[row] for row in rows])}
    if refusals:
        _refuse(found)
    return found


def measure(splits: Collection[str]) -> str:
    """The split that a judging is told by: held-out phrasings, where several were judged; empty where it is all there is."""
    return "phrasing" if "phrasing" in splits and len(splits) > 1 else ""


def _grouped(keys: Iterable[str], rows: Iterable[int] | None = None) -> list[tuple[str, list[int]]]:
    """Rows by their key, in the order of the keys. `rows`: their numbers; counted from 0 if left out."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row, key in zip(count() if rows is None else rows, keys, strict=False):
        groups[key].append(row)
    return sorted(groups.items())


def _rate(verdicts: Sequence[Verdict]) -> stats.Rate:
    passed = sum(verdict.verdict == "PASS" for verdict in verdicts)
    return stats.rate(passed, passed + sum(verdict.verdict == "FAIL" for verdict in verdicts))


def _figures(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    counts = Counter[str](verdict.verdict for verdict in verdicts)
    return {
        "counts": {name: counts[name] for name in NAMES},
        **stats.as_json(_rate(verdicts)),
        "reasons": {
            name: dict(Counter(verdict.reason for verdict in verdicts if verdict.verdict == name).most_common())
            for name in ("FAIL", "UNSCORED")
        },
    }


def _baseline(shuffled: Sequence[Verdict], rows: Sequence[int]) -> dict[str, Any] | None:
    return _figures([shuffled[row] for row in rows]) if shuffled else None


def _full(answers: Sequence[Answer], verdicts: Sequence[Verdict], canaries: Mapping[str, Any]) -> dict[str, Any]:
    """Figures with all that can be said of their uncertainty, and how many of the answers came to an end."""
    true, false = (stats.rate(canaries[name]["passed"], canaries[name]["scored"]) for name in ("tpr", "fpr"))
    better = stats.corrected(_rate(verdicts), true, false)
    rows = [
        (verdict, answer) for verdict, answer in zip(verdicts, answers, strict=True) if verdict.verdict in NAMES[:2]
    ]
    wider = stats.clustered(
        [verdict.verdict == "PASS" for verdict, _ in rows], [answer.item.article_id for _, answer in rows]
    )
    return {
        **_figures(verdicts),
        "corrected": asdict(better) if better else None,
        "clustered": {"low": wider.low, "high": wider.high} if wider else None,
        "stop_rate": round(sum(answer.stopped == "end" for answer in answers) / len(answers), 6),
    }


def _flips(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """How often judging again said something else, of the answers that were repeated and scored at least twice."""
    repeated = {verdict.fingerprint: verdict.votes for verdict in verdicts if verdict.votes}
    scored = [[vote for vote in votes if vote in NAMES[:2]] for votes in repeated.values()]
    compared = [votes for votes in scored if len(votes) > 1]
    flipped = sum(len(set(votes)) > 1 for votes in compared)
    rate = stats.rate(flipped, len(compared))
    return {"repeated": len(compared), "flipped": flipped, "rate": rate.value, "low": rate.low, "high": rate.high}


def _below_floor(canaries: Mapping[str, Any]) -> list[str]:
    sentences = []
    for kind, found in canaries["classes"].items():
        if found["ok"] is not False:
            continue
        scored = found["n"] - found["unscored"]
        told = f"got {found['right']:,} of {scored:,} right ({found['share']:.1%})" if scored else "could score none"
        if scored and found["share"] >= found["floor"]:
            told = f"could score only {scored:,}, too few to tell"
        sentences.append(
            f"the pass rate is refused: of the canaries “{kind}”, {found['n']:,} answers that must {found['expected']}, "
            f"the judge {told}; its own floor is {found['floor']:.0%}"
        )
    return sentences


def _invalid(
    answers: Sequence[Answer], verdicts: Sequence[Verdict], canaries: Mapping[str, Any], lost: Sequence[Verdict]
) -> list[str]:
    sentences = []
    splits = _grouped(answer.item.split for answer in answers)
    groups = [("answers", verdicts)]
    if len(splits) > 1:  # one of them may be all that is looked at, so each must bear its own figures
        groups += [(f"answers of {split_name(name)}", [verdicts[row] for row in rows]) for name, rows in splits]
    for what, rows in groups:
        unscored = Counter(row.reason for row in rows if row.verdict == "UNSCORED")
        total = unscored.total()
        if total == len(verdicts):
            sentences.append(f"no answer could be scored, so there is no pass rate ({_reasons(unscored)})")
            break
        if total > MAX_UNSCORED * len(rows):
            sentences.append(_too_many(total, len(rows), what, _reasons(unscored)))
    total = sum(found["n"] for found in canaries["classes"].values())
    silent = sum(found["unscored"] for found in canaries["classes"].values())
    if lost:
        sentences.append(
            f"the run is invalid: the engine failed on {len(lost):,} of {total:,} canaries, so the judge was not put to "
            f"the test ({lost[0].explanation})"
        )
    if silent - len(lost) > MAX_UNSCORED * total:
        sentences.append(_too_many(silent - len(lost), total, "canaries", "so the judge was not put to the test"))
    return sentences


def _too_many(unscored: int, total: int, what: str, told: str) -> str:
    return (
        f"the run is invalid: {unscored:,} of {total:,} {what} are unscored "
        f"({unscored / total:.1%}, at most {MAX_UNSCORED:.0%} may be): {told}"
    )


def _reasons(unscored: Counter[str]) -> str:
    """`parse 2, reference 1`, each with what it means and what mends it."""
    counts = ", ".join(f"{name} {count:,}" for name, count in unscored.most_common())
    return "; ".join([counts, *(_MENDS[name] for name, _ in unscored.most_common() if name in _MENDS)])


def _refuse(found: dict[str, Any]) -> None:
    """Take all figures out; what was counted stays."""
    groups = (part for name in ("by_split", "by_family", "by_article") for part in found[name].values())
    for part in (found, *groups):
        for figures in (part, part.get("baseline") or {}):
            figures.update({name: None for name in _FIGURES if name in figures})
    found["above_baseline"], found["clearly_above_baseline"] = None, False
