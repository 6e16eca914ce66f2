"""Names in a text: which of its words are names, and under what other forms a name may stand.

Guarantees: pure; case, accents, possessives and hyphens do not matter. A capitalised word inside a sentence is a name;
one that opens a sentence is a name unless it is a common word, by the list or by its ending ("Bombing", "Slowly").
Aliases: a people and its country, ranks and their short forms, acronyms and their words, plural and singular, the
names of the world wars.
Misses: names spelled like months ("May", "Jan"); a name that opens a sentence and is spelled like a common word, or ends
as one; single letters ("J. Smith" is judged by "Smith"); names in a text that is all capitals; who did what to whom.
Cost: 0.1 µs a word that is known, some 2 µs a word that is not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from generator.gates.common_words import COMMON, FUNCTION
from generator.gates.numbers import MONTH_TOKENS, NUMBER_WORDS

WORD = re.compile(r"(?:[A-Z]\.){2,}|[^\W_]+(?:['’-][^\W_]+)*")
_LETTERS = str.maketrans(
    {"ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D"}
    | {"ı": "i", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "’": "'", "‘": "'"}
    | dict.fromkeys("‐‑", "-")
)
_POSSESSIVE = re.compile(r"'(?:s|d|ll|re|ve|m)?$")

_WORLD_WAR = re.compile(
    r"\b(?:(?P<first>(?:First|1st) World War|World War (?:One|1|I)|W\.?W\.?\s?(?:I|1))|(?:Second|2nd) World War|World War (?:Two|2|II)"
    r"|W\.?W\.?\s?(?:II|2))(?!\w)"
)

_SUFFIX = re.compile(
    r"(?:[ts]ions?|ments?|ness|it(?:y|ies)|isms?|[a-z]{3}(?:ers|ors|ists)|ous|ful|less|[ai]ble|ives?|ical|[ae]ncies|ships?|"
    r"hood|sel(?:f|ves)|i[sz]ed|wise)$"
)
# Endings that names have too ("Turing", "Mohammed", "Calgary"): common only where no verb follows.
_WEAK_SUFFIX = re.compile(r"(?:ing|ed|[^aeiou]ic|al|[ao]ry|ar|[ae]nt|[ae]nc[ey]|gy|graphy)$")
_SUBJECT = re.compile(
    r"(?:['’]|,| (?:and|or|of|in|at|who|which|then|also|later|soon|himself|itself|is|was|were|are|had|has|did|could|would|will|[a-z]+ed|led|won|"
    r"lost|fell|gave|took|made|became|began|held|sent|told|met|saw|said|wrote|went|came|fought|lay|left|put|set|stood|rose|ran)\b)"
)
# Names that the endings and the list would take for common words.
_NOT_COMMON = frozenset("united grant provence florence france hastings".split())
_NOT_ADVERBS = frozenset(
    "italy sicily thessaly billy kelly emily sally molly polly holly beverly kimberly connolly".split()
)
# What a hyphened word may begin with at a sentence's start: "Pre-war", "Mid-June".
_PREFIXES = frozenset(
    "mid pre post non anti pro ex self half well so re co semi sub super ultra all full long short high low".split()
)


@lru_cache(maxsize=1 << 16)
def fold(word: str) -> str:
    """A word in the form in which it is compared: lower case, no accents, no possessive, no dots."""
    if not word.isascii():
        decomposed = unicodedata.normalize("NFKD", word.translate(_LETTERS))
        word = "".join(char for char in decomposed if not unicodedata.combining(char))
    word = word.lower()
    if "'" in word:
        word = _POSSESSIVE.sub("", word).replace("'", "")
    return word.replace(".", "") if "." in word else word


def plain_wars(text: str) -> str:
    """The world wars under one name each, so that "World War II" is "the Second World War", and is not the first."""
    if "World War" not in text and "WW" not in text and "W.W" not in text:
        return text
    return _WORLD_WAR.sub(lambda match: "WWI" if match["first"] else "WWII", text)


def variants(form: str) -> Iterator[str]:
    """Other forms of one word: its plural or singular, and what it is short for, or is called by others."""
    yield form + "s"
    if form.endswith("s"):
        yield form[:-1]
        if form.endswith("es"):
            yield form[:-2]
            if form.endswith("ies"):
                yield form[:-3] + "y"
    elif form.endswith("y"):
        yield form[:-1] + "ies"
    else:
        yield form + "es"
    yield from ALIASES.get(form, ())


_PEOPLE = ("ians", "eans", "ans", "ian", "ean", "an", "ese", "ish", "ists", "ist", "ism", "is", "i", "ic")
_COUNTRY = ("ia", "y", "a", "o", "e")


@lru_cache(maxsize=1 << 15)
def people_bases(form: str) -> frozenset[str]:
    """What may be left of a country in the name of its people or its manner: "italian" has "ital", "german" itself too."""
    found = {form[: -len(end)] for end in _PEOPLE if form.endswith(end) and len(form) - len(end) >= 3}
    return frozenset(found | {form, form.removesuffix("s")}) if found else frozenset()


@lru_cache(maxsize=1 << 15)
def country_bases(form: str) -> frozenset[str]:
    """What may be left of a country's name before the ending of a people: "italy" has "ital", "germany" has "german"."""
    return frozenset(
        {form} | {form[: -len(end)] for end in _COUNTRY if form.endswith(end) and len(form) - len(end) >= 3}
    )


