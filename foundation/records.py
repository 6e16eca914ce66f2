"""The contracts: every file and message that passes between two rooms is one of these.

Guarantees: closed (an unknown key is an error), frozen, versioned (`v`); ids are hashes of what the design says they
are, computed in one place, here. Cost: pydantic validation, about 5 to 15 µs a record.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from foundation.ids import keyed_fraction, stable_id

Split = Literal["train", "phrasing", "unseen"]
Role = Literal["system", "user", "assistant"]


class Contract(BaseModel):
    """Closed and frozen; `v` is the version of the contract, not of the content."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Article(Contract):
    """One document of the corpus. `source` is a stable name of the collection, never a path or a date."""

    v: Literal[1] = 1
    id: str
    title: str
    text: str
    source: str
    url: str = ""
    license: str = ""

    @staticmethod
    def make_id(source: str, title: str) -> str:
        return stable_id("article", source, title)


class Snippet(Contract):
    """At most 8 consecutive sentences of one article. `index` is the window's position in its article."""

    v: Literal[1] = 1
    id: str
    article_id: str
    title: str
    source: str
    license: str = ""
    index: int
    sentences: tuple[str, ...]
    text: str

    @staticmethod
    def make_id(text: str) -> str:
        return stable_id("snippet", text)


class Sampling(Contract):
    """How the teacher samples; part of a prompt type's fingerprint."""

    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1, le=32768)


class Message(Contract):
    role: Role
    content: str


class Usage(Contract):
    """What one teacher call cost. `seconds` is wall time from sending to the last token."""

    prompt_tokens: int = Field(default=0, ge=0, lt=1 << 53)
    completion_tokens: int = Field(default=0, ge=0, lt=1 << 53)
    seconds: float = 0.0


class Unit(Contract):
    """What one lease hands out: ids only. Snippets `start:stop` of `block` × prompt type fingerprint × round."""

    v: Literal[1] = 1
    id: str
    block: str
    start: int
    stop: int
    prompt_type: str
    fingerprint: str
    round: int = 0
    partners: str = ""
    """The set of partner snippets that was chosen when this was planned; empty for a type that has none."""

    @staticmethod
    def make_id(block: str, start: int, stop: int, fingerprint: str, round_: int) -> str:
        return stable_id("unit", block, start, stop, fingerprint, round_)

    @property
    def shard(self) -> str:
        """The one name under which this unit can be committed."""
        return f"shards/{self.prompt_type}/{self.id}.jsonl"

    def rejects(self, attempt: str) -> str:
        """The name of the rejects that one attempt wrote before its commit."""
        return f"rejects/{self.prompt_type}/{self.id}.{attempt}.jsonl"


def item_id(snippet_id: str, fingerprint: str, round_: int, sample: int = 0) -> str:
    """Identity of the thing that is counted: snippet × prompt type fingerprint × round × sample."""
    return stable_id("item", snippet_id, fingerprint, round_, sample)


class SplitPolicy(Contract):
    """Which records are held out; fixed for a workspace when its first unit is planned."""

    v: Literal[1] = 1
    key: str
    unseen: float = Field(ge=0, lt=1)
    phrasing: float = Field(ge=0, lt=1)

    def split(self, article_id: str, snippet_id: str, prompt_type: str) -> Split:
        """Whole articles are `unseen`; of the others a share of snippet × prompt type pairs is `phrasing`."""
        if self.is_unseen(article_id):
            return "unseen"
        if keyed_fraction(self.key, "phrasing", snippet_id, prompt_type) < self.phrasing:
            return "phrasing"
        return "train"

    def is_unseen(self, article_id: str) -> bool:
        """Whether a whole article is held out."""
        return _unseen(self.key, article_id) < self.unseen


@functools.lru_cache(maxsize=4096)
def _unseen(key: str, article_id: str) -> float:
    return keyed_fraction(key, "unseen", article_id)


