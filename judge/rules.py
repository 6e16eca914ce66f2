"""The rules grader: normalised fact containment, not a language model.

Guarantees: deterministic, no weights, no network. An answer passes if it states the facts that the reference has and the
question has not (dates, numbers, names; plain words where there are none), and states nothing that stands against
them. Cost: 1 to 10 ms an answer. Misses: synonyms, who did what to whom, and facts told without their names.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from foundation import words
from foundation.facts import FIGURES, Fact, Read, Token, facts_of, holds, same
from foundation.ids import stable_id
from judge import choices
from judge.case import SHARE, SHORT, Case, anywhere
from judge.outcome import Outcome

if TYPE_CHECKING:
    from foundation.records import Answer, EvalItem

# Up to 40 words (one or two sentences) a figure other than the reference's takes its place; in a longer passage it may
# be another, true one, unless it is a year that nothing supports.
SENTENCES = 40
# With fewer facts than this a long reference is compared by its words as well.
FEW = 3
# More than a third of an answer's facts from nowhere is invention, whatever else it holds.
INVENTED = 1 / 3
# An answer of 8 words is a sentence, and must be about what was asked: half of its words, or most of the reference's.
SENTENCE, ABOUT = 8, 0.5

_DENIES = re.compile(
    r"^\W*no\b(?=\s*(?:[.,;:!-]|$))|\b(?:false|incorrect|untrue|wrong|(?:not|n't) (?:true|correct|right))\b"
)
# The whole answer denied by its opening words; with something behind it, it may put right what it denies.
_ALL_DENIED = re.compile(
    r"^\W*(?:it|that) (?:is|was)(?: not|n't) (?:true|correct|right|so|the case)\b(?! only)[^;.]*(?:\.\d[^;.]*)*\W*$"
)
_AFFIRMS = re.compile(r"^\W*yes\b|\b(?:true|correct)\b")


def grade(item: EvalItem, text: str) -> Outcome:
    """Hold one answer against its reference."""
    case = Case(item, text)
    if case.stance and (wrong := _against_stance(case)):
        return wrong
    if _bare(case):
        return Outcome("PASS", "", f"It says {case.stance or choices.label_of(text)}, as the reference does.")
    return _against_options(case) or _against_facts(case) or _off_topic(case) or _contained(case)


def _against_stance(case: Case) -> Outcome | None:
    head = re.sub(r"true or false|yes or no", "", case.answer.text[:120].lower())
    denied, affirmed = _DENIES.search(head), _AFFIRMS.search(head)
    if denied and affirmed and denied.start() <= affirmed.start() < denied.end():
        affirmed = None  # the "true" of "not true"
    said = "" if not (denied or affirmed) else "no"
    if affirmed and (not denied or affirmed.start() < denied.start()):
        said = "yes"
    if said and said != case.stance:
        return Outcome("FAIL", "polarity", f"The reference says {case.stance}, the answer says {said}.")
    if not said and (case.stance == "yes" or not case.novel):  # a right correction says no by itself; nothing else does
        return Outcome("FAIL", "polarity", f"The reference says {case.stance}; the answer says neither yes nor no.")
    return None


def _bare(case: Case) -> bool:
    """Whether the right word or letter stands alone, and is enough: for no, only if nothing had to be put right."""
    if any(token.kind != "function" and token.form not in ("statement", "claim") for token in case.answer.tokens):
        return False
    return _right_letter(case) or case.stance == "yes" or (case.stance == "no" and not case.novel)


def _right_letter(case: Case) -> bool:
    options = case.options
    return bool(options and options.labels and choices.label_of(case.text) == options.labels[options.right])


def _against_options(case: Case) -> Outcome | None:
    """What speaks against an answer to "A or B?", before its facts are looked at."""
    options = case.options
    if options is None:
        return None
    label = choices.label_of(case.text)
    if label and options.labels and not _right_letter(case):
        return Outcome(
            "FAIL", "competing", f"It chooses {label}; the reference chooses {options.labels[options.right]}."
        )
    for at, option in enumerate(options.texts):
        if at == options.right or options.within[at] or not options.states(case.answer, at):
            continue
        # A reference may name the other option too ("X took over from Y"): then the right one must come first.
        first = options.position(case.answer, options.right) < options.position(case.answer, at)
        if not (first and options.states(case.reference, at)):
            return Outcome("FAIL", "competing", f"It names the wrong option: {option}.")
    return None


def _contained(case: Case) -> Outcome:
    """PASS if the share of the needed facts that stand in the answer is large enough."""
    needed = case.need.facts
    if case.opening and (told := [fact for fact in facts_of(case.opening, case.known) if fact in needed]):
        needed = tuple(told)
    found = [fact for fact in needed if holds(case.answer.tokens, fact)]
    missing = [fact for fact in needed if fact not in found]
    shown = _told([fact.shown for fact in found], [fact.shown for fact in missing])
    if len(found) < math.ceil(case.need.share * len(needed) - 1e-9):
        return Outcome("FAIL", "missing", shown)
    share = _word_share(case, needed)
    if share is None:
        return Outcome("PASS", "", shown)
    hits, misses, least = share
    shown = _told([*(fact.shown for fact in found), *hits], [*(fact.shown for fact in missing), *misses])
    if not needed and not hits and not misses:
        return Outcome("UNSCORED", "reference", "The reference holds nothing that the question does not.")
    return Outcome("PASS" if len(hits) >= least else "FAIL", "" if len(hits) >= least else "missing", shown)


def _word_share(case: Case, needed: Sequence[Fact]) -> tuple[list[str], list[str], int] | None:
    """Plain words found and missing, and how many are needed. None where the facts alone decide."""
    if needed and (case.asked & {fact.kind for fact in needed} or len(needed) >= FEW or case.stance or case.options):
        return None
    of_facts = {form for fact in case.facts for form in fact.forms} | words.PARTICLES
    plain = [token for token in case.reference.tokens if token.kind == "word" and token.form not in of_facts]
    given = {token.form for token in case.question.tokens}
    plain = [token for token in plain if not any(same(token.form, form) for form in given)] or ([] if needed else plain)
    by_form = {token.form: token.denied for token in plain}
    hits = [
        form
        for form, denied in by_form.items()
        if any(same(form, token.form) and token.denied == denied for token in case.answer.tokens)
    ]
    # Words have synonyms, facts have not: beside facts half of the words are enough.
    share = 0.5 if needed else 1.0 if case.size <= SHORT else SHARE
    return hits, [form for form in by_form if form not in hits], math.ceil(share * len(by_form) - 1e-9)


def _off_topic(case: Case) -> Outcome | None:
    """A sentence that shares a date or a name with the reference, and is about something else."""
    said = [token for token in case.answer.tokens if token.kind != "function"]
    if case.size > SENTENCES or len(case.answer.tokens) < SENTENCE:
        return None
    wanted = [token for token in case.reference.tokens if token.kind != "function"]
    ground = [*wanted, *(token for token in case.question.tokens if token.kind != "function")]
    about = sum(any(same(token.form, other.form) for other in ground) for token in said)
    kept = sum(any(same(token.form, other.form) for other in said) for token in wanted)
    if about >= ABOUT * len(said) or kept >= SHARE * len(wanted):
        return None
    return Outcome("FAIL", "off-topic", f"Only {about} of its {len(said)} words are about the question.")


def _against_facts(case: Case) -> Outcome | None:
    """What the answer states against the reference, whatever else it holds."""
    stated = [fact for fact in facts_of(case.answer, case.known) if not fact.denied]
    extra = [fact for fact in stated if not _supported(case.reference, fact) and not _given(case, fact)]
    passage = case.size > SENTENCES
    if passage:
        rivals = [fact for fact in extra if fact.kind == "year" and not anywhere(case.around, fact)]
    else:
        rivals = [fact for fact in extra if fact.kind in FIGURES]
    for fact in case.facts:
        other = next((rival for rival in rivals if rival.kind == fact.kind), None)
        if other and not fact.denied and not anywhere(case.answer, fact):
            return Outcome("FAIL", "contradicted", f"It says {other.shown} where the reference says {fact.shown}.")
    if not passage and (denial := _denied(case)):
        return Outcome("FAIL", "negated", f"It denies what the reference states: {denial}.")
    if not passage and (hedge := _hedge(case)):
        return Outcome("FAIL", "hedged", f"It leaves open whether it is {hedge}.")
    return _invented(case, extra if case.size <= SHORT else stated)


def _given(case: Case, fact: Fact) -> bool:
    """Whether the question gives the fact as true: what only a wrong option says, it does not."""
    options = case.options
    if options and any(fact in marks for at, marks in enumerate(options.marks) if at != options.right):
        return False
    return _supported(case.question, fact)


def _denied(case: Case) -> str:
    """A plain word of the reference, or of the question, that the answer denies and they do not."""
    if case.stance:
        return ""
    if _ALL_DENIED.match(case.answer.text.lower()) and not _ALL_DENIED.match(case.reference.text.lower()):
        return "all of it"
    given = [
        token for token in (*case.reference.tokens, *case.question.tokens) if token.kind == "word" and not token.capital
    ]
    for token in case.answer.tokens:
        if token.denied and token.kind == "word" and not token.capital:
            meant = [other for other in given if same(token.form, other.form)]
            if (
                meant
                and not any(other.denied for other in meant)
                and not choices.offered(case.item.question, token.raw)
            ):
                return token.raw
    return ""


def _hedge(case: Case) -> str:
    """`X or Y`, where one is the reference's and the other is not."""
    tokens = case.answer.tokens
    for at in range(1, len(tokens) - 1):
        if tokens[at].form != "or":
            continue
        sides = (
            tokens[at - 1],
            next((token for token in tokens[at + 1 :] if token.kind != "function"), tokens[at + 1]),
        )
        if all(_weighty(token) for token in sides):
            inside = [
                any(same(token.form, other.form, name=True) for other in case.reference.tokens) for token in sides
            ]
            if any(inside) and not all(inside):
                return f"{sides[0].raw} or {sides[1].raw}"
    return ""


