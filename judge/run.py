"""One run of the judge: answers in, verdicts and a summary out.

Guarantees: verdicts stand in the order of the answers, one each; all three files are put in place whole, the summary
last; a killed run goes on from its `.partial` file, a finished one is not paid for twice; an unscored answer counts
neither as right nor as wrong. Cost: one fsync every 32 verdicts.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from foundation.console import progress
from foundation.errors import Failure, UsageError
from foundation.ids import stable_id
from foundation.records import Answer, Contract, Verdict
from foundation.store import LocalStore
from judge import stats
from judge.files import Files, read_answers
from judge.outcome import Grader, Outcome
from judge.precheck import precheck

SYNC_ROWS, SYNC_SECONDS = 32, 5.0
SHUFFLE_SEED = 1


def judge(path: Path, out: Path, grader: Grader, *, baseline: bool = True) -> dict[str, Any]:
    """Judge the answers of `path`, write `out` and its fellows, and return the summary.

    Raises `UsageError` for a bad file, `Failure` if another judge writes the same file or the grader cannot be had.
    """
    answers, sha = read_answers(path)
    if out.resolve() == path.resolve():
        raise UsageError("--out names the file of answers", where=str(out), mend="name another file")
    files, began = Files(out), time.perf_counter()
    out.parent.mkdir(parents=True, exist_ok=True)
    shuffled = shuffle(answers) if baseline else []
    with _locked(files.partial) as partial:
        known = _known(files)
        fresh = _settle([*answers, *shuffled], grader, known, partial)
        verdicts = [known[_fingerprint(grader, answer)] for answer in answers]
        others = [known[_fingerprint(grader, answer)] for answer in shuffled]
        summary = {
            **summarise(answers, verdicts, others),
            "grader": {"name": grader.name, "about": grader.about},
            "fingerprint": grader.identity,
            "answers": {"file": str(path), "sha256": sha, "rows": len(answers)},
            "graded": fresh,
            "reused": len({verdict.fingerprint for verdict in [*verdicts, *others]}) - fresh,
            "seconds": round(time.perf_counter() - began, 2),
        }
        _finish(files, verdicts, others, summary)
    return summary


def shuffle(answers: Sequence[Answer]) -> list[Answer]:
    """Each question with the answer to another one, of another article and the same prompt type wherever that can be."""
    partners = stats.derangement(
        [answer.item.article_id for answer in answers], [answer.item.prompt_type for answer in answers], SHUFFLE_SEED
    )
    if partners is None:
        return []
    return [
        answers[other].model_copy(update={"item": answer.item}) for answer, other in zip(answers, partners, strict=True)
    ]


def summarise(answers: Sequence[Answer], verdicts: Sequence[Verdict], shuffled: Sequence[Verdict]) -> dict[str, Any]:
    """Counts, pass rates with their intervals, and the same for the shuffled answers. Unscored ones are left out."""
    real, other = _rate(verdicts), _rate(shuffled)
    gap = stats.difference(real, other)
    families = sorted({answer.item.family for answer in answers})
    splits = sorted({answer.item.split for answer in answers})

    def of(field: str, value: str) -> dict[str, Any]:
        chosen = [getattr(answer.item, field) == value for answer in answers]
        rows = [verdict for verdict, take in zip(verdicts, chosen, strict=True) if take]
        mixed = [verdict for verdict, take in zip(shuffled, chosen, strict=True) if take] if shuffled else []
        return {**_figures(rows), "baseline": _figures(mixed) if shuffled else None}

    return {
        "v": 1,
        **_figures(verdicts),
        "baseline": _figures(shuffled) if shuffled else None,
        "above_baseline": asdict(gap) if gap else None,
        "clearly_above_baseline": stats.clearly_above(real, other),
        "by_family": {family: of("family", family) for family in families},
        "by_split": {split: of("split", split) for split in splits},
        "stop_rate": round(sum(answer.stopped == "end" for answer in answers) / len(answers), 6),
        "checkpoints": sorted({answer.checkpoint for answer in answers}),
    }


def _rate(verdicts: Sequence[Verdict]) -> stats.Rate:
    passed = sum(verdict.verdict == "PASS" for verdict in verdicts)
    return stats.rate(passed, passed + sum(verdict.verdict == "FAIL" for verdict in verdicts))


def _figures(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    counts = Counter(verdict.verdict for verdict in verdicts)
    return {
        "counts": {name: counts[name] for name in ("PASS", "FAIL", "UNSCORED")},
        **stats.as_json(_rate(verdicts)),
        "reasons": {
            name: dict(Counter(verdict.reason for verdict in verdicts if verdict.verdict == name).most_common())
            for name in ("FAIL", "UNSCORED")
        },
    }


def _fingerprint(grader: Grader, answer: Answer) -> str:
    """Of all that can change a verdict: the grader, the whole item, the answer's text."""
    return stable_id(
        "verdict", grader.name, grader.identity, answer.item.model_dump_json(exclude={"siblings"}), answer.text
    )


