"""How often the gates are wrong: their false rejects on gold, and what they let through, as figures that must hold.

Gold is what the repository carries: the sentences of the project's own articles, and the replies of tests/golden, written
by hand. Each test prints its figures (pytest -rP).
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foundation.prompt_type import PromptType
from foundation.records import Snippet
from generator.catalogue import load_catalogue
from generator.gates.duplicate import Duplicates
from generator.gates.fields import check_named, check_options, right_option
from generator.gates.grounded import Grounds, check_grounded
from generator.gates.names import WORD, is_passed, opens
from generator.gates.numbers import MONTHS, read_figures
from generator.gates.shape import check_shape
from generator.gates.standalone import check_standalone
from generator.render import shown

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
Sentences = dict[str, list[str]]


@pytest.fixture(scope="module")
def articles(wwii_snippets: list[Snippet]) -> Sentences:
    """The sentences of each article, each once."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for snippet in wwii_snippets:
        found[snippet.title].update(dict.fromkeys(snippet.sentences))
    return {title: list(sentences) for title, sentences in found.items()}


@pytest.fixture(scope="module")
def grounds(articles: Sentences) -> dict[str, Grounds]:
    return {title: Grounds.of("", title, sentences) for title, sentences in articles.items()}


def names_of(sentence: str) -> list[re.Match[str]]:
    """The capitalised words inside a sentence, but for those with digits and the very short."""
    return [
        match
        for match in WORD.finditer(sentence)
        if match[0][0].isupper() and match[0].isalpha() and len(match[0]) > 3
        if not is_passed(match[0]) and not opens(sentence, match.start())
    ]


def test_no_sentence_is_refused_by_the_snippet_it_stands_in(wwii_snippets: list[Snippet]) -> None:
    refused = []
    count = 0
    for snippet in wwii_snippets:
        grounds = Grounds.of(snippet.text, snippet.title)
        for sentence in snippet.sentences:
            count += 1
            result = check_grounded(sentence, "answer", grounds)
            refused += [] if result.ok else [(sentence, result.reason)]

    print(f"grounded: {len(refused)} of {count} true sentences refused")
    assert count > 1_900
    assert refused == []


def test_sentences_of_another_article_are_refused(articles: Sentences, grounds: dict[str, Grounds]) -> None:
    # given each sentence that has a name or a figure, and the articles that stand 1, 7 and 13 places further on
    titles = list(articles)
    verdicts: Counter[str] = Counter()
    for at, title in enumerate(titles):
        for other in (titles[(at + step) % len(titles)] for step in (1, 7, 13)):
            for sentence in articles[title]:
                if names_of(sentence) or read_figures(sentence):
                    result = check_grounded(sentence, "answer", grounds[other])
                    verdicts[result.code or "accepted"] += 1

    caught = 1 - verdicts["accepted"] / verdicts.total()
    print(f"grounded: {caught:.1%} of {verdicts.total():,} sentences refused by another article: {dict(verdicts)}")
    assert caught > 0.975


def spoiled(sentence: str, kind: str, pool: list[str], draw: random.Random) -> str | None:
    """`sentence` with one figure, month or name made another; None if it has none."""
    if kind == "name":
        names = names_of(sentence)
        if not names:
            return None
        match = draw.choice(names)
        return sentence[: match.start()] + draw.choice(pool) + sentence[match.end() :]
    figures = [figure for figure in read_figures(sentence) if figure.kind == kind]
    if kind == "date":
        months = [(figure, month) for figure in figures for month in MONTHS if month in figure.shown]
        if not months:
            return None
        figure, month = draw.choice(months)
        other = draw.choice([name for name in MONTHS if name != month])
        shown = figure.shown.replace(month, other)
    else:
        figures = [figure for figure in figures if re.fullmatch(r"[\d,.]+", figure.shown) and figure.values[0] > 2]
        if not figures:
            return None
        figure = draw.choice(figures)
        at = draw.choice([place for place, sign in enumerate(figure.shown) if sign.isdigit()])
        digit = draw.choice([sign for sign in "123456789" if sign != figure.shown[at]])
        shown = figure.shown[:at] + digit + figure.shown[at + 1 :]
    return sentence[: figure.start] + shown + sentence[figure.start + len(figure.shown) :]


@pytest.mark.parametrize(("kind", "least"), [("number", 0.90), ("date", 0.88), ("name", 0.89)])
def test_one_wrong_fact_in_a_true_sentence_is_caught(
    articles: Sentences, grounds: dict[str, Grounds], kind: str, least: float
) -> None:
    # given every sentence with one digit, one month or one name changed; a name comes from another article
    draw = random.Random(4)
    own = {title: {match[0] for text in texts for match in names_of(text)} for title, texts in articles.items()}
    every = sorted(set().union(*own.values()))
    count = caught = 0
    for title, sentences in articles.items():
        pool = [name for name in every if name not in own[title]]
        for sentence in sentences:
            wrong = spoiled(sentence, kind, pool, draw)
            if wrong is not None:
                count += 1
                caught += not check_grounded(wrong, "answer", grounds[title]).ok

    # then the ground of the whole article finds nearly all of them: the rest stand somewhere else in it
    print(f"grounded: {caught / count:.1%} of {count:,} sentences with one wrong {kind} refused")
    assert count > 150
    assert caught / count > least


