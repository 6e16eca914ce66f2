"""What the page is made of: for each judging its summary, its answers with their verdicts, and its canaries.

Guarantees: figures and rows belong together. The answers are those the summary names (by SHA-256), the verdicts stand in
their order, and their counts are the summary's; whatever does not fit is a `UsageError` with file and mend. Nothing is
written. Cost: reading four files, about 60 µs an answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from foundation.errors import UsageError
from foundation.records import Answer, EvalItem, Verdict
from judge import stats
from judge.canaries import Judged
from judge.files import Files, read_answers, read_summary, read_verdicts
from judge.report.words import many
from judge.summary import measure

VERSION = 2  # of the summaries this reads
SUMMARY = ".summary.json"
AGAIN = "run `judge run` again: it writes all of its files anew, and what is judged already costs nothing"


@dataclass(frozen=True)
class Row:
    """One answer and what was said of it; `luck`: and of another's answer to its question, where that was asked."""

    answer: Answer
    verdict: Verdict
    luck: Verdict | None = None


@dataclass(frozen=True)
class Canary:
    """One answer of known worth, and what was said of it."""

    kind: str
    expected: str
    row: Row

    @property
    def missed(self) -> bool:
        """Whether the grader judged it wrongly. An unscored one it did not judge at all."""
        return self.row.verdict.verdict not in (self.expected, "UNSCORED")


@dataclass
class Judging:
    """One run of the judge. `label` is what tells it from the others on the page."""

    path: Path
    summary: dict[str, Any]
    rows: list[Row]
    answers: Path
    when: datetime
    canaries: list[Canary] | None = None
    """None where no file has them."""
    label: str = ""

    @property
    def refused(self) -> bool:
        return bool(self.summary.get("refused"))

    @property
    def valid(self) -> bool:
        return bool(self.summary.get("valid")) and not self.refused

    @property
    def measure(self) -> str:
        """The split that the headline is of: held-out phrasings, where several were judged; empty where it is of all."""
        return measure(self.summary.get("by_split") or {})

    @property
    def headline(self) -> dict[str, Any]:
        """The figures of that split, or of all."""
        found: dict[str, Any] = self.summary["by_split"][self.measure] if self.measure else self.summary
        return found

    @property
    def measured(self) -> list[Row]:
        """The rows that the headline is of."""
        return [row for row in self.rows if self.measure in ("", row.answer.item.split)]

    @property
    def clearly_above(self) -> bool | None:
        """Whether the headline lies clearly above that of shuffled answers; None where either is missing."""
        rates = [figures for figures in (self.headline, self.headline.get("baseline")) if figures]
        if len(rates) < 2 or any(figures.get("pass_rate") is None for figures in rates):
            return None
        return stats.clearly_above(*(stats.rate(int(figures["passed"]), int(figures["scored"])) for figures in rates))

    def grouped(self, key: Callable[[EvalItem], str]) -> dict[str, dict[str, Any]]:
        """Figures of the measured rows by what `key` says, with the keys of a summary's. Of a refused score only counts."""
        groups: dict[str, list[Row]] = defaultdict(list)
        for row in self.measured:
            groups[key(row.answer.item)].append(row)
        found = {}
        for name, rows in sorted(groups.items()):
            found[name] = _figures([row.verdict for row in rows], self.refused)
            luck = [row.luck for row in rows if row.luck is not None]
            if luck and not self.refused:
                found[name]["baseline"] = _figures(luck, refused=False)
        return found

    @property
    def files(self) -> list[Path]:
        """All that `judge run` wrote for it."""
        files = Files(self.path)
        return [files.out, files.summary, files.shuffled, files.canaries]

    @property
    def checkpoint(self) -> str:
        return ", ".join(self.summary.get("checkpoints", ()))

    def articles_of(self, split: str = "") -> int:
        """How many articles the questions come from, of all or of one split."""
        items = [row.answer.item for row in self.rows]
        return len({item.article_id for item in items if split in ("", item.split)})


def collect(paths: Sequence[Path], answers: Sequence[Path] = ()) -> list[Judging]:
    """The judgings of these files of verdicts, in that order. `answers` are looked through first, whatever the summaries say."""
    found = [load(path, answers) for path in paths]
    for judging, label in zip(found, labels(found), strict=True):
        judging.label = label
    return found


def newest(root: Path, train: Path) -> Path:
    """The verdicts judged last of a workspace: those whose summary is the newest. Raises `UsageError` if there are none."""
    old = False
    summaries = {*root.glob(f"*{SUMMARY}"), *train.rglob(f"*{SUMMARY}")}
    for path in sorted(summaries, key=lambda one: (-one.stat().st_mtime_ns, str(one))):
        verdicts = path.with_name(path.name.removesuffix(SUMMARY))
        if verdicts.is_file():
            if read_summary(verdicts).get("v") == VERSION:
                return verdicts
            old = True
    what = "the judgings of this workspace are of an older version" if old else "nothing is judged in this workspace"
    raise UsageError(what, where=str(root), mend="run `judge run` again" if old else "run `judge run`, or name a file")