def _weighty(token: Token) -> bool:
    return token.kind in FIGURES or token.capital


def _invented(case: Case, stated: Sequence[Fact]) -> Outcome | None:
    """Facts that neither reference, question nor passage supports."""
    size = len(case.text.split())
    lenient = size > SHORT or case.size > SHORT  # a list of years from the passage is no answer to "when?"
    loose = [fact for fact in stated if not _backed(case, fact, lenient)]
    if case.size <= SHORT:
        figures = [fact for fact in loose if fact.kind != "name"]
        # one new name in a full sentence may be true; more, or one instead of a sentence, is a guess
        wrong = bool(figures) or len(loose) > (1 if size > SHORT else 0)
    else:
        wrong = len(stated) >= FEW and len(loose) > INVENTED * len(stated)
    return (
        Outcome("FAIL", "unsupported", f"Nothing supports {_some([fact.shown for fact in loose])}.") if wrong else None
    )


def _backed(case: Case, fact: Fact, lenient: bool) -> bool:
    sources = (case.reference, case.question, *((case.around,) if lenient or fact.kind == "name" else ()))
    return any(_supported(source, fact) for source in sources)


def _supported(source: Read, fact: Fact) -> bool:
    """Whether a text has the fact, or, of a name, any word that is its own."""
    if fact.kind in FIGURES:
        return anywhere(source, fact)
    own = [form for form in fact.forms if form not in words.GENERIC] or list(fact.forms)
    return any(same(form, token.form, name=True) for form in own for token in source.tokens)


