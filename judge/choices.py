"""Questions that offer their answers: "A) … B) …" in lines of their own, or "…, this or that?".

Guarantees: options are found in the question's text alone; which one is right is read from the reference, and where that
cannot be told there are no options. Cost: about 50 µs. Misses: options that only differ in function words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from foundation.facts import Fact, Read, facts_of, holds, plain, read, same

_LINE = re.compile(r"^\s*\(?([A-F])[).:]\s+(.+?)\s*$", re.MULTILINE)
_LABEL = re.compile(
    r"^\W*(?:(?:the )?(?:(?:correct|right|best) )?(?:answer|option|choice)(?: is)?:?\s+)?\(?([A-F])(?:\)|[.:,](?=\s|$)|\s*$)",
    re.IGNORECASE,
)
_PAIR = re.compile(r"(?:^|[,:;?]\s+)([^,:;?\n]+?),? or ([^?;\n]+?)\s*[?.]?\s*$")
_FIXED = re.compile(r"\b(?:true or false|yes or no|right or wrong)\b", re.IGNORECASE)
_OPENS = re.compile(
    r"(?:did|do|does|was|were|is|are|had|has|have|who|which|what|where|when|would|could|can|should)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Options:
    """`marks[i]`: the forms only option i has. `labels` is empty for "this or that?". `within[i]`: whether all that option i
    says stands in another one ("31 days" in "fewer than 31 days"), so that naming that one names it too."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]
    marks: tuple[tuple[Fact, ...], ...]
    within: tuple[bool, ...]
    right: int

    @property
    def facts(self) -> tuple[Fact, ...]:
        return self.marks[self.right]

    def position(self, answer: Read, at: int) -> int:
        """Where an answer first names a mark of option `at`."""
        forms = [form for fact in self.marks[at] for form in fact.forms]
        return next((index for index, token in enumerate(answer.tokens) if token.form in forms), len(answer.tokens))

    def states(self, answer: Read, at: int) -> bool:
        """Whether an answer names option `at`: everything that sets it apart, and not as something denied."""
        return bool(self.marks[at]) and all(holds(answer.tokens, fact) for fact in self.marks[at])


def label_of(text: str) -> str:
    """The letter that an answer begins with, or empty. "A general" has none; "A) a general" has."""
    first_line = plain(text).strip().partition("\n")[0]
    found = _LABEL.match(first_line)
    return found[1].upper() if found and (found[1].isupper() or len(first_line.strip(" ().")) == 1) else ""


def without_label(text: str) -> str:
    """`text`, without accents, and without the letter that it begins with."""
    bare = plain(text).strip()
    found = _LABEL.match(bare)
    return bare[found.end() :] if found and label_of(bare) else bare


def find(question: str, reference: Read, known: frozenset[str], label: str) -> Options | None:
    """The options of `question`; None if it has none, or if `reference` (labelled `label`) chooses none of them."""
    texts, labels = texts_of(question)
    if not texts:
        return None
    options = [read(text) for text in texts]
    others = [[other for other in options if other is not option] for option in options]
    marks = tuple(_marks(option, rest, known) for option, rest in zip(options, others, strict=True))
    within = tuple(
        any(all(holds(other.tokens, fact) for fact in own) for other in rest)
        for own, rest in zip(marks, others, strict=True)
    )
    found = Options(texts, labels, marks, within, right=0)
    if label in labels:
        return replace(found, right=labels.index(label))
    stated = [at for at in range(len(texts)) if found.states(reference, at)]
    return replace(found, right=min(stated, key=lambda at: found.position(reference, at))) if stated else None


def texts_of(question: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The options' texts, and their letters where they have some."""
    lines = _LINE.findall(question)
    if len(lines) >= 2:
        return tuple(text for _, text in lines), tuple(label for label, _ in lines)
    pair = _PAIR.search(_FIXED.sub("", question).strip())
    if pair is None:
        return (), ()
    left, right = pair[1].split(), pair[2].split()
    if _OPENS.match(pair[1]):  # "Did the fleet or the army attack?": only the words next to "or" are options
        size = min(len(left), len(right))
        same_size = left[-size:], right[:size]
        # "fewer than 31 days or 31 days": what tells them apart stands before
        left, right = (left[-size - 2 :], right) if same_size[0] == same_size[1] else same_size
    return (" ".join(left), " ".join(right)), ()


def _marks(option: Read, others: Sequence[Read], known: frozenset[str]) -> tuple[Fact, ...]:
    """What sets this option apart: its own facts; where it has none of its own, all of them with its own words."""
    facts = facts_of(option, known)
    own = [fact for fact in facts if not any(holds(other.tokens, fact) for other in others)]
    if own:
        return tuple(own)
    taken = [token.form for other in others for token in other.tokens]
    plain_words = [token for token in option.tokens if token.kind != "function"]
    apart = [token for token in plain_words if not any(same(token.form, form) for form in taken)]
    if facts and not apart:  # "fewer than 31 days or 31 days": small words alone tell them from each other
        apart = [token for token in option.tokens if token.form not in taken]
    shown = {form for fact in facts for form in fact.forms}
    words = [token for token in (apart if facts else apart or plain_words) if token.form not in shown]
    return (*facts, *(Fact("word", (token.form,), token.raw) for token in words))


def offered(question: str, word: str) -> bool:
    """Whether `word` is part of an option of `question`."""
    return any(word.lower() in text.lower() for text in texts_of(question)[0])