@lru_cache(maxsize=1 << 15)
def is_common(form: str) -> bool:
    """Whether a folded word is a common word by the list, or by an ending that names do not have."""
    if form in COMMON or form in FUNCTION or form in NUMBER_WORDS:
        return True
    if form in _NOT_COMMON:
        return False
    if len(form) >= 6 and _SUFFIX.search(form):
        return True
    if len(form) >= 5 and form.endswith("ly"):
        return form not in _NOT_ADVERBS
    if "-" in form:
        first = form.split("-", 1)[0]
        return first in _PREFIXES or is_common(first)
    if form.endswith(("s", "d", "g")):
        return not COMMON.isdisjoint(_simpler(form))
    return False


def _simpler(form: str) -> Iterator[str]:
    """The words of which a form may be the plural, the past or the participle: "bombing" and "bombed" are of "bomb"."""
    for ending in ("s", "es", "d", "ed", "ing"):
        if form.endswith(ending):
            base = form[: -len(ending)]
            yield from (base, base + "e", base[:-1])
    if form.endswith(("ies", "ied")):
        yield form[:-3] + "y"


def opens_commonly(form: str, after: str) -> bool:
    """Whether a folded word at the start of a sentence is a common word; `after` is the text behind it."""
    if is_common(form):
        return True
    weak = len(form) >= 5 and form not in _NOT_COMMON and _WEAK_SUFFIX.search(form) is not None
    return weak and after[:1] == " " and after[1:2].islower() and _SUBJECT.match(after) is None


_PASSED = FUNCTION | NUMBER_WORDS | frozenset(name.lower() for name in MONTH_TOKENS)
# As they are written with a capital: passed over without a second look.
PASSED = frozenset(word.capitalize() for word in _PASSED) | frozenset(word.upper() for word in FUNCTION) | {"I"}


def is_passed(word: str) -> bool:
    """Whether a capitalised word is no name anywhere: a function word, a number or a month (other gates' matter), a letter."""
    form = fold(word)
    return form in _PASSED or len(form) < 2 or form[0].isdigit()


def opens(text: str, start: int) -> bool:
    """Whether the word at `start` opens a sentence, a line, a list entry or a quotation."""
    before = text[max(0, start - 24) : start]
    bare = before.rstrip(" \t\"“‘'([*_•|–—#>")
    if not bare or "\n" in before[len(bare) :] or len(before.rstrip()) > len(bare):
        return True
    if bare[-1] in "!?:;…\n":
        return True
    if bare[-1] == ")":  # "1) "
        return "(" not in before and len(bare.rsplit(None, 1)[-1]) <= 3
    if bare[-1] != ".":
        return bare[-1] == "-" and not bare[-2:-1].isalnum()
    last = bare[:-1].rsplit(None, 1)
    ending = last[-1] if last else ""
    return not (
        (len(ending) == 1 and ending.isalpha() and ending.isupper()) or ending.lower() in SHORT or ending[1:2] == "."
    )


