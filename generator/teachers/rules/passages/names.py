"""What singles a passage out: its subject as it stands in a sentence, the names its neighbours have least of, its dates.

Guarantees: the same item gives the same names; another round begins with another one. Declines where fewer than two names can be
said. Cost: about 0.1 ms a question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from generator.teachers.rules import words
from generator.teachers.rules.lexicon import DEMONYM, bare_title, with_its_article
from generator.teachers.rules.reading import Kind, Mention, Sentence
from generator.teachers.rules.task import Declined, Library, Task

NAMES: tuple[Kind, ...] = ("person", "place", "thing")
WIDEST = 15  # years from a passage's first date to its last; a wider span singles nothing out

_EVENT = re.compile(
    r"\b(?:Battles?|Siege|Wars?|[Cc]ampaign|Operation|Raid|Conference|[Uu]prising|[Ll]andings|[Ii]nvasion|[Aa]ttacks?|[Ff]all|"
    r"Revolution|[Cc]risis|[Ee]xpedition|[Mm]assacre|[Rr]ebellion|[Mm]utiny|[Ee]lections?|[Bb]ombing|[Oo]ccupation|[Oo]ffensive)\b"
)
_PAST = frozenset(("was", "were", "had", "did", *(past for past, verb in words.IRREGULAR.items() if past != verb)))
_ADJECTIVE = re.compile(r"[A-Z]\w+(?:ic|al|ine|an)$")
_PARTICLES = frozenset("van de der den du la le di da el bin".split())
_YEAR = re.compile(r"\d{4}")
_CUT = re.compile(
    r"\d\w{0,2} $|\b[Tt]he (?:[A-Z][\w'’-]+ )+and $"
)  # "the 5th and 27th Marine Regiments", "the Code and Cypher School"
_CUT_AFTER = re.compile(
    r" and (?:the )?(?:[A-Z][\w'’-]+ )+(?:School|Office|Committee|Board|Bureau|Department|Institute|Commission)\b"
)
_GOES_ON = re.compile(r" (?:of|for) (?:the )?[A-Z]|['’] [A-Z]")
_PART_OF_NAME = re.compile(r"\b[A-Z][\w-]+ (?:of|for) (?:the )?$")
_NOUN_BEHIND = re.compile(
    r" (?:government|regime|incident|affair|administration|family|dynasty|party|movement|era|period|act|report|study)\b"
)
_NO_START = frozenset("A An The Chief Staff De Von Van Besides Including Unlike Other".split())
_NO_NAME = frozenset(
    "Celsius Fahrenheit Kelvin Reich Allied Allies Christmas Easter Mayor President Senator Emperor".split()
)
_WITH_THE = frozenset(
    """Army Navy Corps Fleet Division Brigade Regiment Battalion Squadron Front Symphony Plan Pact Axis Sea Ocean Islands Mountains
    Pacific Atlantic Treaty Agreement Committee Commission Conference Convention Protocol Expedition Service Guards Rangers
    Marines River Canal Desert Empire Republic Union Party Ministry Museum Institute Foundation Constitution Code Program
    Programme Federation Association Index Alps Prize""".split()
)
_ABSTRACT = re.compile(r"(?:ism|ology|ity|tion|ics|ment|ness|ship|ance|ence|hood)$")


_SUBJECTS: WeakKeyDictionary[Library, dict[str, str]] = WeakKeyDictionary()  # article -> subject


def subject(task: Task) -> str:
    """The article's subject inside a sentence; a common noun without the capital of its title: "alchemy"."""
    known = _SUBJECTS.setdefault(task.library, {})
    article = task.reading.snippet.article_id
    if article not in known:
        known[article] = _subject(task)
    return known[article]


def _subject(task: Task) -> str:
    topic, lexicon = with_its_article(task.reading.topic), task.library.lexicon
    if topic != task.reading.topic:
        return topic
    first, _, rest = topic.partition(" ")
    if not lexicon.is_common(first) or first[1:] != first[1:].lower() or DEMONYM.match(first):
        return topic
    second = rest.partition(" ")[0]
    if second:  # "foreign relations of Angola", but "Battle of France" and "Winter War"
        return topic[0].lower() + topic[1:] if second.islower() and second not in words.FUNCTION_WORDS else topic
    article = task.reading.snippet.article_id
    texts = [
        reading.snippet.text for reading in task.library.readings.values() if reading.snippet.article_id == article
    ]
    small, large = (
        sum(len(re.findall(rf"(?<=[a-z,] ){re.escape(form)}\b", text)) for text in texts)
        for form in (topic[0].lower() + topic[1:], topic)
    )
    if small <= large:
        return topic
    common = topic[0].lower() + topic[1:]
    counted = sum(len(re.findall(rf"\b(?:[Aa]n?|[Tt]he) {re.escape(common)}\b", text)) for text in texts)
    return f"the {common}" if counted * 2 > small else common  # "the alphabet", but "alchemy"