def test_the_second_of_two_is_always_a_duplicate_and_the_first_never(articles: Sentences) -> None:
    seen = Duplicates()
    sentences = list(dict.fromkeys(text for texts in articles.values() for text in texts))

    first = [seen.check(text).ok for text in sentences]
    second = [seen.check(text.upper().replace(".", "!")).ok for text in sentences]

    print(
        f"duplicate: {first.count(False)} of {len(sentences):,} new sentences refused, {second.count(True)} repeats let through"
    )
    assert (first.count(False), second.count(True)) == (0, 0)


def strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    else:
        for entry in value.values() if isinstance(value, dict) else value:
            yield from strings(entry)


class Gold:
    """One reply of tests/golden: what the last call gave, with all that a record is made of."""

    def __init__(self, prompt_type: PromptType, example: dict[str, Any], fields: dict[str, Any]) -> None:
        self.prompt_type, self.example, self.fields = prompt_type, example, fields

    def grounds(self, articles: Sentences) -> Grounds:
        title = self.example["snippet"]["title"]
        partner = (self.example.get("partner") or {}).get("title", "")
        return Grounds.of("", title, articles[title], "\n".join([partner, *articles.get(partner, [])]))

    def texts(self, names: frozenset[str], right: bool = False) -> Iterator[tuple[str, str]]:
        """The strings of some of the fields; of the options the right one only, and that if asked for."""
        options = self.prompt_type.options
        out = {*options.fields, options.right} if options and options.right else set()
        chosen = (names & self.fields.keys()) - out | (
            {right_option(self.prompt_type, self.fields)} - {""} if right else set()
        )
        return ((name, text) for name in sorted(chosen) for text in strings(self.fields[name]))

    @property
    def answers(self) -> Iterator[tuple[str, str]]:
        return self.texts(shown(self.prompt_type).answered, right=True)

    @property
    def questions(self) -> Iterator[tuple[str, str]]:
        return self.texts(shown(self.prompt_type).asked)

    @property
    def also(self) -> str:
        """What an answer that corrects may repeat."""
        seen = shown(self.prompt_type)
        wrong = "wrong-on-purpose" in self.prompt_type.checks
        return "\n".join(text for _, text in self.texts(seen.asked | seen.mistaken)) if wrong else ""


@pytest.fixture(scope="module")
def gold() -> list[Gold]:
    catalogue = load_catalogue()
    found = []
    for path in sorted(GOLDEN.glob("*/*.json")):
        example = json.loads(path.read_text("utf-8"))
        replies = example["replies"]["ask"]
        found += [
            Gold(catalogue[f"{path.parent.name}/{path.stem}"], example, fields)
            for fields in (replies if isinstance(replies, list) else [replies])
        ]
    assert len(found) >= 20
    return found


def test_no_golden_answer_is_refused_as_ungrounded(gold: list[Gold], articles: Sentences) -> None:
    refused = []
    count = 0
    for one in gold:
        if "ungrounded" in one.prompt_type.checks:
            continue
        grounds = one.grounds(articles)
        for name, text in one.answers:
            count += 1
            result = check_grounded(text, name, grounds, one.also)
            refused += [] if result.ok else [(one.prompt_type.id, name, result.reason)]

    print(f"grounded: {len(refused)} of {count} golden texts refused")
    assert refused == []


def test_no_golden_reply_is_refused_by_the_gates_over_options_and_fields(gold: list[Gold]) -> None:
    verdicts = [
        (one.prompt_type.id, result.code, result.reason)
        for one in gold
        for result in (check_options(one.prompt_type, one.fields), check_named(one.prompt_type, one.fields))
    ]

    refused = [verdict for verdict in verdicts if verdict[1]]
    print(f"options and checks: {len(refused)} of {len(verdicts)} verdicts on {len(gold)} golden replies are rejects")
    assert refused == []


def test_no_golden_text_is_refused_for_its_shape_or_as_leaning(gold: list[Gold]) -> None:
    refused = []
    count = 0
    for one in gold:
        sees = bool(shown(one.prompt_type).asked & {"passage", "partner"})
        for name, text in (*one.questions, *one.answers):
            count += 1
            results = [check_shape(text, name)] + ([] if sees else [check_standalone(text, name)])
            refused += [(one.prompt_type.id, name, result.reason) for result in results if not result.ok]

    print(f"shape and standalone: {len(refused)} of {count} golden texts refused")
    assert refused == []


def test_no_golden_question_is_a_duplicate(gold: list[Gold]) -> None:
    seen = Duplicates()
    questions = [" ".join(text for _, text in one.questions) for one in gold]

    refused = [text for text in questions if text and not seen.check(text).ok]

    print(f"duplicate: {len(refused)} of {len(questions)} golden questions refused")
    assert refused == []