def load(path: Path, answers: Sequence[Path] = ()) -> Judging:
    """One judging, checked. Raises `UsageError` for files that are missing, changed, or of another version."""
    if path.name.endswith(SUMMARY):
        raise UsageError(
            "this is the summary of a judging",
            where=str(path),
            mend=f"name the verdicts, not their summary: {path.with_name(path.name.removesuffix(SUMMARY))}",
        )
    verdicts = read_verdicts(path)
    summary = read_summary(path)
    place = Files(path).summary
    if summary.get("v") != VERSION:
        raise UsageError(
            f"this summary is of version {summary.get('v')}, and this needs version {VERSION}",
            where=str(place),
            mend="run `judge run` again",
        )
    try:
        source, said = _answers(path, dict(summary["answers"]), answers)
        counts = {name: int(summary["counts"][name]) for name in ("PASS", "FAIL", "UNSCORED")}
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"this summary lacks what it should have: {error}", where=str(place), mend=AGAIN) from error
    _check(path, said, verdicts, counts)
    luck: Sequence[Verdict | None] = _luck(Files(path).shuffled, said) or [None] * len(said)
    rows = [Row(*row) for row in zip(said, verdicts, luck, strict=True)]
    return Judging(
        path=path,
        summary=summary,
        rows=rows,
        answers=source,
        when=datetime.fromtimestamp(place.stat().st_mtime, UTC),
        canaries=_canaries(Files(path).canaries),
    )


def _figures(verdicts: Sequence[Verdict], refused: bool) -> dict[str, Any]:
    said = [verdict.verdict for verdict in verdicts]
    passed, failed = said.count("PASS"), said.count("FAIL")
    counts = {"PASS": passed, "FAIL": failed, "UNSCORED": said.count("UNSCORED")}
    rate = stats.rate(0, 0) if refused else stats.rate(passed, passed + failed)
    return {"counts": counts, **stats.as_json(rate)}


def labels(judgings: Sequence[Judging]) -> list[str]:
    """Short names that differ: by checkpoint, else by grader too, else by file, else by number."""
    ways = (
        [one.checkpoint or one.path.name for one in judgings],
        [f"{one.checkpoint}, {one.summary['grader']['name']}" for one in judgings],
        [str(one.path) for one in judgings],
    )
    for names in ways:
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {name}" for number, name in enumerate(ways[-1], 1)]


def _answers(path: Path, named: dict[str, Any], more: Sequence[Path]) -> tuple[Path, list[Answer]]:
    """The file of answers that was judged: one of `more`, where the summary says, or beside the verdicts."""
    place = Path(str(named["file"]))
    tried = [one for one in dict.fromkeys((*more, place, path.parent / place.name)) if one.is_file()]
    for one in tried:
        found, sha = read_answers(one)
        if sha == named["sha256"]:
            return one, found
    if tried:
        raise UsageError(
            "the file of answers is not the one that was judged: it has changed since",
            where=str(tried[0]),
            mend=f"judge it again with `judge run --answers {tried[0]} --out {path}`, or name a copy of what was judged: --answers FILE",
        )
    raise UsageError(
        "the answers that were judged are gone", where=str(place), mend="name where they are now: --answers FILE"
    )


def _check(path: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], counts: dict[str, int]) -> None:
    """The verdicts are on these answers, and the summary is of these verdicts."""
    if len(verdicts) != len(answers):
        raise UsageError(
            f"{many(len(verdicts), 'verdict')} on {many(len(answers), 'answer')} do not fit",
            where=str(path),
            mend=AGAIN,
        )
    for line, (answer, verdict) in enumerate(zip(answers, verdicts, strict=True), 1):
        if answer.item.id != verdict.item_id:
            raise UsageError("this verdict is on another answer", where=f"{path}:{line}", mend=AGAIN)
    said = [verdict.verdict for verdict in verdicts]
    if any(said.count(name) != count for name, count in counts.items()):  # type: ignore[arg-type]
        raise UsageError(
            "the summary beside these verdicts is of other ones: their counts differ",
            where=str(Files(path).summary),
            mend=AGAIN,
        )


def _luck(path: Path, answers: Sequence[Answer]) -> list[Verdict] | None:
    """The verdicts on shuffled answers, in the order of the answers; None where no file has them."""
    if not path.is_file():
        return None
    found = read_verdicts(path)
    if found and [verdict.item_id for verdict in found] != [answer.item.id for answer in answers]:
        raise UsageError("these verdicts on shuffled answers are of other answers", where=str(path), mend=AGAIN)
    return found or None


def _canaries(path: Path) -> list[Canary] | None:
    if not path.is_file():
        return None
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            one = Judged.model_validate_json(line)
        except ValidationError as error:
            raise UsageError("this line is no judged canary", where=f"{path}:{number}", mend=AGAIN) from error
        found.append(Canary(one.kind, one.expected, Row(one.answer, one.verdict)))
    return found
