"""One question, its reference and one answer, read once; and what of the reference the answer is asked for.

Guarantees: what is needed never depends on the answer. Cost: reading three texts and the passage, about 1 ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from foundation.facts import FIGURES, Fact, Kind, Read, core, facts_of, known_names, read, same, same_kind
from judge import choices

if TYPE_CHECKING:
    from foundation.records import EvalItem

# Up to 12 words a reference is the fact itself, so all of it must be there.
SHORT = 12
# A longer reference tells more than was asked: a good retelling keeps most of its facts, a lucky one a few.
SHARE = 0.6
# An opening sentence of up to 6 words ("Takeichi Nishi.") is the answer, and what follows explains it.
OPENING = 6
# A correction has a point or two; one of more than three facts retells the passage.
POINTS = 3

_STANCE = re.compile(r"\W*(yes|no|true|false)\b\s*(?:[.,;:!-]|$)", re.IGNORECASE)
_DATE: frozenset[Kind] = frozenset({"year", "month", "day"})
_ASKS: tuple[tuple[re.Pattern[str], frozenset[Kind]], ...] = (
    (re.compile(r"\bhow (?:many|much|long|far|old|large|big|tall|deep)\b"), frozenset({"number", "year"})),
    (re.compile(r"\b(?:what|which) year\b"), frozenset({"year"})),
    (re.compile(r"\b(?:when|(?:what|which) (?:date|day|month))\b"), _DATE),
    (re.compile(r"\b(?:who|whom|whose|where|(?:what|which) (?:person|man|woman)|name of)\b"), frozenset({"name"})),
)


@dataclass(frozen=True)
class Need:
    """The facts that are asked for, and the share of them that must be there."""

    facts: tuple[Fact, ...]
    share: float


@dataclass(frozen=True)
class Case:
    """One answer with all that it is held against."""

    item: EvalItem
    text: str

    @cached_property
    def question(self) -> Read:
        return read(self.item.question)

    @cached_property
    def reference(self) -> Read:
        return read(choices.without_label(self.item.reference))

    @cached_property
    def answer(self) -> Read:
        return read(choices.without_label(self.text))

    @cached_property
    def around(self) -> Read:
        """The passage and its title: what an answer may draw on."""
        return read(f"{self.item.title}.\n{self.item.snippet}")

    @cached_property
    def known(self) -> frozenset[str]:
        known = known_names(self.around, self.question, self.reference)
        first = self.reference.tokens[:1]
        if "name" not in self.asked or not first or not first[0].capital or first[0].kind != "word":
            return known
        # "Who led it?" "Tanner led it." opens with a name, unless that word stands somewhere in lower case
        common = {
            token.form
            for text in (self.around, self.question, self.reference)
            for token in text.tokens
            if not token.capital
        }
        return known if first[0].form in common else known | {first[0].form}

    @cached_property
    def size(self) -> int:
        """Words of the reference."""
        return len(self.item.reference.split())

    @cached_property
    def stance(self) -> str:
        """`yes`, `no`, or empty: how the reference begins."""
        found = _STANCE.match(self.item.reference)
        return "" if found is None else "yes" if found[1].lower() in ("yes", "true") else "no"

    @cached_property
    def options(self) -> choices.Options | None:
        if self.stance:
            return None
        return choices.find(self.item.question, self.reference, self.known, label=choices.label_of(self.item.reference))

    @cached_property
    def facts(self) -> list[Fact]:
        """The reference's facts; those it denies ("not Ryti") only if it states no other."""
        facts = facts_of(self.reference, self.known)
        return [fact for fact in facts if not fact.denied] or facts

    @cached_property
    def novel(self) -> list[Fact]:
        """Those that the question does not give away."""
        return [fact for fact in self.facts if not anywhere(self.question, fact)]

    @cached_property
    def asked(self) -> frozenset[Kind]:
        """The kinds of fact that the question asks for; empty where it does not say."""
        question = self.question.text.lower()
        return next((kinds for pattern, kinds in _ASKS if pattern.search(question)), frozenset())

    @cached_property
    def need(self) -> Need:
        if self.options is not None:
            return Need(self.options.facts, 1.0)
        if self.stance == "yes":
            return Need(tuple(self.facts), SHARE)  # the statement stands in the question: there is nothing new to say
        if self.stance == "no":
            return Need(tuple(self.novel or self.facts), 1.0 if len(self.novel) <= POINTS else SHARE)
        for part in self._parts():
            wanted = [fact for fact in facts_of(part, self.known) if fact in self.novel and fact.kind in self.asked]
            if wanted:
                # The day may be left out, year and month may not.
                coarse = [fact for fact in wanted if fact.kind != "day"]
                return Need(tuple(wanted if self.size <= SHORT else coarse or wanted), 1.0)
        return Need(tuple(self.novel or self.facts), 1.0 if self.size <= SHORT else SHARE)

    def _parts(self) -> Iterator[Read]:
        """The reference clause by clause: the first that has what is asked for says it, later ones add to it."""
        tokens, start = self.reference.tokens, 0
        for at in range(1, len(tokens)):
            gap = self.reference.gap(at)
            comma = "," in gap and not tokens[at].capital and tokens[at].kind not in FIGURES
            if tokens[at].first or ";" in gap or comma:
                yield Read(self.reference.text, tokens[start:at])
                start = at
        yield Read(self.reference.text, tokens[start:])

    @cached_property
    def opening(self) -> Read | None:
        """The reference's first sentence, where that is the answer and the rest explains it."""
        tokens = self.reference.tokens
        end = next((at for at in range(1, len(tokens)) if tokens[at].first), len(tokens))
        return Read(self.reference.text, tokens[:end]) if end <= OPENING and end < len(tokens) else None


def anywhere(source: Read, fact: Fact) -> bool:
    """Whether a text holds the fact, stated or denied."""
    if fact.kind in FIGURES:
        return any(token.form == fact.forms[0] and same_kind(token, fact) for token in source.tokens)
    return all(any(same(form, token.form, name=True) for token in source.tokens) for form in core(fact))