def _some(shown: Sequence[str]) -> str:
    return ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")


def _told(found: Sequence[str], missing: Sequence[str]) -> str:
    parts = [f"{label}: {_some(shown)}" for label, shown in (("found", found), ("missing", missing)) if shown]
    return "; ".join(parts)


FLOORS: Mapping[str, float] = MappingProxyType(
    {
        "reference": 0.9,
        "sibling": 0.7,
        "other-row": 0.9,
        "wrong-number": 0.8,
        "wrong-name": 0.8,
        "negation": 0.75,
        "colon": 0.99,
        "opener": 0.99,
        "injection": 0.9,
    }
)


class RulesGrader:
    """The embedded grader. Its identity is the text of its own rules, so a mended rule is a new grader.

    It declares every kind of canary: of 7,000 made from rule-made records of 60 prompt types it judges all rightly but one
    "without a ____" and one wrong name behind a premise put right. The floors leave slack for freer wording, which costs it
    right answers (`sibling`) before wrong ones: it cannot tell a paraphrase, and no canary tests that.
    """

    name = "rules"
    about = "normalised fact containment, not a language model"
    floors: Mapping[str, float] = FLOORS

    @cached_property
    def identity(self) -> str:
        root = Path(__file__).resolve().parent.parent
        names = ("foundation/facts", "foundation/words", "judge/case", "judge/choices", "judge/rules")
        return stable_id("rules", *((root / f"{name}.py").read_text("utf-8") for name in names))

    def ready(self) -> AbstractContextManager[None]:
        return nullcontext()

    async def grade(self, requests: Sequence[tuple[Answer, int]]) -> AsyncIterator[tuple[int, Outcome]]:
        for index, (answer, _) in enumerate(requests):  # the same words get the same verdict, whichever vote it is
            yield index, grade(answer.item, answer.text)