class Record(Contract):
    """One training example with its full provenance. `supervised` indexes the messages that are trained on."""

    v: Literal[1] = 1
    id: str
    item: str
    unit: str
    prompt_type: str
    fingerprint: str
    family: str
    split: Split
    messages: tuple[Message, ...]
    supervised: tuple[int, ...]
    snippet_id: str
    article_id: str
    title: str
    source: str
    license: str = ""
    teacher: str
    sampling: Sampling
    seed: int
    usage: Usage
    round: int
    attempt: str
    phase: str = "ask"
    ordering: str = ""
    pair_id: str = ""
    right_at: int = 0
    """Where the teacher itself had put the right option, counted from 1; 0 without options."""
    partner_id: str = ""
    partner_article_id: str = ""

    @staticmethod
    def make_id(item: str, phase: str, ordering: str) -> str:
        """Never of the output: a second run of one item yields the same ids."""
        return stable_id("record", item, phase, ordering)


class Reject(Contract):
    """One output that a gate refused, kept and counted. `text` is the raw output, `field` the field it failed in.

    `gate` and `code` are stable names to count by; `reason` is for people.
    """

    v: Literal[1] = 1
    id: str
    item: str
    unit: str
    prompt_type: str
    fingerprint: str
    family: str
    split: Split
    snippet_id: str
    article_id: str
    teacher: str
    usage: Usage
    round: int
    attempt: str
    phase: str = "ask"
    gate: str
    code: str = ""
    reason: str
    field: str = ""
    text: str
    partner_id: str = ""
    partner_article_id: str = ""


class GateResult(Contract):
    """What a gate says of one text."""

    ok: bool
    gate: str = ""
    code: str = ""
    reason: str = ""
    field: str = ""

    @classmethod
    def accept(cls) -> GateResult:
        return _ACCEPT

    @classmethod
    def reject(cls, gate: str, code: str, reason: str, field: str = "") -> GateResult:
        """`gate` and `code` are stable names to count by; `reason` is for people."""
        return cls(ok=False, gate=gate, code=code, reason=reason, field=field)


_ACCEPT = GateResult(ok=True)


class EvalItem(Contract):
    """One held-out question: everything a judge may look at."""

    v: Literal[1] = 1
    id: str
    record_id: str
    split: Split
    prompt_type: str
    family: str
    article_id: str
    title: str
    snippet: str
    question: str
    reference: str
    siblings: tuple[str, ...] = ()
    """Answers of other records on the same snippet: what a judge's canaries draw on. No grader is shown them."""


class Answer(Contract):
    """A student's answer to one `EvalItem`. `stopped`: `end` (it wrote `<|im_end|>`) or `length`."""

    v: Literal[1] = 1
    item: EvalItem
    text: str
    stopped: Literal["end", "length"]
    tokens: int
    checkpoint: str


class Verdict(Contract):
    """A judge's word on one answer. `fingerprint` is of everything that could change it."""

    v: Literal[1] = 1
    item_id: str
    verdict: Literal["PASS", "FAIL", "UNSCORED"]
    reason: str = ""
    explanation: str = ""
    grader: str
    fingerprint: str
    votes: tuple[Literal["PASS", "FAIL", "UNSCORED"], ...] = ()
    """Where it was judged more than once, for the flip rate: what was said each time, `verdict` first."""


class ChatRequest(Contract):
    """One call to a teacher or a grader. `schema_` asks for structured output."""

    id: str
    messages: tuple[Message, ...]
    schema_: dict[str, Any] | None = None
    sampling: Sampling
    seed: int


class ChatReply(Contract):
    """What came back for one request. `finish`: stop, length, declined (the teacher cannot do this one) or error."""

    id: str
    text: str
    finish: Literal["stop", "length", "declined", "error"]
    usage: Usage = Usage()
    detail: str = ""
    kept: bool = False
    """Whether it came in an earlier run: then it tells nothing of how the teacher is now."""


def messages_of(pairs: Sequence[tuple[Role, str]]) -> tuple[Message, ...]:
    """Messages from (role, content) pairs."""
    return tuple(Message(role=role, content=content) for role, content in pairs)
