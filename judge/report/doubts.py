"""When not to believe a score: three to six plain sentences that follow from its figures.

Guarantees: pure; the gravest come first, and each names the figure it stands on. Cost: none. Misses: what no figure
shows, such as a reference that is wrong itself; the last sentences say that much.
"""

from __future__ import annotations

from typing import Any

from foundation.splits import split_name
from judge.report.collect import Judging
from judge.report.words import interval, many, percent, spoken

FEWEST, MOST = 3, 6
ARTICLES = 20  # fewer than that, and one article more or less moves the rate
WIDE = 0.10  # of an interval
LENIENT = 0.05  # of answers known to be wrong that pass
STRICT = 0.90  # of answers known to be right that pass
CHANGES = 0.05  # of the answers that were judged again
ENDED = 0.90  # of the answers that came to an end


def doubts(judging: Judging) -> list[str]:
    """What stands against the score of one judging, or bounds it."""
    summary = judging.summary
    said = [
        *_refused(judging),
        *_unscored(judging),
        *_baseline(judging),
        *_canaries(summary),
        *_interval(judging),
        *_mixed(judging),
        *_flips(summary),
        *_ends(judging.headline),
    ]
    if len(said) < MOST and str(summary["grader"]["name"]) == "rules":
        said.append(
            "The rules grader compares figures, names and words; it does not understand. A right answer in unforeseen words can fail, and a wrong one that names the right things can pass."
        )
    always = (
        "Every answer is held against a reference that a teacher wrote. Where the teacher erred, the judge errs with it: read some rows below.",
        "The questions come from this corpus and its prompt types. The rate says nothing of other subjects, or of longer talk.",
        "A pass means that the answer says what was asked and nothing that the passage contradicts, not that it is well written.",
    )
    return [*said, *always[: max(1, FEWEST - len(said))]][:MOST]


def _refused(judging: Judging) -> list[str]:
    if not judging.refused:
        return []
    return [
        "The grader misjudged answers of known worth, so its PASS and FAIL cannot be told from noise: do not count the rows below into a rate of your own."
    ]


def _unscored(judging: Judging) -> list[str]:
    counts, main = judging.summary["counts"], judging.headline
    total, left = sum(counts.values()), counts["UNSCORED"]
    if not left:
        return []
    text = f"{many(left, 'answer')} of {total:,} ({percent(left / total)}) could not be scored."
    counts = main["counts"]
    total, left = sum(counts.values()), counts["UNSCORED"]
    if main.get("pass_rate") is None or not left:
        return [text]
    if judging.measure:
        text += f" Of {split_name(judging.measure)}: {left:,} of {total:,}."
    return [
        f"{text} Had the student got all of them wrong, the rate would be {percent(counts['PASS'] / total)}; all of them right, {percent((counts['PASS'] + left) / total)}."
    ]


def _baseline(judging: Judging) -> list[str]:
    main, clear = judging.headline, judging.clearly_above
    if main.get("pass_rate") is None or clear:
        return []
    baseline = main.get("baseline")
    if clear is None or not baseline:
        return ["No shuffled answers were judged, so it is not known what luck alone would pass."]
    return [
        f"The rate is not clearly above luck: the same answers, each given to another question, pass {percent(baseline['pass_rate'])} ({interval(baseline['low'], baseline['high'])})."
    ]


def _canaries(summary: dict[str, Any]) -> list[str]:
    canaries = summary.get("canaries") or {}
    classes = canaries.get("classes") or {}
    if not classes:
        return ["No canaries were judged: nothing shows that the grader can tell right from wrong here."]
    said = []
    tpr, fpr = canaries.get("tpr") or {}, canaries.get("fpr") or {}
    if (fpr.get("pass_rate") or 0) > LENIENT:
        better = " Trust the corrected rate more than the plain one." if summary.get("corrected") else ""
        said.append(
            f"The grader is lenient: of {many(fpr['scored'], 'answer')} known to be wrong {percent(fpr['pass_rate'])} pass.{better}"
        )
    if tpr.get("pass_rate") is not None and tpr["pass_rate"] < STRICT:
        said.append(
            f"The grader is strict: of {many(tpr['scored'], 'answer')} known to be right only {percent(tpr['pass_rate'])} pass. It fails some of the student's right answers, too."
        )
    blind = [spoken(kind) for kind, one in classes.items() if one.get("floor") is None]
    if len(blind) == len(classes):
        said.append("The grader does not claim to judge any kind of answer rightly; look at its canaries below.")
    elif blind:
        said.append(f"The grader does not claim to judge these, so they may slip through: {', '.join(blind)}.")
    unproven = [spoken(kind) for kind, one in classes.items() if one.get("floor") is not None and one.get("ok") is None]
    if unproven:
        said.append(f"Too few canaries to prove the grader on: {', '.join(unproven)}.")
    return said


def _interval(judging: Judging) -> list[str]:
    summary, main, said = judging.summary, judging.headline, list[str]()
    if main.get("pass_rate") is None:
        return []
    articles = judging.articles_of(judging.measure)
    if articles < ARTICLES:
        text = f"The questions come from {many(articles, 'article')}; other articles could give another rate."
        clustered = main.get("clustered")
        if clustered:
            text += f" Drawing whole articles anew gives {interval(clustered['low'], clustered['high'])}."
        said.append(text)
    else:
        few = [(split_name(split), judging.articles_of(split)) for split in summary.get("by_split") or {}]
        told = [f"{count:,} behind “{name}”" for name, count in few if count < ARTICLES]
        if told:
            said.append(f"Few articles stand behind a figure: {', '.join(told)}. Other articles could give another.")
    if main["low"] is not None and main["high"] - main["low"] > WIDE:
        said.append(
            f"{many(main['scored'], 'scored answer')} leave the rate anywhere in {interval(main['low'], main['high'])}: a smaller difference between two students shows nothing."
        )
    return said


def _mixed(judging: Judging) -> list[str]:
    summary = judging.summary
    splits = summary.get("by_split") or {}
    if judging.measure or summary.get("pass_rate") is None or "train" not in splits or len(splits) < 2:
        return []
    return [
        "The rate over all answers includes phrasings the student was trained on. What it learned is told by held-out phrasing and unseen article."
    ]


def _flips(summary: dict[str, Any]) -> list[str]:
    flips = summary.get("flips") or {}
    if not flips.get("repeated") or (flips.get("rate") or 0) <= CHANGES:
        return []
    return [
        f"Asked again, the grader changed its word on {flips['flipped']:,} of {many(flips['repeated'], 'answer')} ({percent(flips['rate'])})."
    ]


def _ends(summary: dict[str, Any]) -> list[str]:
    rate = summary.get("stop_rate")
    if rate is None or rate >= ENDED:
        return []
    return [
        f"Only {percent(rate)} of the answers came to an end of themselves; the others were cut off, and may fail for that."
    ]
