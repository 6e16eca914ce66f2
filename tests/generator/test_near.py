"""Duplicates over a run: what is found equals a comparison of every pair, on real records and on planted ones."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import defaultdict
from itertools import combinations

import numpy as np
import orjson
import pytest

from foundation.records import Message, Record, Sampling, Snippet, Usage
from generator.catalogue import load_catalogue
from generator.near import SHINGLE, THRESHOLD, Found, Signatures, sketch, text_of, words_of
from generator.render import Source, chat_request, render_records
from generator.teachers.base import TeacherRequest
from generator.teachers.rules import RulesTeacher
from tests.support.commands import REPOSITORY

TYPES = ("cloze/entity", "structure/key-facts", "truth/true-statement", "wh/when", "wh/who", "wh/whose")


def found_in(texts: list[str], groups: list[str] | None = None) -> Found:
    signatures = Signatures()
    for text, group in zip(texts, groups or [""] * len(texts), strict=True):
        signatures.add(text, group)
    return signatures.find()


def shingles(text: str) -> set[tuple[bytes, ...]]:
    words = words_of(text)
    return {tuple(words[at : at + SHINGLE]) for at in range(max(len(words) - SHINGLE + 1, 1))}


def jaccard(one: str, other: str) -> float:
    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


@pytest.fixture(scope="module")
def real(wwii_snippets: list[Snippet]) -> list[str]:
    """Some 1,000 texts of the rules teacher."""

    async def ask() -> list[str]:
        texts, teacher = [], RulesTeacher()
        for prompt_type in map(load_catalogue().__getitem__, TYPES):
            requests = [
                TeacherRequest(chat_request(prompt_type, source, source.snippet.id, 1), prompt_type, source, 0)
                for source in map(Source, wwii_snippets)
            ]
            sources = {request.chat.id: request.source for request in requests}
            async for reply in teacher.complete(requests):
                if reply.finish == "stop":
                    for made in render_records(prompt_type, sources[reply.id], orjson.loads(reply.text), reply.id):
                        texts.append("\n".join(message.content for message in made.messages))
        return texts

    return asyncio.run(ask())


def test_on_real_records_it_finds_what_a_comparison_of_all_pairs_finds(real: list[str]) -> None:
    # given real records, and for every tenth long one a copy with one word changed
    draw = random.Random(3)
    texts = list(real)
    for text in [text for text in real if len(text.split()) >= 45][::4]:
        words = text.split()
        words[draw.randrange(len(words))] = "quartermaster"
        texts.append(" ".join(words))
    assert len(texts) > 900 and len(texts) - len(real) > 25
    # when every two that share a shingle are compared
    having = defaultdict(list)
    for at, text in enumerate(texts):
        for shingle in shingles(text):
            having[shingle].append(at)
    # (but for shingles of a template, which a hundred share: those that are alike have others in common)
    pairs = {pair for holders in having.values() if len(holders) < 100 for pair in combinations(holders, 2)}
    similarity = {pair: jaccard(texts[pair[0]], texts[pair[1]]) for pair in pairs}
    found = found_in(texts)
    # then whatever is well above the threshold is found, and nothing well below it
    alike = {later for (_, later), value in similarity.items() if value >= 0.88}
    assert len(alike) > 25
    missed = [at for at in alike if found.near[at] < 0]
    assert len(missed) <= 0.03 * len(alike), [texts[at] for at in missed]
    called = [(int(first), at) for at, first in enumerate(found.near) if first >= 0]
    values = [jaccard(texts[one], texts[other]) for other, one in called]
    assert min(values) >= THRESHOLD - 0.17  # four standard errors
    assert sum(value >= THRESHOLD - 0.05 for value in values) >= 0.9 * len(values)
    # and the planted ones with the text they were made of, or one that resembles it as well
    assert all(found.near[at] >= 0 for at in range(len(real), len(texts)) if at in alike)


def test_questions_of_one_template_are_no_duplicates() -> None:
    names = "Tarvik Osmark Lindhaven Brenna Kolmar Esterwick Oranienburg Vinnytsia".split()
    questions = [
        f"When did the siege of {name} begin, and who commanded the defenders of the town at that time?"
        for name in names
    ]
    questions += [f"Who was Captain {name}?" for name in names]
    found = found_in(questions)
    assert (found.near == -1).all() and (found.exact == -1).all()


def test_the_same_words_are_exact_duplicates_of_the_first() -> None:
    texts = [
        "Who led Café Müller?",
        "Another text.",
        "who led  cafe muller",
        "WHO LED: Café-Müller!",
        "?!",
        " ?! ",
        "!",
    ]
    found = found_in(texts)
    assert found.exact.tolist() == [-1, -1, 0, 0, -1, 4, -1]
    assert found.near.tolist() == found.exact.tolist()


def test_the_two_of_a_pair_are_never_duplicates_but_another_pair_is() -> None:
    text = "Which came first, the landing at Tarvik or the siege of Osmark? The landing at Tarvik came first."
    turned = "Which came first, the siege of Osmark or the landing at Tarvik? The landing at Tarvik came first."
    assert found_in([text, text], ["p", "p"]).near.tolist() == [-1, -1]
    found = found_in([text, text, text, turned], ["p", "p", "q", "q"])
    assert found.exact.tolist() == [-1, -1, 0, -1] and found.near.tolist()[:3] == [-1, -1, 0]


def test_what_is_called_near_resembles_the_first_of_its_group_and_not_only_a_neighbour() -> None:
    # given a row of texts, each the one before with some words gone at the front and others added behind
    words = [f"word{number}" for number in range(400)]
    texts = [" ".join(words[start : start + 100]) for start in range(0, 200, 5)]
    found = found_in(texts)
    grouped = [(at, int(first)) for at, first in enumerate(found.near) if first >= 0]
    assert grouped
    for at, first in grouped:
        assert found.near[first] == -1  # a leader is in no other group
        assert jaccard(texts[at], texts[first]) >= THRESHOLD - 0.17
    assert np.count_nonzero(found.near < 0) > 5


def test_parts_sketched_apart_give_the_same_as_all_in_one(real: list[str]) -> None:
    texts = [*real[:700], *real[:300]]
    whole = found_in(texts)
    signatures = Signatures()
    for start in range(0, len(texts), 130):
        signatures.extend(sketch(texts[start : start + 130], [""] * len(texts[start : start + 130])))
        signatures.extend(sketch([], []))  # a shard may be empty
    parts = signatures.find()
    assert (parts.exact == whole.exact).all() and (parts.near == whole.near).all()
    assert (whole.exact[700:] >= 0).sum() == 300
    nothing = Signatures().find()
    assert len(nothing.exact) == len(nothing.near) == 0


def test_a_sketch_is_the_same_in_every_process_and_on_every_machine() -> None:
    script = (
        "import hashlib; from generator.near import sketch\n"
        "one = sketch(['Who held the bridge at Osmark, Café Müller or the engineers?', 'No'], ['pair', ''])\n"
        "print(hashlib.sha256(b''.join(array.tobytes() for array in one)).hexdigest()[:16])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=REPOSITORY,
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert told == {"4af9dedb12fadbb0"}  # another value: sketches of another version cannot be compared with these


def test_memory_is_at_most_150_bytes_a_record() -> None:
    block = sketch([f"text number {number} of many that are told apart" for number in range(1000)], [""] * 1000)
    assert sum(array.nbytes for array in block) == 108 * 1000


def record(family: str, *turns: tuple[str, str], supervised: tuple[int, ...]) -> Record:
    return Record(
        id="r", item="i", unit="u", prompt_type=f"{family}/x", fingerprint="f", family=family, split="train",
        messages=tuple(Message(role=role, content=text) for role, text in turns),  # type: ignore[arg-type]
        supervised=supervised, snippet_id="s", article_id="a", title="t", source="c", teacher="rules:2",
        sampling=Sampling(), seed=1, usage=Usage(), round=0, attempt="z",
    )  # fmt: skip


def test_what_is_compared_is_what_the_teacher_wrote() -> None:
    one = record("qpt", ("user", "Who?"), ("assistant", "The passage."), supervised=(1,))
    assert text_of(one) == "Who?"
    two = record("rewrite", ("user", "Shorten this:\n\nThe passage."), ("assistant", "Short."), supervised=(1,))
    assert text_of(two) == "Shorten this:\nShort."
    turns = [
        ("system", "Be brief."),
        ("user", "When?"),
        ("assistant", "A mistake."),
        ("user", "No."),
        ("assistant", "In 1943."),
    ]
    assert text_of(record("dialogue", *turns, supervised=(4,))) == "When?\nNo.\nIn 1943."


def test_of_what_is_kept_no_two_resemble_each_other() -> None:
    """A record that resembles its neighbour, but not that one's leader, may resemble another that is kept."""
    # given groups of texts that drift away from one another, a word or three at a time
    chance = random.Random(5)
    words = [f"word{number}" for number in range(4000)]
    texts = []
    for _ in range(60):
        base = chance.sample(words, 60)
        for _ in range(12):
            own = list(base)
            for at in chance.sample(range(60), chance.randint(0, 3)):
                own[at] = chance.choice(words)
            texts.append(" ".join(own))

    # when they are compared, then among those kept no two are alike by the very sketches that were compared
    signatures = Signatures()
    for text in texts:
        signatures.add(text)
    found = signatures.find()
    kept = np.flatnonzero((found.exact < 0) & (found.near < 0))
    alike = [
        (one, other)
        for one in kept.tolist()
        for other in kept.tolist()
        if one < other and signatures._alike_one(one, other)
    ]
    assert 60 <= len(kept) < 720
    assert len(alike) <= 1, "an estimate near the threshold may share no band"
