"""Partners for prompt types that look at two snippets: chosen when a unit is planned, from the whole corpus.

Guarantees: pure: the same corpus, policy, kind and round give the same partners, whatever else is asked for with them.
A partner is another snippet, not a retired one: of the same article and without a sentence in common (`same-article`),
or of another article on the same side of the held-out line that names the same person, place or thing
(`other-article`). Each round takes the next candidate, so rounds differ as long as there is more than one. A snippet
without a candidate has None. Of the names that two articles share, the one that the fewest articles have is taken
first; it stands letter for letter in both snippets, is the title of neither article, and not a part of both titles.
Cost: one pass over all blocks; for `same-article` 20 µs a snippet, for `other-article` 0.14 ms, and 2 KB of memory for
either (4,534 snippets of 95 encyclopaedia articles: 0.1 and 0.6 s, 9 MB; 45 % of them have a partner in another article,
of those of 26 articles on one war 86 %).
Knows no list of names: a name is what is written with capitals inside a sentence, so two people of one name are one.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, Protocol

from foundation.corpus import Corpus
from foundation.ids import seed_of
from foundation.reader import identities, tombstones
from foundation.records import Contract, Snippet, SplitPolicy
from generator.gates.fields import plain_words
from generator.render import Source

Kind = Literal["same-article", "other-article"]

SHORTEST = 4  # letters of a name
NAMES = 4  # of a snippet's names, how many of the rarest are looked at
CANDIDATES = 24  # for each of them
FEW = 3, 8  # a single word that more than 3 articles have, and more than one in 8, tells too little
FEW_RUN = 6, 3  # the same for a name of several words

_CAP = r"(?:(?:[A-Z]\.)+|[A-ZÀ-ÖØ-Þ][\w-]*)"
_RUN = re.compile(rf"(?<![\w.'’&-]){_CAP}(?: (?:(?:of|of the|de|da|di|dos|la|du|van|von|van der|al|bin) )?{_CAP})*")
_INSIDE = re.compile(r"[a-z,;)] $")
# "1st Armored Division", "Apollo 8": what is left of it without the number is no name.
_NUMBERED = re.compile(r"\d(?:st|nd|rd|th)? $"), re.compile(r"[ .]\d")
# What may follow a single word that is a name; a noun there would make it an adjective.
_ENDS = re.compile(
    r"(?:['’]s\b|[,.;)]|$| (?:and|or|in|of|on|at|to|by|from|with|for|as|is|was|were|are|had|has|have|who|which|that|when|where|would"
    r"|could|did|but|after|before|during|under|into|through|while|because|against|until|since|between|[a-z]+ed)\b)"
)
_ROLE = (
    "Prime Minister|Foreign Minister|Foreign Secretary|Vice President|Field Marshal|President|Premier|Chancellor|Minister|Senator|"
    "Governor|Secretary|Ambassador|(?:(?:Major|Brigadier|Lieutenant|Colonel|Air|Vice|Rear|Grand|Fleet|Wing|Chief|Staff|Group) )*"
    "(?:General|Admiral|Marshal|Colonel|Major|Captain|Lieutenant|Brigadier|Commodore|Commander|Sergeant)|Emperor|King|Queen|"
    "Prince|Princess|Pope|Archbishop|Bishop|Cardinal|Sir|Lord|Lady|Dr|Doctor|Professor|Mrs?|Ms|Saint|St"
)
_ARTICLE = re.compile(r"(?:The|An?) (?=[A-Z])")
_RANK = re.compile(rf"\b(?:(?:{_ROLE}) )+(?=[A-Z])")
_NO_NAME = re.compile(
    rf"(?:{_ROLE}|Celsius|Fahrenheit|January|February|March|April|June|July|August|September|October|November|December|(?:Mon|Tues|Wednes|Thurs|Fri|"
    r"Satur|Sun)day|(?:First|Second|Third|Fourth|Fifth|Sixth|Seventh|Eighth|Ninth|Tenth) (?:Army|Fleet|Corps|Division|Air Force))$"
)
_PEOPLE = re.compile(  # words for what belongs to a country or people, as far as their ending tells
    r"\w*(?:ish|ese|[a-z]ians?|eans?|[^l]cans?)$|(?:German|French|Dutch|Swiss|Greek|Czech|Finn|Dane|Swede|Turk|Thai|Jew|Arab|Roman|Soviet|"
    r"Serb|Croat|Slovak|Allied|Allie|Nazi)s?$"
)
_LOWER = re.compile(r"(?<![\w-])[a-z]{3,}")


class Partner(Contract):
    """A snippet to stand beside another one: `index` is its position in `block`; `entity` what both of them name."""

    block: str
    index: int
    snippet_id: str
    entity: str = ""


def choose(
    kind: Kind, blocks: Sequence[str], corpus: Corpus, policy: SplitPolicy, round_: int
) -> dict[str, list[Partner | None]]:
    """For each of `blocks`, a partner or None for each of its snippets, in order."""
    retired = identities(tombstones(corpus.store))
    pool: _Pool = _Windows() if kind == "same-article" else _Names(policy)
    wanted = dict.fromkeys(blocks)
    for block in (*wanted, *(name for name in corpus.blocks() if name not in wanted)):
        for index, snippet in enumerate(corpus.part(block, 0, corpus.count(block))):
            dead = ("snippet", snippet.id) in retired or ("article", snippet.article_id) in retired
            pool.add(Partner(block=block, index=index, snippet_id=snippet.id), snippet, block in wanted, dead)
    return {block: pool.partners(block, round_) for block in wanted}


def names_in(sentence: str) -> Iterator[tuple[str, bool]]:
    """What may be names in a sentence, and whether it stands inside it, where nothing but a name has a capital."""
    for match in _RUN.finditer(sentence):
        before = sentence[max(0, match.start() - 4) : match.start()]
        if _NUMBERED[0].search(before) or _NUMBERED[1].match(sentence, match.end()):
            continue
        run = match.group()
        article = _ARTICLE.match(run)
        run = run[article.end() :] if article else run
        rank = _RANK.match(run) if match.start() else _RANK.search(run)
        run = run[rank.end() :] if rank else run
        first, _, last = run.rpartition(" ")
        if sum(map(str.isalpha, run)) < SHORTEST or _NO_NAME.match(run) or (_PEOPLE.match(last) and not first):
            continue
        if (not first or _PEOPLE.match(last)) and not _ENDS.match(sentence, match.end()):
            continue
        inside = bool(_INSIDE.search(before)) or bool(rank)
        if inside or first:
            yield run, inside


class _Pool(Protocol):
    """What `choose` fills, block by block, the blocks asked for first; then it tells their partners."""

    def add(self, place: Partner, snippet: Snippet, asked: bool, dead: bool) -> None: ...

    def partners(self, block: str, round_: int) -> list[Partner | None]: ...


class _Windows:
    """The snippets of the articles asked for; kept of each are its place and hashes of its sentences."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Partner, frozenset[int]]] = []
        self.asked: defaultdict[str, list[int]] = defaultdict(list)
        self.articles: dict[str, list[int]] = {}
        self.sorted: set[str] = set()

    def add(self, place: Partner, snippet: Snippet, asked: bool, dead: bool) -> None:
        article = snippet.article_id
        if asked:
            self.asked[place.block].append(len(self.rows))
            self.articles.setdefault(article, [])
        elif article not in self.articles:
            return
        if not dead:
            self.articles[article].append(len(self.rows))
        self.rows.append((article, place, frozenset(map(hash, snippet.sentences))))

    def partners(self, block: str, round_: int) -> list[Partner | None]:
        return [_turn(self._candidates(number), round_) for number in self.asked[block]]

    def _candidates(self, number: int) -> Iterator[Partner]:
        """The article's other windows, begun where the snippet's id says."""
        article, own, sentences = self.rows[number]
        order = self.articles[article]
        if article not in self.sorted:
            self.sorted.add(article)
            order.sort(key=lambda other: _key(self.rows[other][1].snippet_id))
        for other in _begun(order, own.snippet_id, "same-article"):
            _, place, others = self.rows[other]
            if sentences.isdisjoint(others):
                yield place


