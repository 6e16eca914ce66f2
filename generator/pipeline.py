"""One unit through the line: snippets -> calls to the teacher, phase by phase -> gates -> records and rejects.

Guarantees: every item is handed out once, with at least one record or one reject, however often the teacher replies; both
records of a pair pass or neither; what was rejected in an early phase is not asked about again; nothing is written here.
A unit to which the teacher gave nothing but errors raises `Failure` instead of being counted as rejected: it is worth another try.
Cost: about 0.1 ms an item besides the gates; the calls of one phase are in memory at once. A phase begins when the one
before has ended for the whole unit; other workers' units fill the teacher meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from foundation.errors import FactoryError, Failure
from foundation.ids import seed_of, stable_id
from foundation.prompt_type import ASK, Phase, PromptType
from foundation.records import ChatReply, GateResult, Record, Reject, Snippet, SplitPolicy, Unit, Usage, item_id
from generator.gates.chain import Call, Gates
from generator.gates.duplicate import Duplicates
from generator.gates.fields import plain_words
from generator.gates.grounded import Grounds
from generator.render import Rendered, Source, chat_request, render_records, supervised
from generator.teachers.base import Teacher, TeacherRequest

_NOTHING = Usage()
NAMED = 5  # items whose errors are told when all failed


class AllErrors(Failure):
    """The teacher gave nothing but errors to a unit. `items` are some of them: item id, and the error."""

    items: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item. One that was asked about several times may have `records` and `rejects`; it is accepted then."""

    item: str
    records: tuple[Record, ...] = ()
    rejects: tuple[Reject, ...] = ()


@dataclass
class _Item:
    """One item on its way: the fields so far, and what their calls cost; `waiting` for so many calls of the last phase."""

    id: str
    source: Source
    values: dict[str, Any] = field(default_factory=dict)
    spent: Usage = _NOTHING
    waiting: int = 0
    records: list[Record] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        return Outcome(self.id, tuple(self.records), tuple(self.rejects))

    def take_spent(self) -> Usage:
        """What the calls before cost, once."""
        spent, self.spent = self.spent, _NOTHING
        return spent


@dataclass(frozen=True, slots=True)
class _Asked:
    """One call: `phase` is the name its records and rejects bear, `call` what its reply is judged against."""

    item: _Item
    phase: str
    call: Call
    request: TeacherRequest


