"""`factory stats` on texts: lengths, places, variety and duplicates equal what was put in; processes change nothing."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foundation.corpus import Corpus
from foundation.errors import Failure
from foundation.records import Message, Record, Snippet
from generator.report import survey as module
from generator.report.figures import document
from generator.report.places import place
from generator.report.survey import survey
from generator.report.texts import Sample, spread
from generator.report.variety import FEWEST, skeletons, variety, warning
from tests.generator.report_workspace import TYPES as MADE
from tests.generator.report_workspace import Built, build
from tests.support.commands import run, run_json

NAMES = "Brecht Lindqvist Vereen Marran Oswin Duval Okafor Tanaka Romero Petrov Haddad Novak".split()
VERBS = "lead plan leave cross describe remember oppose regret inspect defend rebuild abandon".split()
FRAMES = (
    "Who was {name}, and what had {name} to do with {year}?",
    "In {year}, what made {name} {verb} the bridge?",
    "Tell me how {name} came to {verb} the harbour in {year}.",
    "I read that somebody had to {verb} the mill in {year}: was it {name}?",
)


def questions(frames: tuple[str, ...], count: int) -> list[str]:
    draw = random.Random(7)
    return [
        draw.choice(frames).format(name=draw.choice(NAMES), verb=draw.choice(VERBS), year=draw.randint(1900, 1960))
        for _ in range(count)
    ]


def fill(tmp_path: Path, asked: dict[str, list[str]], answer: str = "The army of day 2 crossed.") -> Built:
    """A workspace whose records ask these questions, in units of four."""
    built = build(tmp_path, "corpus", "plan")
    for kind, texts in asked.items():
        for at in range(0, len(texts), 4):
            unit = built.unit(kind, at)
            records = [
                built.record(unit, built.snippets[(at + index) % 4]).model_copy(
                    update={"id": Record.make_id(f"{kind}{at + index}", "ask", ""), "messages": _turns(text, answer)}
                )
                for index, text in enumerate(texts[at : at + 4])
            ]
            built.commit(unit, records, [])
    return built


def _turns(question: str, answer: str) -> tuple[Message, ...]:
    return (Message(role="user", content=question), Message(role="assistant", content=answer))


def rows(built: Built, *arguments: str) -> dict[str, dict[str, Any]]:
    told = run_json("factory", "stats", *arguments, cwd=built.workspace.root)
    return {row["prompt_type"]: row for row in told["prompt_types"]}


def test_a_type_of_one_skeleton_is_warned_of_and_one_of_several_is_not(tmp_path: Path) -> None:
    # given a type that always asks in the same way, and one with four ways
    built = fill(tmp_path, {MADE[0]: questions(FRAMES[:1], 60), MADE[1]: questions(FRAMES, 60)})
    # when
    told = rows(built)
    # then the first is named, with its frame and share, and the second is not
    assert told[MADE[1]]["warning"] == ""
    assert "who was …" in told[MADE[0]]["warning"] and "100%" in told[MADE[0]]["warning"]
    assert told[MADE[0]]["variety"]["skeleton"]["different"] == 1
    assert told[MADE[0]]["variety"]["opening"]["different"] > 5  # the first words alone would not have shown it
    out = run("factory", "stats", cwd=built.workspace.root).stdout
    (line,) = [line for line in out.splitlines() if line.startswith("WARNING")]
    assert MADE[0] in line


def test_too_few_questions_are_not_judged() -> None:
    few = questions(FRAMES[:1], FEWEST - 1)
    assert warning("a/b", variety(few)) == "" and warning("a/b", variety([*few, few[0]])) != ""
    assert variety([]) == {} and warning("a/b", {}) == ""


def test_variety_is_what_a_count_by_hand_gives() -> None:
    told = variety(["Who led it?", "Who led them?", "Who led it?", "Where was it?"])
    assert told["distinct_1"] == pytest.approx(6 / 12)
    assert told["distinct_2"] == pytest.approx(5 / 8)
    assert told["distinct_3"] == pytest.approx(3 / 4)
    assert told["opening"] == {
        "different": 3,
        "entropy": pytest.approx(1.5),
        "evenness": pytest.approx(0.75),
        "commonest": "who led it",
        "share": 0.5,
    }


def test_a_skeleton_masks_names_numbers_and_rare_words() -> None:
    texts = [
        "Who was Otto Carius?",
        "Who was Mrs. Miniver?",
        "Hello. Who was the Duke of Oldland in 1944?",
        "Who was I?",
    ]
    assert skeletons([*texts, "who was afraid?"] * 2)[:5] == [
        "who was …",
        "who was …",
        "… who was …",
        "who was …",
        "who was …",
    ]


def test_questions_that_are_all_different_are_not_taken_for_one_skeleton() -> None:
    draw = random.Random(1)
    texts = [" ".join("".join(draw.choices("abcdefghij", k=6)) for _ in range(8)) for _ in range(100)]
    assert set(skeletons(texts)) == {"…"}
    assert warning("a/b", variety(texts)) == ""


def test_lengths_are_those_of_the_texts(tmp_path: Path) -> None:
    asked = [" ".join(["word"] * count) for count in range(1, 41)]
    row = rows(fill(tmp_path, {MADE[0]: asked}, answer="two words"))[MADE[0]]
    assert row["lengths"]["question_words"] == {"min": 1, "p5": 2, "median": 20, "p95": 38, "max": 40}
    assert row["lengths"]["question_characters"]["max"] == 40 * 5 - 1
    assert set(row["lengths"]["answer_words"].values()) == {2} and set(
        row["lengths"]["answer_characters"].values()
    ) == {9}
    assert spread(Counter({7: 1})) == dict.fromkeys(("min", "p5", "median", "p95", "max"), 7)


SENTENCES = (
    "General Brecht held the bridge at Osmark.",
    "Engineers mined the harbour in 1943.",
    "Lindqvist wrote letters about the siege.",
    "The squadron left Kolmar before dawn.",
    "Workers rebuilt the northern yards later.",
    "An archive keeps eleven papers today.",
)


@pytest.mark.parametrize("at", range(6))
def test_a_record_is_placed_where_its_sentence_stands(at: int) -> None:
    shares = place(SENTENCES, f"What is said of this? {SENTENCES[at]}")
    assert shares is not None and shares[at // 2] == pytest.approx(1.0)


def test_a_record_from_everywhere_counts_a_third_for_each_and_one_from_nowhere_is_unclear() -> None:
    assert place(SENTENCES, " ".join(SENTENCES)) == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=0.1)
    assert place(SENTENCES, "Wholly different words.") is None
    assert place(("One sentence only.",), "It has one sentence.") == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_places_are_looked_up_in_the_snippets(tmp_path: Path) -> None:
    # given a snippet of six sentences, and questions that are all of its last third
    built = build(tmp_path, "corpus", "plan")
    text = " ".join(SENTENCES)
    values = {"article_id": built.snippets[0].article_id, "title": "t", "source": "s", "index": 0}
    snippet = Snippet(id=Snippet.make_id(text), sentences=SENTENCES, text=text, **values)  # type: ignore[arg-type]
    name, data = Corpus(built.store).block_file(2, [snippet])
    built.store.put(name, data)
    unit = built.unit(MADE[0], 0)
    record = built.record(unit, snippet).model_copy(
        update={"messages": _turns("Who rebuilt the yards?", "Workers rebuilt the northern yards.")}
    )
    built.commit(unit, [record], [])
    # when, then
    told = rows(built)[MADE[0]]["places"]
    assert told == {"records": 1, "first": 0.0, "middle": 0.0, "last": pytest.approx(1.0), "unclear": 0.0}
    assert "last" in run("factory", "stats", cwd=built.workspace.root).stdout


def test_duplicates_are_counted_by_type_and_across_types(tmp_path: Path) -> None:
    # given 8 different questions; of one type three are repeated, and the other type has two of the first one's
    first, second = questions(FRAMES, 40)[:8], questions(FRAMES[1:2], 40)[:2]
    long = "On which day did the engineers of the third column blow up the old stone bridge at the mouth of the river behind the town, so that the guns of the enemy could not follow them into the hills, and what did the people of the town say?"
    built = fill(
        tmp_path,
        {MADE[0]: [*first, *first[:2], long, long.replace("stone", "iron")], MADE[1]: [*second, first[5].upper()]},
    )
    told = run_json("factory", "stats", cwd=built.workspace.root)
    found = {row["prompt_type"]: row["duplicates"] for row in told["prompt_types"]}
    assert found[MADE[0]] == {"exact": 2, "near": 1, "across_types": 0, "share": 3 / 12}
    assert found[MADE[1]]["across_types"] == found[MADE[1]]["exact"] == 1
    assert told["total"]["duplicates"]["exact"] == 3 and told["total"]["duplicates"]["near"] == 1
    assert all(group["records"] == 2 for group in told["groups"]) and len(told["groups"]) == 4
    assert any({"stone", "iron"} <= {*group["first"].split(), *group["last"].split()} for group in told["groups"])
    assert "3 exact and 1 near duplicates among 15 records" in run("factory", "stats", cwd=built.workspace.root).stdout


def test_tokens_and_seconds_are_those_of_every_call_rejects_included(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan", "generate")
    told = rows(built)
    one = told[MADE[0]]  # 4 accepted and 4 rejected, each 100 + 10 tokens in 0.5 s
    assert (one["prompt_tokens"], one["completion_tokens"], one["seconds"]) == (800, 80, 4.0)
    assert one["tokens_per_record"] == 880 / 4
    pairs = told[MADE[1]]  # 2 pairs and 2 rejects: a pair is one call
    assert (pairs["prompt_tokens"], pairs["records"], pairs["tokens_per_record"]) == (400, 4, 440 / 4)


def test_several_processes_give_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a few units, read two at a time, with broken lines among them
    monkeypatch.setattr(module, "PART", 2)
    built = fill(tmp_path, {MADE[0]: questions(FRAMES, 40), MADE[1]: questions(FRAMES[:2], 30)})
    shard = built.unit(MADE[0], 8).shard
    built.store.put(shard, built.store.get(shard) + b'{"half')
    # when
    seen: list[int] = []
    alone, together = document(survey(built.store, processes=1)), document(survey(built.store, None, seen.append, 3))
    # then
    assert alone == together
    assert together["broken_lines"] == 1 and together["total"]["records"] == 70 and sum(seen) == 18


def test_a_record_of_another_version_stops_it_in_whatever_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", 1)
    built = fill(tmp_path, {MADE[0]: questions(FRAMES, 24)})
    shard = sorted(built.store.list("shards"))[3]
    built.store.put(shard, built.store.get(shard).replace(b'"v":1', b'"v":9', 1))
    for processes in (1, 2):
        with pytest.raises(Failure, match="another version") as caught:
            survey(built.store, processes=processes)
        assert caught.value.where == f"{shard}:1" and "upgrade" in caught.value.mend


def test_a_sample_is_the_same_whatever_the_order_and_however_parted() -> None:
    ids = [f"{random.Random(at).getrandbits(64):016x}" for at in range(500)]
    wanted = sorted(ids)[:20]
    for seed in range(5):
        random.Random(seed).shuffle(ids)
        one, other = Sample[str](20), Sample[str](20)
        for at, identity in enumerate(ids):
            sample = (one, other)[at % 2]
            if sample.wants(identity):
                sample.add(identity, identity)
        one.merge(other)
        assert one.things() == wanted
