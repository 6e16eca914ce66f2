"""One unit through the line: snippets -> requests -> teacher -> gates -> records and rejects.

Guarantees: every item yields at least one record or exactly one reject, never both, and is handed out once, however
often the teacher replies; both records of a pair pass or neither; nothing is written here. A unit to which the teacher
gave nothing but errors raises `Failure` instead of being counted as rejected: it is worth another try.
Cost: about 0.1 ms an item besides the gates; the requests of one unit are in memory at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from foundation.errors import FactoryError, Failure
from foundation.ids import seed_of, stable_id
from foundation.prompt_type import PromptType
from foundation.records import ChatReply, GateResult, Record, Reject, Snippet, SplitPolicy, Unit, item_id
from generator.gates import Gates
from generator.gates.cjk import check_cjk
from generator.render import chat_request, render_records, shows_source
from generator.teachers.base import Teacher, TeacherRequest

PHASE = "ask"
NAMED = 5  # items whose errors are told when all failed


class AllErrors(Failure):
    """The teacher gave nothing but errors to a unit. `items` are some of them: item id, and the error."""

    items: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item: `records`, or one of `rejects`."""

    item: str
    records: tuple[Record, ...] = ()
    rejects: tuple[Reject, ...] = ()


@dataclass
class _Run:
    """What the outcomes of one unit share."""

    prompt_type: PromptType
    unit: Unit
    policy: SplitPolicy
    attempt: str
    gates: Gates
    teacher: str
    requests: dict[str, TeacherRequest] = field(default_factory=dict)

    def shared(self, item: str, reply: ChatReply) -> dict[str, Any]:
        """The provenance that records and rejects have in common."""
        snippet = self.requests[item].snippet
        return {
            "item": item,
            "unit": self.unit.id,
            "prompt_type": self.prompt_type.id,
            "fingerprint": self.unit.fingerprint,
            "family": self.prompt_type.family,
            "split": self.policy.split(snippet.article_id, snippet.id, self.prompt_type.id),
            "snippet_id": snippet.id,
            "article_id": snippet.article_id,
            "teacher": self.teacher,
            "usage": reply.usage,
            "round": self.unit.round,
            "attempt": self.attempt,
            "phase": PHASE,
        }

    def outcome(self, reply: ChatReply) -> Outcome:
        """Judge one reply and make it records or a reject."""
        item = reply.id
        snippet = self.requests[item].snippet
        result, fields = self.gates.check_reply(self.prompt_type, reply)
        if result.ok:
            result = check_cjk(snippet.title, "title")  # it stands in the record whether a turn shows it or not
        if result.ok and shows_source(self.prompt_type):
            result = self.gates.check_source(snippet)
        rendered = render_records(self.prompt_type, snippet, fields, item) if result.ok else []
        for number, message in enumerate(message for one in rendered for message in one.messages):
            if not message.content:
                result = GateResult.reject("render", f"message {number + 1} of the record is empty")
        shared = self.shared(item, reply)
        if not result.ok:
            id_ = stable_id("reject", item, PHASE, self.attempt)
            reject = Reject(
                id=id_, gate=result.gate, reason=result.reason, field=result.field, text=reply.text, **shared
            )
            return Outcome(item, rejects=(reject,))
        seed = self.requests[item].chat.seed
        paired = len(rendered) > 1
        records = tuple(
            Record(
                id=Record.make_id(item, PHASE, one.ordering if paired else ""),
                messages=one.messages,
                supervised=tuple(index for index, message in enumerate(one.messages) if message.role == "assistant"),
                title=snippet.title,
                source=snippet.source,
                license=snippet.license,
                sampling=self.prompt_type.sampling,
                seed=seed,
                ordering=one.ordering,
                pair_id=item if paired else "",
                **shared,
            )
            for one in rendered
        )
        return Outcome(item, records=records)


async def _replies(teacher: Teacher, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
    """The teacher's replies; whatever it raises becomes a `Failure` of the unit."""
    try:
        async for reply in teacher.complete(requests):
            yield reply
    except FactoryError:
        raise
    except Exception as error:
        what = f"the teacher failed: {type(error).__name__}: {error}"
        raise Failure(what, where=teacher.name, mend="see its log; then run the same command again") from error


async def produce(
    teacher: Teacher,
    prompt_type: PromptType,
    snippets: Sequence[Snippet],
    *,
    unit: Unit,
    policy: SplitPolicy,
    attempt: str,
    gates: Gates,
) -> AsyncIterator[Outcome]:
    """The outcome of each item of `unit`, as the teacher's replies come; `snippets` are the unit's own, in order.

    Raises `Failure` when the teacher cannot be reached, or answers every item with an error.
    """
    run = _Run(prompt_type, unit, policy, attempt, gates, teacher.name)
    for snippet in snippets:
        item = item_id(snippet.id, unit.fingerprint, unit.round)
        chat = chat_request(prompt_type, snippet, item, seed_of(item))
        run.requests[item] = TeacherRequest(chat, prompt_type, snippet, unit.round)
    waiting = set(run.requests)
    errors: list[ChatReply] = []  # held back until one reply shows that the teacher works
    works = False
    async for reply in _replies(teacher, tuple(run.requests.values())):
        if reply.id not in waiting:
            continue  # a second reply, or one nobody asked for
        waiting.remove(reply.id)
        works = works or reply.finish != "error"
        if works:
            yield run.outcome(reply)
        else:
            errors.append(reply)
    errors += [
        ChatReply(id=item, text="", finish="error", detail="no reply came") for item in run.requests if item in waiting
    ]
    if errors and not works:
        failure = AllErrors(
            f"the teacher answered all {len(errors)} items of a unit with errors; the first: {errors[0].detail or 'no reason given'}",
            where=f"{teacher.name}, unit {unit.id} ({prompt_type.id})",
            mend="see that the teacher is up and takes these requests, then run the same command again",
        )
        failure.items = tuple((reply.id, reply.detail) for reply in errors[:NAMED])
        raise failure
    for reply in errors:
        yield run.outcome(reply)
