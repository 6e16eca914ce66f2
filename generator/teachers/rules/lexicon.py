"""What a unit's snippets show about words and names: which are proper, which are people, which are places.

Guarantees: no list of names stands behind it: a person is known by a title or by doing what only people do, a place by
standing behind "in" or "at". The same snippets give the same lexicon.
Cost: one pass over each sentence, about 25 µs; a few MB for a unit of 256.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from foundation.records import Snippet
from generator.teachers.rules import words

_UPPER = "A-Z" + "".join(chr(code) for code in range(0xC0, 0x180) if chr(code).isupper())
CAP = rf"(?:(?:[A-Z]\.)+|St\.|[{_UPPER}][\w-]*(?:['’](?!s\b)\w+)?)"
_UNIT = "Squadron|Group|Division|Army|Corps|Fleet|Brigade|Regiment|Battalion|Commando|Panzer|Infantry|Airborne|Air|Wing"
RUN = re.compile(
    rf"(?<![\w.'’-])(?:\d{{1,3}}(?:st|nd|rd|th) (?={CAP})|\d{{1,3}} (?=(?:{_UNIT})\b))?{CAP}"
    rf"(?: (?:(?:von|van|de|der|den|du|la|le|di|da|el|bin) )*{CAP}| \d{{1,3}}(?:st|nd|rd|th)?\b(?![,.]?\d))*"
)
OF = re.compile(rf" of (?:the )?(?={CAP})")
_TITLE = re.compile(rf"(?:{'|'.join(words.TITLES)})(?= |$)")
KEPT_TITLES = frozenset(
    "Lord Lady King Queen Emperor Empress Prince Princess Pope Sir Dame Saint Archbishop Bishop Cardinal".split()
)

_MONTH = "|".join(words.MONTHS)
_BEFORE_YEAR = (
    r"(?:in|of|since|until|from|by|to|and|between|during|before|after|early|late|mid|spring|summer|autumn|winter|for|the|around|about|"
    r"that|In|Since|Until|From|By|Between|During|Before|After|Early|Late|year)"
)
DATE = re.compile(
    rf"\b\d{{1,2}} (?:{_MONTH}) \d{{4}}\b|\b(?:{_MONTH}) \d{{1,2}}, \d{{4}}\b|\b(?:{_MONTH}) \d{{4}}\b|\b(?:{_MONTH}) \d{{1,2}}\b|\b\d{{1,2}} (?:{_MONTH})\b"
    rf"|(?:(?<= )|^)(?<!\d )(?:1[0-9]|20)\d\d\b(?![,.]?\d|-)"
)
_DIGIT = re.compile(r"\d")
_YEAR_CONTEXT = re.compile(rf"(?:^|\b{_BEFORE_YEAR} )$")
_PERSON_VERB = re.compile(
    r",? (?:himself |herself |then |later |soon |also |personally )?(?:who|commanded|led|ordered|hoped|promised|refused|argued|"
    r"believed|wrote|told|said|asked|warned|decided|planned|proposed|insisted|explained|signed|announced|addressed|praised|wanted|"
    r"thought|knew|met|resigned|succeeded|replaced|died|became|served|flew|escaped|persuaded|invented|designed|directed|agreed|"
    r"accepted|demanded|urged|appointed|dismissed|headed|worked|won|received|earned|shot|killed|chose|spoke|described|guided|"
    r"recalled|remarked|composed|founded|co-founded|graduated|retired|moved to|was elected|was hired|was buried|was arrested|was sworn|"
    r"testified|confessed|attended|painted|acted|starred|preached|lived|travelled|traveled|returned to|stated|noted|observed|"
    r"criticized|criticised|coined|collaborated|lectured|suggested|introduced|portrayed|recorded|ran for|performed|emigrated|"
    r"enrolled|fled|fell in love|defeated|patented|translated|edited|argues|writes|suggests|believes|portrays|says|"
    r"admitted|surrendered|discovered|studied|taught|published|developed|married|was born|was promoted|was killed|was captured|"
    r"was executed|was hanged|was awarded|was appointed|had been|disobeyed|pressed|favoured|brought|broke|built|went|took)\b"
)
_APPOSITION = re.compile(
    r", (?:the|a|an|his|her|its|then|now|by then) (?:[\w-]+ ){0,4}"
    r"(?:commander|leader|minister|president|general|admiral|officer|head|chief|pilot|scientist|engineer|king|"
    r"ambassador|adviser|secretary|mathematician|writer|captain|chancellor|dictator|premier|governor|director|physicist|philosopher)\b"
)
_SHIP_BEFORE = re.compile(
    r"(?:cruiser|battleship|carrier|destroyer|ship|liner|submarine|vessel|class|[Hh]eavy cruisers?) $"
)
_PLACE_BEFORE = re.compile(r"\b(?:[Ii]n|[Aa]t|[Nn]ear|into|[Aa]round|[Oo]utside|across|[Tt]hrough|towards?) (the )?$")
_PLACE_HEADS = frozenset(
    """Channel Atlantic Pacific Mediterranean Netherlands Union States Kingdom Baltic Philippines Caucasus Ruhr Sea Ocean Islands
    River Peninsula Desert Valley Bay Gulf Strait Straits Balkans Crimea Ukraine Urals Alps Ardennes Pass Mountains""".split()
)
_EVENT_OF = re.compile(
    r"(?:Attack|Attacks|Invasion|Bombing|Evacuation|Liberation|Occupation|Fall|Sinking|History|Death|Capture|Discovery|Assassination|"
    r"Execution|Origins|Causes|End|Economy|Geography|Culture|Politics|Demographics|Raid|Defence|Defense) (?:of|on) "
)
_NAMED_OF = re.compile(
    r"(?:(?:First|Second|Third) )?(?:Battle|Siege|Treaty|War|Battles|Peace|Conference|Kingdom|Duchy|Republic) of "
)
DEMONYM = re.compile(
    r"\w*(?:ish|ese|[a-z]ians?|eans?|[^l]cans?)$|(?:German|French|Dutch|Swis|Greek|Czech|Pole|Finn|Dane|Swede|Turk|Thai|Jew|Nazi|"
    r"Soviet|Serb|Croat|Arab|Briton|Norse|Slovak|Filipino|Allied|Allie|Axis)s?$"
)


Spans = list[tuple[int, int]]
Scan = tuple[Spans, str, Spans]


def dates_of(text: str) -> Spans:
    """Where dates stand; a bare year counts only behind a word that makes it one."""
    found: Spans = []
    if not _DIGIT.search(text):
        return found
    for match in DATE.finditer(text):
        bare = match.end() - match.start() == 4 and match.group().isdigit()
        if not bare or _YEAR_CONTEXT.search(text[: match.start()]):
            found.append(match.span())
    return found


def masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text with each span made unreadable, of the same length."""
    for start, end in spans:
        text = text[:start] + "·" * (end - start) + text[end:]
    return text