def is_title_case(words: list[str]) -> bool:
    """Whether a text writes nearly all its longer words with capitals, so that a capital tells nothing."""
    long = [word for word in words if len(word) > 3 and word[0].isalpha()]
    return len(long) >= 2 and sum(word[0].isupper() for word in long) >= 0.8 * len(long)


def is_all_capitals(words: list[str]) -> bool:
    """Whether a text is written in capitals throughout, as a telegram is."""
    long = [word for word in words if len(word) > 2 and word[0].isalpha()]
    return len(long) >= 3 and sum(word.isupper() for word in long) >= 0.8 * len(long)


_GROUPS = """
general gen | lieutenant lt lieut | colonel col | captain capt | major maj | sergeant sgt | corporal cpl | commander cdr cmdr |
admiral adm | doctor dr | saint st | mount mt | fort ft | governor gov | senator sen | representative rep | president pres |
professor prof | reverend rev | brigadier brig | private pvt | number no | mister mr | junior jr | senior sr | department dept |
regiment regt | division div | squadron sqn | battalion bn
netherlands dutch holland dutchman dutchmen | britain british briton britons uk | france french frenchman frenchmen |
poland polish pole poles | denmark danish dane danes | sweden swedish swede swedes | norway norwegian norwegians |
finland finnish finn finns | spain spanish spaniard spaniards | turkey turkish turk turks | greece greek greeks hellenic |
wales welsh welshman | england english englishman englishmen | scotland scottish scots scot scotsman | ireland irish irishman irishmen |
switzerland swiss | portugal portuguese | soviet soviets ussr | america american americans us usa | philippines philippine filipino filipinos |
czechoslovakia czech czechs czechoslovak | yugoslavia yugoslav yugoslavs | iceland icelandic icelander | thailand thai thais |
slovakia slovak slovaks | croatia croat croats croatian | serbia serb serbs serbian | ukraine ukrainian | burma burmese | siam siamese |
lebanon lebanese | malta maltese | china chinese | japan japanese | vietnam vietnamese | peru peruvian | cyprus cypriot |
afghanistan afghan | kazakhstan kazakh | azerbaijan azerbaijani azeri | uzbekistan uzbek | argentina argentine argentinian |
luxembourg luxembourger | monaco monegasque | nazi nazis nazism | flanders flemish | normandy norman normans | kuomintang nationalist |
vichy vichyite | moscow muscovite | london londoner londoners | paris parisian parisians | berlin berliner berliners | jew jews jewish |
islam muslim muslims islamic | christianity christian christians | buddhism buddhist | hinduism hindu hindus | marx marxist marxism |
einstein einsteinian | darwin darwinian | europe european europeans | mediterranean med | christmas xmas | prime pm | minister pm |
kingdom uk | united us usa uk un uae | states us usa | great britain british uk | union ussr eu | nations un
"""
_SETS = [group.split() for group in _GROUPS.replace("\n", " | ").split("|")]
# One-way: "United States" may stand for "US", but "us" is grounded by no "union".
_ONE_WAY = frozenset("prime minister kingdom united states great union nations".split())
ALIASES: dict[str, tuple[str, ...]] = {}
for _group in _SETS:
    for _word in _group[:1] if _group and _group[0] in _ONE_WAY else _group:
        ALIASES[_word] = (*ALIASES.get(_word, ()), *(other for other in _group if other != _word))
# Acronyms whose words the table above does not lead to: any of these grounds them.
ALIASES["us"] = (*ALIASES.get("us", ()), "united")
ALIASES["usa"] = (*ALIASES.get("usa", ()), "united")
# Short forms that end with a full stop inside a sentence.
SHORT = frozenset(
    """gen lt lieut col capt maj sgt cpl cdr cmdr adm dr st mt ft gov sen rep pres prof rev brig pvt no mr mrs ms jr sr messrs hon
    dept regt div sqn bn vs v ca c approx jan feb mar apr jun jul aug sep sept oct nov dec u.s u.k""".split()
)
