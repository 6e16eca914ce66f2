"""Reads one snippet: its names, dates and numbers, and the clauses that questions can be made of.

Guarantees: offsets are into the sentence as it stands; what the grammar here cannot take apart with confidence has no
clause, and yields no question. Knows simple past English: one subject, one verb; that is most of an encyclopaedia.
Cost: about 60 µs a sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from foundation.records import Snippet
from generator.teachers.rules import words
from generator.teachers.rules.lexicon import DATE, DEMONYM, Lexicon, followed_by_noun, masked, split_title

Kind = Literal["person", "place", "thing", "date", "number"]

_NUMBER = re.compile(r"(?<![\w.,/-])(?:\d{1,3}(?:,\d{3})+(?![\w,])|\d{1,6}(?![\w,/-]|\.\d))(?! (?:to|and|or) ·)")
_WORD = re.compile(r"[^\s,;:()\"“”]+(?:(?<=\d),\d{3}\b)*|[,;:()\"“”]")
_LEAD = re.compile(
    r"(?:In|On|At|After|Before|During|From|By|Under|With|Despite|Near|Since|Until|For|To|Between|Over|Through|Against|As|Among|"
    r"Within|Throughout|Early|Late)\b[^,;:]{2,70}, "
    rf"|(?:On|In) (?:{DATE.pattern}) "
)
_PREPOSITIONS = frozenset(
    "In On At After Before During From By Under With Near Since Until For To Between Over As Among".split()
)
_EMPTY = frozenset(
    "it there this that he she they we i you when although though while whereas if because once unlike according today whether "
    "how what where despite currently originally typically generally usually often sometimes overall".split()
)
_NO_SUBJECT = frozenset(
    """which that who whose where when how what whether if why because while although since believe believes argue argues say
    says claim claims suggest suggests consider considers remain remains include includes contain contains""".split()
)
# A verb further on that makes the first one a participle: "bricks made from adobe are ...", "a plan carried out by ..."
_FINITE_AFTER = re.compile(
    r"(?:\w+ )?by (?:the |an? |[A-Z])|(?:(?!\b(?:that|which|who|and|but|because|when|while|as|if|where|until|after|before|so|"
    r"than|what|how|although)\b)[^,;:])*?\b(?:is|are|was|were|has|have|had)\b"
)
_PRESENT = re.compile(
    r"\b[A-Z][a-z]+ (?<!ish )(?<!ese )(?<!an )[a-z]+[^sui]s (?:from|how|the|that|an?|as|to|on|into|about|with)\b"
)
_ADVERBS = frozenset("only just never always not even still now first then also ever".split())
_BREAK = frozenset(
    ", ; : and but or which that who whom whose where when while because after before until as so than if to by from with "
    "although though".split()
)
_RELATIVE = re.compile(
    r",? (?:(?:\w+ )?(?:of|in|from|to|with|by|at|on|for|under|through) (?:which|whom)|which|who|whose|while|whereas|although|though|but|so that|where)\b|, (?:and|when|after|before|until|because|as|"
    r"with|including|leaving|making|so|a|an|the|then|followed|except|one|two|three)\b|;|:| [-–—] "
)
_WHEN = re.compile(
    r"(?:^|(?<= ))(?P<prep>[Oo]n|[Ii]n|[Dd]uring)(?P<part>(?: the)?(?: (?:early|late|mid|spring|summer|autumn|winter|night|morning|"
    r"evening|afternoon|beginning|end|start|middle|opening|closing|last|first|weeks|days|months|hours)(?: of)?)*"
    rf"(?: (?:{'|'.join(words.WEEKDAYS)}))?) $"
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A name, date or number where it stands. `name` is its fullest form, `title` what stands before a person's name."""

    kind: Kind
    text: str
    name: str
    start: int
    end: int
    title: str = ""
    the: bool = False

    @property
    def noun(self) -> str:
        """As it stands inside a sentence: with the article it had."""
        return f"the {self.name}" if self.the else self.name


@dataclass(frozen=True, slots=True)
class When:
    """A time phrase that can be taken out of its sentence: "on 16 July 1940". `plain` if it is but a preposition and a date."""

    text: str
    date: str
    start: int
    end: int
    plain: bool


@dataclass(frozen=True, slots=True)
class Clause:
    """LEAD, SUBJECT (APPOSITION) VERB REST. All but the lead without commas around; `rest` has no full stop."""

    lead: str
    subject: str
    verb: str
    rest: str
    person: Mention | None = None

    @property
    def main(self) -> str:
        """The rest up to the first relative clause or second main clause."""
        return main_part(self.rest)


@dataclass(frozen=True, slots=True)
class Sentence:
    """`text` ends with a full stop. `standalone`: nothing in it leans on the sentences around it, as far as can be seen."""

    text: str
    mentions: tuple[Mention, ...]
    standalone: bool
    clause: Clause | None
    when: When | None

    def of(self, *kinds: Kind) -> list[Mention]:
        return [mention for mention in self.mentions if mention.kind in kinds]