def _verdict(grader: Grader, answer: Answer, outcome: Outcome, fingerprint: str) -> Verdict:
    return Verdict(
        item_id=answer.item.id,
        verdict=outcome.verdict,
        reason=outcome.reason,
        explanation=outcome.explanation,
        grader=grader.name,
        fingerprint=fingerprint,
    )


def _settle(answers: Sequence[Answer], grader: Grader, known: dict[str, Verdict], partial: _Partial) -> int:
    """Fill `known` with a verdict on every answer; returns how many had to be made."""
    waiting = {fingerprint: answer for answer in answers if (fingerprint := _fingerprint(grader, answer)) not in known}
    made = len(waiting)
    with progress("judge", made) as bar:

        def keep(fingerprint: str, outcome: Outcome) -> None:
            known[fingerprint] = _verdict(grader, waiting[fingerprint], outcome, fingerprint)
            partial.write(known[fingerprint])
            bar.advance()

        for fingerprint, answer in waiting.items():
            outcome = precheck(answer)
            if outcome:
                keep(fingerprint, outcome)
        left = {fingerprint: answer for fingerprint, answer in waiting.items() if fingerprint not in known}
        if left:
            names = list(left)
            with grader.ready():
                asyncio.run(_grade(grader, list(left.values()), lambda at, outcome: keep(names[at], outcome)))
    return made


async def _grade(grader: Grader, answers: Sequence[Answer], keep: Any) -> None:
    async for at, outcome in grader.grade(answers):
        keep(at, outcome)


class _Partial:
    """Verdicts as they are made, one a line; what a killed run leaves for the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = open(path, "ab")  # noqa: SIM115  # it stays open as long as its lock is held
        self.rows, self.synced = 0, time.monotonic()

    def write(self, verdict: Verdict) -> None:
        self.file.write(verdict.model_dump_json().encode() + b"\n")
        self.file.flush()  # a killed process loses none; a killed machine at most what was not synced
        self.rows += 1
        if self.rows >= SYNC_ROWS or time.monotonic() - self.synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        os.fsync(self.file.fileno())
        self.rows, self.synced = 0, time.monotonic()


@contextmanager
def _locked(path: Path) -> Iterator[_Partial]:
    """The partial file, held by this process alone."""
    partial = _Partial(path)
    try:
        fcntl.flock(partial.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if partial.file.tell() and not path.read_bytes().endswith(b"\n"):
            partial.file.write(b"\n")  # the writer before this one was killed inside a line: close it off
        yield partial
        partial.sync()
    except BlockingIOError as error:
        raise Failure("another judge writes the same file", where=str(path), mend="wait for it, or end it") from error
    finally:
        partial.file.close()


def _known(files: Files) -> dict[str, Verdict]:
    """Verdicts that stand already, by fingerprint. Those the engine failed to give are asked for again."""
    known: dict[str, Verdict] = {}
    for path in (files.out, files.shuffled, files.partial):
        lines = path.read_bytes().splitlines() if path.exists() else []
        for line in lines:
            try:
                verdict = Verdict.model_validate_json(line)
            except ValidationError:
                continue  # a torn line, or a file that is not ours: it will be judged again
            if verdict.reason != "engine":
                known[verdict.fingerprint] = verdict
    return known


def _finish(files: Files, verdicts: Sequence[Verdict], others: Sequence[Verdict], summary: Mapping[str, Any]) -> None:
    """Put all files in place, the summary last: where it is whole, so is the rest."""
    import json

    store = LocalStore(files.out.parent)
    files.summary.unlink(missing_ok=True)
    if others:
        store.put(files.shuffled.name, _jsonl(others))
    else:
        files.shuffled.unlink(missing_ok=True)
    store.put(files.out.name, _jsonl(verdicts))
    store.put(files.summary.name, (json.dumps(summary, ensure_ascii=False, indent=1) + "\n").encode())
    files.partial.unlink(missing_ok=True)


def _jsonl(rows: Sequence[Contract]) -> bytes:
    return b"".join(row.model_dump_json().encode() + b"\n" for row in rows)