@dataclass
class _Run:
    """What the items of one unit share."""

    prompt_type: PromptType
    unit: Unit
    policy: SplitPolicy
    attempt: str
    gates: Gates
    teacher: Teacher
    grounds: ArticleGrounds
    heard: Callable[[], object]
    works: bool = False
    """Whether the teacher gave any reply that is no error."""
    recalls: bool = False
    """Whether it gave some in an earlier run."""
    errors: list[tuple[_Asked, ChatReply]] = field(default_factory=list)
    duplicates: Duplicates = field(default_factory=Duplicates)
    used: set[str] = field(default_factory=set)
    """Entries of `each` that were asked about in this unit."""

    def ask(self, item: _Item, phase: Phase, name: str, values: dict[str, Any]) -> _Asked:
        """One call to the teacher. `name` tells calls of one phase apart."""
        id_, seed = (item.id, seed_of(item.id)) if name == ASK else (f"{item.id}:{name}", seed_of(item.id, name))
        chat = chat_request(self.prompt_type, item.source, id_, seed, phase=phase.name, values=values)
        request = TeacherRequest(chat, self.prompt_type, item.source, self.unit.round, phase.name, values)
        return _Asked(
            item, name, Call(self.prompt_type, phase, item.source, self.grounds(item.source), values), request
        )

    async def replies(self, calls: Sequence[_Asked]) -> AsyncIterator[tuple[_Asked, ChatReply]]:
        """One reply to each call, as they come. Errors are held back until one reply shows that the teacher works."""
        waiting = {asked.request.chat.id: asked for asked in calls}
        async for reply in _stream(self.teacher, tuple(asked.request for asked in calls)):
            asked = waiting.pop(reply.id, None)
            if asked is None:
                continue  # a second reply, or one nobody asked for
            if reply.kept:
                self.recalls = True
                yield asked, reply
                continue
            self.works = self.works or reply.finish != "error"
            if self.works:
                self.heard()
                yield asked, reply
            else:
                self.errors.append((asked, reply))
        for id_, asked in waiting.items():
            self.errors.append((asked, ChatReply(id=id_, text="", finish="error", detail="no reply came")))
        # The last few of a unit may be what the teacher never can: it gave the others, in an earlier run.
        if self.errors and not self.works and not (self.recalls and len(self.errors) <= NAMED):
            raise self._all_errors()
        for asked, reply in self.errors:
            yield asked, reply
        self.errors.clear()

    def _all_errors(self) -> AllErrors:
        first = self.errors[0][1]
        failure = AllErrors(
            f"the teacher answered all {len(self.errors)} items of a unit with errors; the first: {first.detail or 'no reason given'}",
            where=f"{self.teacher.name}, unit {self.unit.id} ({self.prompt_type.id})",
            mend="see that the teacher is up and takes these requests, then run the same command again",
        )
        failure.items = tuple((asked.item.id, reply.detail) for asked, reply in self.errors[:NAMED])
        return failure

    def judge(self, asked: _Asked, reply: ChatReply) -> tuple[GateResult, dict[str, Any]]:
        """The gates' word on a reply; a reject is put down."""
        result, fields = self.gates.check_reply(asked.call, reply)
        if not result.ok:
            self.reject(asked.item, asked.phase, result, reply.text, reply.usage)
        return result, fields

    def reject(self, item: _Item, phase: str, result: GateResult, text: str = "", usage: Usage | None = None) -> None:
        """Put down one reject of an item."""
        spent = _sum(item.take_spent(), usage) if usage else _NOTHING
        item.rejects.append(
            Reject(
                id=stable_id("reject", item.id, phase, self.attempt),
                gate=result.gate,
                code=result.code,
                reason=result.reason,
                field=result.field,
                text=text,
                **self._shared(item, phase, spent),
            )
        )

    def finish(self, asked: _Asked, reply: ChatReply) -> None:
        """Judge a reply of the last phase, and make it records or a reject."""
        result, fields = self.judge(asked, reply)
        if not result.ok:
            return
        values = {**asked.request.values, **fields}
        rendered = render_records(self.prompt_type, asked.item.source, values, asked.request.chat.id)
        result = self._check_rendered(rendered)
        if not result.ok:
            self.reject(asked.item, asked.phase, result, reply.text, reply.usage)
            return
        self._accept(asked, reply, rendered, values)

    def _check_rendered(self, rendered: list[Rendered]) -> GateResult:
        for number, message in enumerate(message for one in rendered for message in one.messages):
            if not message.content:
                return GateResult.reject("render", "empty", f"message {number + 1} of the record is empty")
        return self.duplicates.check("\n".join(one.content for one in rendered[0].messages if one.role == "user"))

    def _accept(self, asked: _Asked, reply: ChatReply, rendered: list[Rendered], values: dict[str, Any]) -> None:
        item, options = asked.item, self.prompt_type.options
        shared = self._shared(item, asked.phase, _sum(item.take_spent(), reply.usage))
        source, paired = item.source, len(rendered) > 1
        item.records += (
            Record(
                id=Record.make_id(item.id, asked.phase, one.ordering if paired else ""),
                messages=one.messages,
                supervised=supervised(self.prompt_type),
                title=source.snippet.title,
                source=source.snippet.source,
                license=source.snippet.license,
                sampling=self.prompt_type.sampling,
                seed=asked.request.chat.seed,
                ordering=one.ordering,
                pair_id=Record.make_id(item.id, asked.phase, "") if paired else "",
                right_at=options.right_index(values) + 1 if options and options.right else 0,
                **shared,
            )
            for one in rendered
        )

    def _shared(self, item: _Item, phase: str, usage: Usage) -> dict[str, Any]:
        """The provenance that records and rejects have in common."""
        snippet, partner = item.source.snippet, item.source.partner
        # A pair of snippets is held out as a pair, whichever of the two is asked about.
        what = "+".join(sorted((snippet.id, partner.id))) if partner else snippet.id
        return {
            "item": item.id,
            "unit": self.unit.id,
            "prompt_type": self.prompt_type.id,
            "fingerprint": self.unit.fingerprint,
            "family": self.prompt_type.family,
            "split": self.policy.split(snippet.article_id, what, self.prompt_type.id),
            "snippet_id": snippet.id,
            "article_id": snippet.article_id,
            "teacher": self.teacher.name,
            "usage": usage,
            "round": self.unit.round,
            "attempt": self.attempt,
            "phase": phase,
            "partner_id": partner.id if partner else "",
            "partner_article_id": partner.article_id if partner else "",
        }

    def last_calls(self, item: _Item) -> Iterator[_Asked]:
        """The calls of the last phase for one item: one, or with `each` one an entry that stands in the text and is new."""
        phase, each = self.prompt_type.chain[-1], self.prompt_type.each
        if not each:
            yield self.ask(item, phase, ASK, item.values)
            return
        source = plain_words(item.source.snippet.text)
        before = self.prompt_type.phases[-1].name
        for number, entry in enumerate(item.values[each], 1):
            words = plain_words(entry)
            if not words.strip() or words not in source:
                result = GateResult.reject("features", "not-in-text", f"not in the passage: {entry!r}", each)
            elif words in self.used:
                result = GateResult.reject("features", "asked-already", f"asked about in this unit: {entry!r}", each)
            else:
                self.used.add(words)
                yield self.ask(item, phase, f"{ASK}.{number}", {**item.values, "each": entry.strip()})
                continue
            self.reject(item, f"{before}.{number}", result, entry)
        if not item.values[each]:
            self.reject(item, before, GateResult.reject("features", "none", "the passage has none", each))