class Lexicon:
    """Built once for the snippets of one unit."""

    def __init__(self, snippets: Iterable[Snippet]) -> None:
        self.lower: set[str] = set()
        self.proper: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._people: defaultdict[str, dict[str, str]] = defaultdict(dict)  # article -> last name -> name
        self._possible: list[tuple[str, str]] = []  # runs that are people's names if they begin with a known given name
        self._titled: dict[str, str] = {}
        self._titled_in: dict[tuple[str, str], str] = {}
        self.places: set[str] = set()
        self._scanned: dict[str, Scan] = {}
        self._with_the: set[str] = set()
        titles: dict[str, str] = {}
        sentences: dict[str, str] = {}  # windows overlap: each sentence once
        for snippet in snippets:
            titles[snippet.article_id] = snippet.title
            sentences.update(dict.fromkeys(snippet.sentences, snippet.article_id))
        for sentence in sentences:
            self.lower.update(re.findall(r"\b[a-z][a-z-]+\b", sentence))
            self.proper.update(match for match in re.findall(rf"(?<=[a-z,;:\d] )({CAP})", sentence))
        for sentence, article in sentences.items():
            self._names(sentence, article)
        for article, title in titles.items():
            name = bare_title(title)
            if (
                " " in name
                and looks_personal(name)
                and self._is_life([s for s, a in sentences.items() if a == article], name)
            ):
                self._people[article][name.rpartition(" ")[2]] = name
                self.places.discard(name.rpartition(" ")[2])
        given = {name.partition(" ")[0] for people in self._people.values() for name in people.values() if " " in name}
        for run, article in self._possible:
            if run.partition(" ")[0] in given - words.NOT_A_PERSON - self.places:
                self._people[article].setdefault(run.rpartition(" ")[2], run)
        for name in {bare_title(title) for title in titles.values()}:
            with_the = re.compile(rf"\b[Tt]he {re.escape(name)}\b(?! [{_UPPER}])")
            all_ = [sentence for sentence in sentences if name in sentence]
            if all_ and sum(bool(with_the.search(sentence)) for sentence in all_) * 2 > len(all_):
                self._with_the.add(name)

    def scan(self, sentence: str) -> Scan:
        """A sentence's dates, its text with them masked, and its runs; each sentence is scanned once."""
        found = self._scanned.get(sentence)
        if found is None:
            dates = dates_of(sentence)
            text = masked(sentence, dates)
            found = self._scanned[sentence] = (dates, text, self.runs(text))
        return found

    def runs(self, text: str) -> Spans:
        """Spans of capitalised runs that are names, in a text whose dates are masked."""
        spans: Spans = []
        position = 0
        while match := RUN.search(text, position):
            start, end = match.span()
            while text[start:end].rpartition(" ")[2] in words.OF_HEADS and (joined := OF.match(text, end)):
                more = RUN.match(text, joined.end())
                if more is None:
                    break
                end = more.end()
            position = end
            first = text[start:end].partition(" ")[0]
            if start == 0 and not self._is_name(first, text[:end], text[end : end + 40]):
                start += len(first) + 1
                while start < end and text[start].isdigit():  # "About 300 Japanese"
                    start += 1 + len(text[start:end].partition(" ")[0])
            if start < end:
                spans.append((start, end))
        return spans

    def is_proper(self, word: str) -> bool | None:
        """Whether a sentence's first word keeps its capital inside a sentence; None where nothing tells."""
        if word.lower() in words.OPENERS:
            return False
        if word in self.proper or DEMONYM.match(word) or word[:1].isdigit() or word[1:2].isupper():
            return True
        return False if word.lower() in self.lower else None

    def opens_with_name(self, text: str, article: str) -> bool:
        """Whether a text begins with a person's name or title, as far as the unit shows."""
        match = RUN.match(text)
        if match is None:
            return False
        title, name = split_title(match.group())
        return bool(title) or self.person(name, article) is not None or self.counts[match.group()] > 1

    def is_common(self, word: str) -> bool:
        """Whether a single capitalised word is used in lower case elsewhere: a heading or a term, more likely than a name."""
        return word.lower() in self.lower

    def person(self, name: str, article: str) -> str | None:
        """The fullest name known for the person called `name`, or None if it is not known as a person's."""
        last = name.rpartition(" ")[2]
        if last == name and name in self.places:
            return None
        known = self._people[article].get(last)
        if known is None and name not in self.places and len(name) > 3:
            elsewhere = [people[last] for people in self._people.values() if last in people]
            if (
                len(elsewhere) > 1 and len(set(elsewhere)) == 1
            ):  # one person, known well enough to go without a full name
                known = elsewhere[0]
        return None if known is None or (" " in name and name != known) else known

    def title_of(self, name: str, article: str | None = None) -> str:
        """A title the person was given somewhere, or in one article, or nothing."""
        return self._titled.get(name, "") if article is None else self._titled_in.get((article, name), "")

    def topic(self, title: str) -> str:
        """The title as it stands inside a sentence, with its article: "the Battle of Britain"."""
        name = bare_title(title)
        if _EVENT_OF.match(name):
            return f"the {name[0].lower()}{name[1:]}"
        first, _, others = name.partition(" ")
        common = first.lower() in self.lower and first not in self.proper and name not in self.places
        if common and not others[:1].isupper():
            name = f"{first[0].lower()}{name[1:]}"  # "Agriculture", a common noun
        the = name in self._with_the or _NAMED_OF.match(name)
        return with_its_article(f"the {name}" if the and not name.startswith("The ") else name)

    def _is_name(self, first: str, run: str, after: str) -> bool:
        """Whether a sentence's first word belongs to the run it begins."""
        proper = self.is_proper(first)
        if proper is None:
            return first != run
        if proper and first == run and self.is_common(first):
            return False
        # "Bill Tutte worked ...": a given name that is a common word too.
        return proper or (
            first.lower() not in words.OPENERS
            and " " in run
            and looks_personal(run)
            and bool(_PERSON_VERB.match(after))
        )

    def _names(self, sentence: str, article: str) -> None:
        _, text, runs = self.scan(sentence)
        for start, end in runs:
            run, before, after = text[start:end], text[:start], text[end : end + 60]
            self.counts[run] += 1
            title, name = split_title(run)
            if not name or (title and (before.endswith(("the ", "The ")) or _SHIP_BEFORE.search(before))):
                continue
            if looks_personal(name) and (
                title or (" " in name and self._acts(before, after) and not self._is_term(name))
            ):
                self._people[article].setdefault(name.rpartition(" ")[2], name)
                if " " in name and " " not in self._people[article][name.rpartition(" ")[2]]:
                    self._people[article][name.rpartition(" ")[2]] = name
                if title and name != run:
                    self._titled.setdefault(name, title)
                    self._titled_in.setdefault((article, name), title)
            elif (
                " " in name
                and looks_personal(name)
                and not self._is_term(name)
                and not before.endswith(("the ", "The "))
            ):
                self._possible.append((name, article))
            behind = _PLACE_BEFORE.search(before)
            tokens = run.split(" ")
            if behind and not title and not words.NOT_A_PLACE.intersection(tokens) and not any(map(str.isdigit, run)):
                adjective = len(tokens) == 1 and (DEMONYM.match(run) or followed_by_noun(after))
                if not adjective and (not behind.group(1) or tokens[-1] in _PLACE_HEADS):
                    self.places.add(run)

    def _is_term(self, name: str) -> bool:
        """Whether every word of a name is common in lower case: "Political Economy"."""
        return all(token.lower() in self.lower for token in name.split(" "))

    @staticmethod
    def _is_life(sentences: list[str], name: str) -> bool:
        """Whether an article is a person's: many of its sentences begin with "He" or "She", and one says when the person was born."""
        began = sum(bool(re.match(r"(?:He|She|His|Her) ", sentence)) for sentence in sentences)
        said = re.compile(rf"{re.escape(name)} (?:\([^()]*(?:\bborn\b|\d{{4}})|was born\b)")
        return began >= 3 and began * 20 >= len(sentences) and any(map(said.search, sentences))

    @staticmethod
    def _acts(before: str, after: str) -> bool:
        if before.endswith(("the ", "The ", "a ")) or _SHIP_BEFORE.search(before):
            return False
        return bool(_PERSON_VERB.match(after) or _APPOSITION.match(after))