class _Names:
    """Names, and which snippets have them."""

    def __init__(self, policy: SplitPolicy) -> None:
        self.policy = policy
        self.places: list[tuple[str, int, str]] = []  # of each snippet: block, position, id
        self.owner: array[int] = array("I")  # of each snippet: its article's number
        self.articles: dict[str, int] = {}
        self.about: list[tuple[bool, str]] = []  # of each article: whether it is held out, and its title's words
        self.postings: dict[str, array[int]] = {}
        self.certain: set[str] = set()
        self.lower: set[str] = set()
        self.asked: defaultdict[str, list[int]] = defaultdict(list)
        self.named: dict[int, list[str]] | None = None
        self._at_hand: tuple[str, dict[str, frozenset[str]]] = "", {}  # windows overlap: each sentence is read once

    def add(self, place: Partner, snippet: Snippet, asked: bool, dead: bool) -> None:
        number = len(self.places)
        if asked:
            self.asked[place.block].append(number)
        article = self.articles.setdefault(snippet.article_id, len(self.about))
        if article == len(self.about):
            unseen = self.policy.is_unseen(snippet.article_id)
            self.about.append((unseen, plain_words(re.sub(r"\s*\([^)]*\)$", "", snippet.title))))
        self.places.append((place.block, place.index, snippet.id))
        self.owner.append(article)
        if dead:
            return
        if self._at_hand[0] != snippet.article_id:
            self._at_hand = snippet.article_id, {}
        for name in frozenset[str]().union(*map(self._read, snippet.sentences)):
            self.postings.setdefault(name, array("I")).append(number)

    def partners(self, block: str, round_: int) -> list[Partner | None]:
        if self.named is None:
            self.named = self._rank()
        return [_turn(self._candidates(number), round_) for number in self.asked[block]]

    def _read(self, sentence: str) -> frozenset[str]:
        found = self._at_hand[1].get(sentence)
        if found is None:
            names = list(names_in(sentence))
            self.certain.update(name for name, inside in names if inside)
            self.lower.update(_LOWER.findall(sentence))
            found = self._at_hand[1][sentence] = frozenset(name for name, _ in names)
        return found

    def _rank(self) -> dict[int, list[str]]:
        """Of each snippet asked for, the names it shares with another article, the rarest first."""
        self.certain &= self.postings.keys()
        ends = Counter(word for name in self.certain if " " in name for word in {name.split()[0], name.split()[-1]})
        ranked = []
        for name in sorted(self.certain):
            spread = len({self.owner[number] for number in self.postings[name]})
            parts = name.split(" ")
            least, share = FEW if len(parts) == 1 else FEW_RUN
            heads = [part.casefold() for part in parts if part[:1].isupper()]
            plain = all(head in self.lower for head in heads)
            # "Supreme Court" is there in every country; "Wilson", beside two Wilsons in full, may be either of them.
            doubtful = (plain and len(heads) < 3) or (len(parts) == 1 and ends[name] > 1)
            if 1 < spread <= max(least, len(self.about) // share) and not doubtful:
                ranked.append((plain, spread, name))
        shared = [name for _, _, name in sorted(ranked)]
        self.postings = {name: self._in_turns(self.postings[name]) for name in shared}
        asked = {number for numbers in self.asked.values() for number in numbers}
        named: defaultdict[int, list[str]] = defaultdict(list)
        for name in shared:
            for number in self.postings[name]:
                if number in asked:
                    named[number].append(name)
        return named

    def _in_turns(self, numbers: Iterable[int]) -> array[int]:
        """One snippet of each article before a second one of any, in an order that no block's number bears on."""
        seen: Counter[int] = Counter()
        keyed = []
        for number in sorted(numbers, key=lambda number: _key(self.places[number][2])):
            keyed.append((seen[self.owner[number]], number))
            seen[self.owner[number]] += 1
        return array("I", (number for _, number in sorted(keyed, key=lambda pair: pair[0])))

    def _candidates(self, number: int) -> Iterator[Partner]:
        own, (unseen, title) = self.places[number][2], self.about[self.owner[number]]
        taken: set[int] = set()
        used = 0
        for name in (self.named or {}).get(number, ()):
            phrase = plain_words(name)
            found = [
                other
                for other in _begun(self.postings[name], own, name)
                if self.owner[other] != self.owner[number]
                and self.about[self.owner[other]][0] == unseen
                and not _too_near(phrase, title, self.about[self.owner[other]][1])
                and other not in taken
            ]
            for other in found[:CANDIDATES]:
                taken.add(other)
                block, index, id_ = self.places[other]
                yield Partner(block=block, index=index, snippet_id=id_, entity=name)
            used += bool(found)
            if used == NAMES:
                return


def _too_near(name: str, title: str, other: str) -> bool:
    """Whether a name is what one of two articles is about, or a part of it; all as plain words."""
    return name in title or name in other


def _key(snippet_id: str) -> tuple[int, str]:
    return seed_of("partner", snippet_id), snippet_id


def _begun(order: Sequence[int], snippet_id: str, what: str) -> Iterator[int]:
    """`order`, begun at a place of this snippet's own."""
    start = seed_of("partner", snippet_id, what) % len(order) if order else 0
    yield from islice(order, start, None)
    yield from islice(order, start)


def _turn(candidates: Iterable[Partner], round_: int) -> Partner | None:
    """The candidate of a round: the first, the second, and so on, and round again."""
    found = list(islice(candidates, round_ + 1))
    return found[round_ % len(found)] if found else None


def with_partner(snippet: Snippet, partner: Partner | None, corpus: Corpus) -> Source:
    """A snippet beside the partner that was chosen for it; without one where there is none, or its text has changed."""
    if partner is None:
        return Source(snippet)
    (other,) = corpus.part(partner.block, partner.index, partner.index + 1) or (None,)
    return Source(snippet, other, partner.entity) if other and other.id == partner.snippet_id else Source(snippet)