def is_event(task: Task) -> bool:
    """Whether one can be "in" the subject: a battle, a campaign, a conference."""
    return bool(_EVENT.search(task.reading.topic))


def is_narrative(task: Task) -> bool:
    """Whether the passage tells of events: most of it in the past tense, and with somebody or a date in it."""
    sentences = task.reading.sentences
    past = sum(_in_past(sentence.text) for sentence in sentences)
    return past * 10 >= len(sentences) * 6 and any(sentence.of("person", "date") for sentence in sentences)


def _in_past(text: str) -> bool:
    return any(word in _PAST or (word.endswith("ed") and len(word) > 4) for word in text.split())


def life(task: Task) -> bool:
    """Whether the subject is known as a person."""
    name = bare_title(task.reading.snippet.title)
    return " " in name and task.library.lexicon.person(name, task.reading.snippet.article_id) is not None


def story(task: Task) -> str:
    """What names play a part in: the event itself, or the story of the subject; of what has no story, the subject."""
    topic = subject(task)
    if is_event(task):
        return topic
    return f"the {'life' if life(task) else 'story'} of {topic}" if is_narrative(task) else topic


def inside(task: Task) -> str:
    """Where: "in" or "during" an event, "in connection with" anything else."""
    topic = subject(task)
    if is_event(task):
        return f"{task.pick(('in', 'during'))} {topic}"
    return (
        task.pick((f"in {story(task)}", f"in connection with {topic}"))
        if is_narrative(task)
        else f"in connection with {topic}"
    )


def keys_of(task: Task, *kinds: Kind, but: Sequence[str] = (), most: int = 3) -> list[str]:
    """Two or three names that single this passage out: the rarest in the article, from different sentences."""
    ranked = _ranked(task, kinds or NAMES, but)
    rare = sorted(ranked, key=lambda name: ranked[name])[:6]
    sure = [name for name in rare if not ranked[name][0]]
    rare = sure if len(sure) > 2 else rare
    wanted = 3 if most > 2 and task.rng.random() < 0.4 else 2
    chosen: list[str] = []
    used: set[int] = set()
    for name in task.rotate(rare):
        apart = not any(name in other or other in name for other in chosen)
        if apart and ranked[name][-1] not in used and len(chosen) < wanted:
            chosen.append(name)
            used.add(ranked[name][-1])
    if len(chosen) < 2:
        raise Declined("fewer than two names that single the passage out")
    return sorted(chosen, key=lambda name: ranked[name][-1])


def _ranked(task: Task, kinds: Sequence[Kind], but: Sequence[str]) -> dict[str, tuple[bool, int, int]]:
    """Names with their rank, the best lowest, and last the number of their sentence."""
    counts = task.library.lexicon.counts
    ranked: dict[str, tuple[bool, int, int]] = {}
    for number, sentence in enumerate(task.reading.sentences):
        for mention in sentence.of(*kinds):
            if task.is_topic(mention.name) or mention.name in but or not _can_be_said(task, sentence, mention):
                continue
            once = mention.kind == "thing" and " " not in mention.name and counts[mention.text] < 2
            doubtful = once or mention.name in words.WIDE
            ranked.setdefault(_said(sentence, mention), (doubtful, counts[mention.text], number))
    return ranked