def bare_title(title: str) -> str:
    """A title without what stands in brackets behind it."""
    return re.sub(r"\s*\([^)]*\)$", "", title).strip()


def split_title(run: str) -> tuple[str, str]:
    """("Air Vice Marshal", "Keith Park"); a title that is part of the name, such as Lord, stays in the name."""
    match = _TITLE.match(run)
    if match is None:
        return "", run
    title, name = match.group(), run[match.end() :].strip()
    if name.startswith("of ") or not name:
        return title, ""
    return (title, run) if title in KEPT_TITLES else (title, name)


def looks_personal(name: str) -> bool:
    """Whether a run could be a person's name at all: one to four words, none of a thing or a people."""
    tokens = name.split(" ")
    last = tokens[-1]
    return (
        len(tokens) <= 4
        and last[:1].isupper()
        and len(last) > 2
        and not words.NOT_A_PERSON.intersection(tokens)
        and not any(char.isdigit() for char in name)
        and not DEMONYM.match(tokens[0])
        and not (DEMONYM.match(last) and last.endswith("s"))
        and not last.isupper()
    )


def followed_by_noun(after: str) -> bool:
    """Whether what follows a single capitalised word makes it an adjective: "Luftwaffe bombers"."""
    match = re.match(r" ([a-z][\w-]*)", after)
    if match is None:
        return False
    word = match.group(1)
    return not (word in words.FUNCTION_WORDS or word in words.AUXILIARIES or words.is_past(word) or word.endswith("ly"))


def with_its_article(topic: str) -> str:
    """A title that English gives an article, where the unit shows too little of it: "the Guadalcanal campaign"."""
    if topic.startswith(("the ", "The ", "Operation ")):
        return topic
    found = re.match(r"([Bb]attle|[Ss]iege|[Ff]all|[Rr]aid|[Tt]reaty|[Cc]onference) (?:of|on|at) ", topic)
    if found:
        return f"the {topic[0].upper()}{topic[1:]}"
    ends = re.search(
        r" (?:[Ww]ar|[Cc]ampaign|[Ll]andings|[Oo]ffensive|[Uu]prising|[Cc]risis|Revolution|Project)$", topic
    )
    return f"the {topic}" if ends and topic[0].isupper() else topic
