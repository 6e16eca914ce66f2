"""One run of the judge: answers in, verdicts and a summary out.

Guarantees: verdicts stand in the order of the answers, one each; all files are put in place whole, the summary last; every
verdict a grader gives is kept in the workspace's cache at once, so a killed run goes on where it was and a finished one is
not paid for twice, nor is an answer that came before, nor the next round's canaries. What the engine failed to say is asked
for again. All that a run asks goes to the grader as one stream, with one start of its engine: the answers, two more votes
on a tenth of them, other questions' answers (the baseline), and the canaries.
Cost: around the grader 0.2 ms of CPU for each thing judged, of which there are two and a half to an answer; half of it
goes into the canaries (0.13 s a run, however many answers) and the rules that come before the grader.
Misses: an answer that a rule settles is not judged again for the flip rate: it cannot flip.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.console import progress
from foundation.errors import Failure, UsageError
from foundation.ids import keyed_fraction, stable_id
from foundation.records import Answer, Contract, Verdict
from foundation.store import LocalStore
from judge import canaries, stats
from judge.cache import Cache, cache_files, known, open_cache
from judge.files import Files, read_answers
from judge.outcome import Grader, Outcome
from judge.precheck import precheck
from judge.summary import summarise

if TYPE_CHECKING:
    from foundation.workspace import Workspace

SHUFFLE_SEED = 1
VOTES = 3
REPEATED = 0.1  # share of the answers that are judged `VOTES` times
ENGINE = "engine"  # the reason of what was never judged: not kept, so asked for again


@dataclass(frozen=True)
class Plan:
    """All that a run judges. Verdicts go by fingerprint: equal ones are made once.

    `prints`: the fingerprints of each part, row by row; of `votes`, those of the second and third only.
    `ruled`: what needs no grader. `requests`: the rest, those on one question side by side, as a prefix cache likes them.
    """

    grader: Grader
    answers: list[Answer]
    sha: str
    shuffled: list[Answer]
    canaries: list[canaries.Canary]
    prints: dict[str, list[str]] = field(default_factory=dict)
    repeats: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ruled: dict[str, Verdict] = field(default_factory=dict)
    requests: dict[str, tuple[Answer, int]] = field(default_factory=dict)

    def count(self, kept: dict[str, Verdict]) -> dict[str, dict[str, int]]:
        """Of each part: its rows, and how many of them are settled by a rule, kept, and to be asked. Doubles count once."""
        seen: set[str] = set()
        found = {}
        for part, prints in self.prints.items():
            fresh = set(prints) - seen
            seen |= fresh
            ruled = sum(name in self.ruled for name in fresh)
            cached = sum(name in kept for name in fresh)
            found[part] = {"rows": len(prints), "ruled": ruled, "kept": cached, "ask": len(fresh) - ruled - cached}
        return found


def judge(path: Path, out: Path, grader: Grader, workspace: Workspace, *, baseline: bool = True) -> dict[str, Any]:
    """Judge the answers of `path`, write `out` and its fellows, and return the summary.

    The folder of `out` exists. Raises `UsageError` for a bad file, `Failure` if another judge writes the same file, or if the grader, the cache or
    the disk cannot be had.
    """
    began = time.perf_counter()
    plan, files = make_plan(path, out, grader, workspace, baseline=baseline), Files(out)
    with _locked(files.lock):
        with open_cache(workspace.train) as cache:
            kept = cache.find(plan.requests)
            found = {**plan.ruled, **kept}
            fresh = _settle(plan, found, cache)
        verdicts = [_with_votes(plan, found, name) for name in plan.prints["answers"]]
        others = [found[name] for name in plan.prints["baseline"]]
        judged = [
            canaries.Judged(kind=one.kind, expected=one.expected, answer=one.answer, verdict=found[name])
            for one, name in zip(plan.canaries, plan.prints["canaries"], strict=True)
        ]
        lost = [row.verdict for row in judged if row.verdict.reason == ENGINE]
        summary = {
            **summarise(plan.answers, verdicts, others, canaries.assess(judged, grader.floors), lost),
            "grader": {"name": grader.name, "about": grader.about},
            "fingerprint": grader.identity,
            "answers": {"file": str(path), "sha256": plan.sha, "rows": len(plan.answers)},
            "graded": fresh,
            "reused": len(kept),
            "seconds": round(time.perf_counter() - began, 2),
        }
        _finish(files, verdicts, others, judged, summary)
    return summary


def preview(path: Path, out: Path, grader: Grader, workspace: Workspace, *, baseline: bool = True) -> dict[str, Any]:
    """What `judge` would do: `parts` as `Plan.count` has them, and `ask`, their sum. Nothing is started or written."""
    plan = make_plan(path, out, grader, workspace, baseline=baseline)
    parts = plan.count(known(workspace.train, plan.requests))
    return {"dry_run": True, "grader": grader.name, "parts": parts, "ask": sum(part["ask"] for part in parts.values())}


def make_plan(path: Path, out: Path, grader: Grader, workspace: Workspace, *, baseline: bool) -> Plan:
    """Read the answers and make what is judged beside them. Raises `UsageError` for a bad file."""
    answers, sha = read_answers(path)
    files = Files(out)
    written = {file.resolve() for file in (out, files.shuffled, files.canaries, files.summary, files.lock)}
    if path.resolve() in written:
        raise UsageError("--out names the file of answers", where=str(out), mend="name another file")
    if not written.isdisjoint(cache_files(workspace.train)):
        raise UsageError("--out names the cache of verdicts", where=str(out), mend="name another file")
    if out.is_dir():
        raise UsageError("--out names a folder", where=str(out), mend="name a file in it")
    shuffled = shuffle(answers) if baseline else []
    made = canaries.make(answers, workspace.settings.judge.canaries)
    plan = Plan(grader, answers, sha, shuffled, made)
    _fill(plan)
    return plan


def _fill(plan: Plan) -> None:
    """Name all that is judged, and let the rules settle what they can."""
    grader, items = plan.grader, dict[int, str]()
    asked: list[tuple[str, Answer, int]] = []

    def name_of(answer: Answer, vote: int = 0) -> str:
        """The fingerprint, of all that can change a verdict: the grader, the item, the text, the vote."""
        item = items.get(id(answer.item))
        if item is None:
            item = items[id(answer.item)] = stable_id(answer.item.model_dump_json(exclude={"siblings"}))
        name = stable_id("verdict", grader.name, grader.identity, item, answer.text, vote)
        if name not in plan.ruled and name not in plan.requests:
            outcome = None if vote else precheck(answer)  # what a rule settles has one vote
            if outcome:
                plan.ruled[name] = _verdict(grader, answer, outcome, name)
            else:
                plan.requests[name] = (answer, vote)
                asked.append((name, answer, vote))
        return name

    prints = plan.prints
    prints["answers"] = [name_of(answer) for answer in plan.answers]
    for answer, name in zip(plan.answers, prints["answers"], strict=True):
        if name in plan.requests and keyed_fraction("judge/votes", answer.item.id) < REPEATED:
            plan.repeats[name] = tuple(name_of(answer, vote) for vote in range(1, VOTES))
    prints["votes"] = [name for names in plan.repeats.values() for name in names]
    prints["baseline"] = [name_of(answer) for answer in plan.shuffled]
    prints["canaries"] = [name_of(one.answer) for one in plan.canaries]
    rank = {answer.item.id: row for row, answer in reversed(list(enumerate(plan.answers)))}
    asked.sort(key=lambda entry: rank.get(entry[1].item.id, len(rank)))
    plan.requests.clear()
    plan.requests.update({name: (answer, vote) for name, answer, vote in asked})


def shuffle(answers: Sequence[Answer]) -> list[Answer]:
    """Each question with the answer to another one: of another article, the same split and prompt type, where that can be."""
    partners = stats.derangement(
        [answer.item.article_id for answer in answers],
        [f"{answer.item.split} {answer.item.prompt_type}" for answer in answers],
        SHUFFLE_SEED,
    )
    if partners is None:
        return []
    return [
        answers[other].model_copy(update={"item": answer.item}) for answer, other in zip(answers, partners, strict=True)
    ]


def _verdict(grader: Grader, answer: Answer, outcome: Outcome, fingerprint: str) -> Verdict:
    return Verdict(
        item_id=answer.item.id,
        verdict=outcome.verdict,
        reason=outcome.reason,
        explanation=outcome.explanation,
        grader=grader.name,
        fingerprint=fingerprint,
    )


def _with_votes(plan: Plan, found: dict[str, Verdict], name: str) -> Verdict:
    """The verdict that counts, which is the first, with what the others said."""
    verdict, more = found[name], plan.repeats.get(name)
    if not more:
        return verdict
    return verdict.model_copy(update={"votes": tuple(found[one].verdict for one in (name, *more))})


def _settle(plan: Plan, found: dict[str, Verdict], cache: Cache) -> int:
    """Ask the grader for every verdict that `found` lacks; returns how many those were."""
    grader = plan.grader
    left = {name: request for name, request in plan.requests.items() if name not in found}
    names, requests = list(left), list(left.values())

    async def grade() -> None:
        async for at, outcome in grader.grade(requests):
            name = names[at]
            found[name] = _verdict(grader, requests[at][0], outcome, name)
            if outcome.reason != ENGINE:
                cache.put(found[name])
            bar.advance()

    with progress("judge", len(left)) as bar:
        if left:
            with grader.ready():
                asyncio.run(grade())
    return len(left)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the output for this process. What a killed one left is taken over; afterwards the file is gone."""
    while True:
        with open(path, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "its pid is not known"
                raise Failure(
                    f"another judge writes the same file ({holder})",
                    where=str(path.with_suffix("")),
                    mend="wait for it, or end it",
                ) from error
            if os.fstat(file.fileno()).st_nlink == 0:
                continue  # whoever held it has removed it just now
            try:
                file.truncate(0)
                file.write(f"pid {os.getpid()}")
                file.flush()
                yield
            finally:
                path.unlink(missing_ok=True)  # while it is held: nobody can hold another file of that name yet
            return


def _finish(
    files: Files,
    verdicts: Sequence[Verdict],
    others: Sequence[Verdict],
    judged: Sequence[canaries.Judged],
    summary: dict[str, Any],
) -> None:
    """Put all files in place, the summary last: where it is whole, so is the rest."""
    store = LocalStore(files.out.parent)
    files.summary.unlink(missing_ok=True)
    parts: tuple[tuple[Path, Sequence[Contract]], ...] = ((files.shuffled, others), (files.canaries, judged))
    for path, rows in parts:
        if rows:
            store.put(path.name, _jsonl(rows))
        else:
            path.unlink(missing_ok=True)
    store.put(files.out.name, _jsonl(verdicts))
    store.put(files.summary.name, (json.dumps(summary, ensure_ascii=False, indent=1) + "\n").encode())


def _jsonl(rows: Sequence[Contract]) -> bytes:
    return b"".join(row.model_dump_json().encode() + b"\n" for row in rows)