def _can_be_said(task: Task, sentence: Sentence, mention: Mention) -> bool:
    """Whether a name can stand alone in a question: no adjective, no bare number, no part of a longer word or title."""
    name = mention.name
    tokens = name.split(" ")
    before, after = sentence.text[: mention.start][-1:], sentence.text[mention.end :][:1]
    if len(name) <= 3 or re.search(r"\d{2,}", name) or before in ("-", "–", "“", '"') or after in ("-", "–"):
        return False
    if (
        _CUT.search(sentence.text[: mention.start])
        or _CUT_AFTER.match(sentence.text, mention.end)
        or name in _NO_NAME
        or tokens[0] in _NO_START
        or tokens[-1].lower() in words.FUNCTION_WORDS | {"toward", "towards", "upon"}
    ):
        return False
    if mention.kind != "thing":
        return True
    if tokens[0][0].isdigit() and (tokens[-1] not in words.NOT_A_PERSON or tokens[-1].endswith("ies")):
        return False  # "the 2nd New Zealand and 1st South African Divisions", cut apart
    if tokens[-1][0].isdigit() and " " in name and not tokens[-1].isdigit():
        return False
    heads = (tokens[0], " ".join(tokens[:2]))
    if any(head.endswith("s") and head[:-1] in words.TITLES for head in heads):
        return False  # "Privates Joseph Lockard and George Elliott"
    if len(tokens) == 1 and (name.isupper() or name not in task.library.lexicon.proper):
        return False
    after = sentence.text[mention.end :]
    if (
        _GOES_ON.match(after)
        or _PART_OF_NAME.search(sentence.text[: mention.start])
        or (mention.the and tokens[-1] not in _WITH_THE | words.NOT_A_PERSON and _NOUN_BEHIND.match(after))
    ):
        return False  # "Organization of the Petroleum Exporting Countries", "the Marcelo Caetano government"
    if mention.the:  # "the Japanese" are people, "the South American" is cut off before its noun
        return tokens[-1] in words.NOT_A_PERSON or not re.search(r"(?:[cei]an|i[ct])$", tokens[-1])
    adjective = DEMONYM.match(tokens[-1]) and not tokens[-1].endswith("s")
    return not (adjective or (len(tokens) == 1 and _ADJECTIVE.match(name)))


def _said(sentence: Sentence, mention: Mention) -> str:
    river = re.search(r"\b[Rr]iver $", sentence.text[: mention.start])
    return f"the {mention.name}" if river and not mention.noun.startswith("the ") else with_article(mention.noun)


def with_article(name: str) -> str:
    """A name with the article that English gives it, where the passage had "his" or "Chuikov's" in its place: "the 8th Guards Army"."""
    tokens = name.split(" ")
    bare_head = (
        tokens[-1] in _WITH_THE and len(tokens) > 1 and tokens[0] not in ("the", "The") and not tokens[0].isupper()
    )
    return f"the {name}" if bare_head and not name.startswith(("Operation ", "Task Force ")) else name


def joined(names: Sequence[str]) -> str:
    """Two or three names as one phrase."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


def bare(name: str) -> str:
    """A name without its article, for keywords."""
    return name.removeprefix("the ")


def is_someone(name: str) -> bool:
    """Whether a name taken for a person's can be asked after with "who": more than one word, none of them of a doctrine."""
    return " " in name and not any(_ABSTRACT.search(token) for token in name.split(" "))


def last_name(name: str) -> str:
    """A person's last name, with the particle that belongs to it: "de Gaulle", but "Kluge"."""
    tokens = name.split(" ")
    first = len(tokens) - 1
    while first > 1 and tokens[first - 1] in _PARTICLES:
        first -= 1
    return " ".join(tokens[first:])


def time_of(task: Task) -> str:
    """When the passage's events were, with a space before it: " in June 1942"; empty if its dates do not tell."""
    dates = [date for date in _dates(task) if _YEAR.search(date)]
    if not dates:
        return ""
    order = sorted(dict.fromkeys(dates), key=_moment)
    first, last = order[0], order[-1]
    if first == last:
        if len(_dates(task)) < 2 and not is_event(task):
            return ""  # one date of many sentences
        return f" {'on' if _parts(first) == 3 else 'in'} {first}"
    one, other = _moment(first), _moment(last)
    if _parts(first) != _parts(last):
        return ""  # "between 1932 and 19 February 1945"
    if other[0] - one[0] > WIDEST:
        return ""
    return f" between {first} and {last}"


def year_of(task: Task) -> str:
    """The year the passage names most, the first of equals; empty if it names none."""
    years = [year for date in _dates(task) for year in _YEAR.findall(date)]
    return max(years, key=years.count) if years else ""


def _dates(task: Task) -> list[str]:
    return [mention.text for sentence in task.reading.sentences for mention in sentence.of("date")]


def _moment(date: str) -> tuple[int, int, int]:
    """Year, month and day; 0 for what the date does not say."""
    month = next((number for number, name in enumerate(words.MONTHS, 1) if name in date), 0)
    day = re.search(r"\b\d{1,2}\b", date)
    return int(_YEAR.findall(date)[0]), month, int(day.group()) if day else 0


def _parts(date: str) -> int:
    """How exact a date is: 1 a year, 2 a month, 3 a day."""
    return 3 - _moment(date).count(0)