@dataclass(frozen=True, slots=True)
class Reading:
    """All that the makers of questions know of one snippet."""

    snippet: Snippet
    topic: str
    sentences: tuple[Sentence, ...]


class Reader:
    """Reads snippets with one lexicon; a sentence that stands in two windows is read once."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self._read: dict[tuple[str, str], Sentence] = {}

    def read(self, snippet: Snippet) -> Reading:
        sentences = []
        for text in snippet.sentences:
            key = (snippet.article_id, text)
            found = self._read.get(key)
            if found is None:
                found = self._read[key] = _sentence(text, snippet, self.lexicon)
            sentences.append(found)
        return Reading(snippet, self.lexicon.topic(snippet.title), tuple(sentences))


def first_clause(rest: str) -> str:
    """Cut a second main clause (", but bad weather forced a delay"); relative clauses and second predicates stay."""
    for match in re.finditer(r", (?:and|but|so|while|although|though|yet) |; ", rest):
        following = rest[match.end() :].split(" ", 1)[0]
        if not words.is_past(following) and following not in ("then", "later", "that"):
            return rest[: match.start()]
    return rest


def main_part(rest: str) -> str:
    """Cut what follows the main clause, and a second predicate ("and called ..."): what stays can follow "did"."""
    for found in _RELATIVE.finditer(rest):
        if found.group() == ", and" and re.search(r", (?:[\w.'’-]+ ?){1,4}$", rest[: found.start()]):
            continue  # the last of a list
        rest = rest[: found.start()]
        break
    if rest.startswith(("and ", "but ", "then ")):
        return ""
    for match in re.finditer(r" (?:and|but|then) |, ", rest):
        following = re.split(r"[,;]", rest[match.end() :])[0].split()
        second = following[:1] if match.group() == ", " else following[:9]
        verbs = [place for place, word in enumerate(second) if words.is_past(word) or word in words.AUXILIARIES]
        if verbs and "and" not in second[: verbs[0]]:
            return rest[: match.start()]
    return rest


def _sentence(text: str, snippet: Snippet, lexicon: Lexicon) -> Sentence:
    mentions = _mentions(text, snippet, lexicon)
    sound = (
        35 <= len(text) <= 300
        and text.endswith(".")
        and text.count("(") == text.count(")")
        and not re.search(r"[\"“”;:\[\]{}|=<>\n]|_{2}|\(\s*\)|\s,|\.\.", text)
        and not re.search(r"[.!?] [A-Z][a-z]+ [a-z]", text)
    )
    standalone = (
        sound
        and not text.startswith("Had ")
        and not words.PRONOUN_START.match(text)
        and not words.POINTS_AWAY.search(text)
    )
    standalone = standalone and _pronouns_held(text, mentions)
    clause = _clause(text, mentions) if standalone else None
    return Sentence(text, tuple(mentions), standalone, clause, _when(text, mentions) if standalone else None)


def _pronouns_held(text: str, mentions: list[Mention]) -> bool:
    """Whether somebody is named before the first "he" or "her"; a ship may be "she"."""
    him = re.search(r"\b(?:he|him|his)\b", text)
    if him and not any(mention.kind == "person" and mention.start < him.start() for mention in mentions):
        return False
    her = re.search(r"\b(?:she|her|hers)\b", text)
    return not her or any(mention.kind in ("person", "thing") and mention.start < her.start() for mention in mentions)


def _mentions(text: str, snippet: Snippet, lexicon: Lexicon) -> list[Mention]:
    dates, hidden, runs = lexicon.scan(text)
    found = [Mention("date", text[start:end], text[start:end], start, end) for start, end in dates]
    found += [mention for span in runs if (mention := _name(hidden, span, snippet.article_id, lexicon))]
    for match in _NUMBER.finditer(masked(hidden, runs)):
        before = hidden[: match.start()].rstrip()
        if not (before and before[-1].isalpha() and before.split()[-1][:1].isupper() and " " in before):
            found.append(Mention("number", match.group(), match.group(), *match.span()))
    return sorted(found, key=lambda mention: mention.start)


def _name(text: str, span: tuple[int, int], article: str, lexicon: Lexicon) -> Mention | None:
    start, end = span
    run, after = text[start:end], text[end : end + 40]
    the = text[:start].endswith(("the ", "The "))
    title, name = split_title(run)
    if not name:
        return None
    person = None if the else lexicon.person(name, article)
    if person is not None:
        if " " not in name and followed_by_noun(after):
            return None
        kept = "" if name == run else title
        return Mention("person", name, person, end - len(name), end, kept)
    tokens = run.split(" ")
    if title and not the:
        return None  # a titled name that nothing else confirms
    if run in words.CALENDAR or (
        len(tokens) == 1 and (DEMONYM.match(run) or followed_by_noun(after) or len(run) < 3 or lexicon.is_common(run))
    ):
        return None
    if DEMONYM.match(tokens[0]) and len(tokens) > 1 and not the:
        return None
    kind: Kind = "place" if run in lexicon.places else "thing"
    return Mention(kind, run, run, start, end, "", the)


def _when(text: str, mentions: list[Mention]) -> When | None:
    """The one time phrase of a sentence; None if it has several dates, or a span of time."""
    dates = [mention for mention in mentions if mention.kind == "date"]
    if len(dates) != 1 or not re.search(r"\d{4}", dates[0].text):
        return None
    date = dates[0]
    before = _WHEN.search(text[: date.start])
    if before is None or re.match(r"(?:[-–]| (?:and|or|to|until|by|when)\b)", text[date.end :]):
        return None
    if re.search(r"\b(?:and|or|until|since|than|early|late|from|to|but) $", text[: before.start()]):
        return None
    return When(text[before.start() : date.end], date.text, before.start(), date.end, not before["part"])


def _clause(text: str, mentions: list[Mention]) -> Clause | None:
    body = text[:-1]
    match = _LEAD.match(body)
    lead = match.group().rstrip(", ") if match else ""
    start = match.end() if match else 0
    person = next(
        (m for m in mentions if m.kind == "person" and m.start - (len(m.title) + 1 if m.title else 0) == start), None
    )
    if person:
        apposition = re.match(
            r", (?:the|a|an|who|his|her|then|now|commander|head|chief)\b[^,]{2,90},", body[person.end :]
        )
        gap = apposition.end() if apposition else 0
        verb = re.match(r" (?:(?:later|soon|then|first|personally|himself) )?([a-z]+)\b", body[person.end + gap :])
        if verb is None or not (words.is_past(verb.group(1)) or verb.group(1) in ("was", "had")):
            return _plain_clause(body, start, lead)
        end = person.end + gap + verb.end()
        subject = body[start : person.end]
        return _finish(lead, subject, verb.group(1), body[end:].strip(), person)
    return _plain_clause(body, start, lead)


def _plain_clause(body: str, start: int, lead: str) -> Clause | None:
    """A clause whose subject is not a person: words up to the first verb in the past tense."""
    previous = ""
    for count, match in enumerate(_WORD.finditer(body, start)):
        word = match.group()
        if not count and (word.capitalize() in _PREPOSITIONS or word.lower() in _EMPTY or _is_gerund(word, body)):
            return None
        if count > 14 or word in ",;:()" or word in _NO_SUBJECT:
            return None
        if previous in _ADVERBS or (previous.endswith("ly") and previous.islower() and words.is_past(word)):
            return None
        if count and (word in AUX or (word == "had" and _after_had(body[match.end() :]))):
            return _finish(lead, body[start : match.start() - 1], word, body[match.end() :].strip(), None)
        if count and words.is_past(word) and not _is_adjective(previous, body[match.end() :]):
            rest = body[match.end() :].strip()
            if _another_verb(rest) or _FINITE_AFTER.match(rest) or _PRESENT.search(body[start : match.start()]):
                return None
            return _finish(lead, body[start : match.start() - 1], word, rest, None)
        if word in words.AUXILIARIES:
            return None
        previous = word
    return None


AUX = frozenset(("was", "were"))


def _is_gerund(word: str, body: str) -> bool:
    """Whether a sentence opens with "Following" or "Starting", and not with a name such as Göring."""
    return word.endswith("ing") and not re.match(rf"{re.escape(word)} [A-Z]", body) and len(word) > 4


def _after_had(after: str) -> bool:
    """Whether "had" is all of its verb ("had few tanks"), or the first half of a pluperfect ("had landed")."""
    following = after.split(None, 1)
    return bool(following) and (words.is_participle(following[0]) or bool(words.DETERMINED.match(following[0])))


def _is_adjective(previous: str, after: str) -> bool:
    following = after.split(None, 1)
    noun_follows = bool(following) and following[0] not in words.FUNCTION_WORDS and following[0][:1].islower()
    people = previous.endswith("s") and previous != "Axis"  # "the Germans captured ..." against "German captured tanks"
    determined = previous.lower() in words.FUNCTION_WORDS | words.OPENERS or (
        bool(DEMONYM.match(previous)) and not people
    )
    return noun_follows and determined and not words.is_past(following[0])


def _another_verb(rest: str) -> bool:
    """Whether a second finite verb follows before the clause ends: then the first was a participle."""
    for match in _WORD.finditer(rest):
        word = match.group()
        if word in _BREAK:
            return False
        if words.is_past(word) or word in words.AUXILIARIES:
            return True
    return False


def _finish(lead: str, subject: str, verb: str, rest: str, person: Mention | None) -> Clause | None:
    if len(rest) < 8 or len(subject) > 90 or re.search(r"\b(?:and|or) (?:also|both)$", subject):
        return None
    if rest.startswith((", ", "by ")):  # what is left out, or a participle: "the plan developed by ..."
        return None
    return Clause(lead, subject, verb, rest, person)