def _sum(one: Usage, other: Usage) -> Usage:
    if one is _NOTHING:
        return other
    return Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        seconds=one.seconds + other.seconds,
    )


async def _stream(teacher: Teacher, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
    """The teacher's replies; whatever it raises becomes a `Failure` of the unit."""
    if not requests:
        return
    try:
        async for reply in teacher.complete(requests):
            yield reply
    except FactoryError:
        raise
    except Exception as error:
        what = f"the teacher failed: {type(error).__name__}: {error}"
        raise Failure(what, where=teacher.name, mend="see its log; then run the same command again") from error


class ArticleGrounds:
    """What an answer may name: what stands in the snippet's article, as far as `snippets` hold it, and in the partner.

    Cost: joining an article's sentences, once; what they hold is read when an answer asks for it (see gates/grounds.py).
    """

    def __init__(self, snippets: Iterable[Snippet]) -> None:
        self._sentences: dict[str, dict[str, None]] = {}
        for snippet in snippets:
            self._sentences.setdefault(snippet.article_id, {}).update(dict.fromkeys(snippet.sentences))
        self._articles: dict[str, Grounds] = {}

    def __call__(self, source: Source) -> Grounds:
        snippet, partner = source.snippet, source.partner
        article = self._sentences.get(snippet.article_id, ())
        if partner:
            beside = self._sentences.get(partner.article_id, ())
            own = Grounds.of(snippet.text, snippet.title, article, source.entity)
            return Grounds.joined((own, Grounds.of(partner.text, partner.title, beside)))
        found = self._articles.get(snippet.article_id)
        if found is None:
            found = self._articles[snippet.article_id] = Grounds.of(snippet.text, snippet.title, article)
        return found


async def produce(
    teacher: Teacher,
    prompt_type: PromptType,
    sources: Sequence[Source],
    *,
    unit: Unit,
    policy: SplitPolicy,
    attempt: str,
    gates: Gates,
    around: Sequence[Snippet] = (),
    heard: Callable[[], object] = lambda: None,
) -> AsyncIterator[Outcome]:
    """The outcome of each item of `unit`, as the teacher's replies come; `sources` are the unit's own, in order.

    `around` are more snippets of the same articles: an answer may name what stands in them too. `heard` is called at each
    reply: an outcome may need many, and the first of a chain comes after the last reply of every phase but one.
    Raises `Failure` when the teacher cannot be reached, or answers every item with an error.
    """
    grounds = ArticleGrounds((*(source.snippet for source in sources), *around))
    run = _Run(prompt_type, unit, policy, attempt, gates, teacher, grounds, heard)
    items: list[_Item] = []
    for source in sources:
        item = _Item(item_id(source.snippet.id, unit.fingerprint, unit.round), source)
        result = _check_source(run, source)
        if result.ok:
            items.append(item)
        else:
            run.reject(item, "source", result)
            yield item.outcome
    for phase in prompt_type.phases:
        passed: set[str] = set()
        async for asked, reply in run.replies([run.ask(item, phase, phase.name, item.values) for item in items]):
            result, fields = run.judge(asked, reply)
            if result.ok:
                asked.item.values |= fields
                asked.item.spent = _sum(asked.item.spent, reply.usage)
                passed.add(asked.item.id)
            else:
                yield asked.item.outcome
        items = [item for item in items if item.id in passed]  # in the unit's order, whatever that of the replies
    calls: list[_Asked] = []
    for item in items:
        found = list(run.last_calls(item))
        item.waiting = len(found)
        calls += found
        if not found:
            _charge(item)
            yield item.outcome
    async for asked, reply in run.replies(calls):
        run.finish(asked, reply)
        asked.item.waiting -= 1
        if not asked.item.waiting:
            yield asked.item.outcome


def _check_source(run: _Run, source: Source) -> GateResult:
    if run.prompt_type.partner and source.partner is None:
        return GateResult.reject("partner", "none", "no other passage fits beside this one")
    return run.gates.check_source(run.prompt_type, source)


def _charge(item: _Item) -> None:
    """Put what the calls before cost on the first reject of an item that is asked no further."""
    item.rejects[0] = item.rejects[0].model_copy(update={"usage": item.take_spent()})
