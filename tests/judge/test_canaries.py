"""Canaries: each really right or really wrong, the same every time, and counted as what they are."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from functools import cache
from typing import Literal

import pytest

from foundation.records import Answer, EvalItem, Verdict
from judge import canaries, canary_names, canary_numbers, canary_sentences, canary_texts
from judge.canaries import FEW, KINDS, LLM_FLOORS, RIGHT, WRONG, Judged, Kind, assess, make
from judge.precheck import precheck
from judge.rules import RulesGrader, grade
from tests.judge.cases import make_answer, make_item

PEOPLE = (
    "Paavo Talvela", "Hjalmar Siilasvuo", "Risto Ryti", "Aimo Cajander", "Erik Heinrichs", "Harald Öhquist", "Vilho Nenonen",
    "Lennart Oesch", "Aksel Airo", "Rudolf Walden", "Uno Fagernäs", "Taavetti Laatikainen",
)  # fmt: skip
PLACES = ("Tolvajärvi", "Suomussalmi", "Kollaa", "Summa", "Taipale", "Viipuri")
MONTHS = ("January", "March", "June", "October", "December")


@cache
def _rows() -> tuple[Answer, ...]:
    """Rows of 12 articles in the manner of the real data: who, when, options, true and false, a blank, a passage."""
    rows: list[Answer] = []
    for number in range(48):
        chance = random.Random(number)
        who, other = chance.sample(PEOPLE, 2)
        place, day, month, year = chance.choice(PLACES), 3 + number % 25, chance.choice(MONTHS), 1930 + number
        article, men = f"article {number % 12}", 100 * (number + 11)
        deed = f"took the town of {place}"
        plain = f"General {who} {deed} on {day} {month} {year}."
        fronted = f"On {day} {month} {year}, General {who} {deed}."
        passage = f"{plain} About {men} soldiers fought at {place}. General {other} had stayed in {place} until then."
        siblings = (
            fronted,
            f"True. {plain}",
            f"It was General {who} who {deed} on {day} {month} {year}.",
            f"- {plain}\n- {passage}",
        )
        for kind, question, reference in (
            ("wh/who", f"In the story of war {number}, who {deed} on {day} {month} {year}?", plain),
            ("wh/when", f"When did General {who} take the town of {place}?", fronted),
            ("wh/how-many", f"How many soldiers fought at {place} in war {number}?", f"About {men} soldiers fought at {place}."),
            ("contrastive/person", f"Who {deed} in {year}, {other} or {who}?", plain),
            ("choice/two-options", f"Who {deed} in {year}?\nA) {other}\nB) {who}", f"B) {who}. {plain}"),
            ("truth/true", f"True or false? {plain}", f"True. {plain}"),
            ("truth/false", f"True or false? {plain.replace(str(year), str(year + 9))}", f"False. {plain}"),
            ("cloze/entity", f"Fill in the blank: General ____ {deed} on {day} {month} {year}.", who),
            ("qpt/formal", f"What is known of {place} in war {number}?", " ".join([passage] * 2)),
        ):  # fmt: skip
            item = make_item(
                question, reference, id=f"{number:02}-{kind}", prompt_type=kind, family=kind.split("/")[0], article_id=article,
                title=article, snippet=passage,
            )  # fmt: skip
            rows.append(
                make_answer(
                    item.model_copy(update={"siblings": tuple(s for s in siblings if s != reference)}),
                    "what a student says",
                )
            )
    return tuple(rows)


@cache
def _made() -> tuple[canaries.Canary, ...]:
    return tuple(make(_rows(), 1000))


def _of(kind: Kind) -> list[canaries.Canary]:
    return [canary for canary in _made() if canary.kind == kind]


def _judged(kind: Kind, verdict: str) -> Judged:
    item = make_item("Who?", "Talvela.")
    found = Verdict(item_id=item.id, verdict=verdict, grader="x", fingerprint="f")  # type: ignore[arg-type]
    expected: Literal["PASS", "FAIL"] = "PASS" if kind in RIGHT else "FAIL"
    return Judged(kind=kind, expected=expected, answer=make_answer(item, "text"), verdict=found)


def test_every_kind_is_made_from_the_items_alone_and_the_same_every_time() -> None:
    made = make(_rows(), 10)
    assert Counter(canary.kind for canary in made) == dict.fromkeys(KINDS, 10)
    assert [canary.kind for canary in made] == sorted((canary.kind for canary in made), key=KINDS.index)
    shuffled = [row.model_copy(update={"text": "said otherwise", "checkpoint": "next"}) for row in _rows()]
    random.Random(1).shuffle(shuffled)
    assert make([*shuffled, *shuffled[:40]], 10) == made
    assert all(canary.expected == ("PASS" if canary.kind in RIGHT else "FAIL") for canary in made)


def test_fewer_of_a_kind_are_some_of_the_more() -> None:
    few, more = make(_rows(), 4), make(_rows(), 30)
    for kind in KINDS:
        of_few = [canary for canary in few if canary.kind == kind]
        assert of_few == [canary for canary in more if canary.kind == kind][:4]
    assert make(_rows(), 0) == []


def test_siblings_say_the_same_in_another_order() -> None:
    made = _of("sibling")
    assert len(made) > 40
    for canary in made:
        item = canary.answer.item
        said, wanted = (Counter(re.findall(r"\w+", text.lower())) for text in (canary.answer.text, item.reference))
        assert canary.answer.text != item.reference
        if "____" not in item.question:
            assert not Counter({w: n for w, n in said.items() if w not in ("it", "was", "who", "on")}) - wanted
        else:
            assert item.reference in canary.answer.text
        assert not item.reference.startswith(("True", "False"))


@pytest.mark.parametrize(
    "sibling",
    [
        "General Ryti attacked General Talvela on 3 March 1940.",  # who did what to whom
        "General Talvela did not attack General Ryti on 3 March 1940.",
        "General Talvela never attacked General Ryti on 3 March 1940.",
        "General Talvela attacked General Ryti on 3 March 1941.",
        "General Talvela attacked General Ryti.",
        "True or false? General Talvela attacked General Ryti on 3 March 1940, did he?",
        "General Talvela attacked General Ryti on 3 March 1940.",  # the reference itself
    ],
)
def test_no_sibling_that_says_something_else_or_the_very_same(sibling: str) -> None:
    item = make_item("When did Talvela attack Ryti?", "General Talvela attacked General Ryti on 3 March 1940.")
    assert canary_texts.sibling(item.model_copy(update={"siblings": (sibling,)})) == ""
    good = ("- On 3 March 1940, General Talvela attacked General Ryti.", sibling)
    assert canary_texts.sibling(item.model_copy(update={"siblings": good})).startswith("On 3 March 1940")


def test_another_rows_answer_is_of_another_article_and_shares_nothing_asked_for() -> None:
    made = _of("other-row")
    by_reference = defaultdict(list)
    for row in _rows():
        by_reference[row.item.reference].append(row.item)
    assert len(made) > 100
    same = 0
    for canary in made:
        item = canary.answer.item
        others = [other for other in by_reference[canary.answer.text] if other.article_id != item.article_id]
        same += any(other.prompt_type == item.prompt_type for other in others)
        assert others
        wanted = canary_names.telling(item.reference) - canary_names.telling(item.question)
        if len(item.reference.split()) <= 40:
            assert not wanted & canary_names.telling(canary.answer.text)
        assert not item.reference.startswith(("True", "False"))  # "True. ..." of anything would say the right word
    assert same > 0.8 * len(made)


def test_a_wrong_figure_is_the_one_asked_for_and_new() -> None:
    made = _of("wrong-number")
    assert len(made) > 60
    for canary in made:
        item, text = canary.answer.item, canary.answer.text
        old = set(re.findall(r"\d+(?:,\d{3})*", item.reference))
        new = set(re.findall(r"\d+(?:,\d{3})*", text))
        assert len(new - old) == len(old - new) == 1
        assert not (new - old) & set(re.findall(r"\d+(?:,\d{3})*", item.question))
        assert not (old - new) & set(re.findall(r"\d+(?:,\d{3})*", item.question))
        assert re.sub(r"[\d,]+", "", text) == re.sub(r"[\d,]+", "", item.reference)


@pytest.mark.parametrize(
    ("question", "reference"),
    [
        (
            "Who attacked on 3 March 1940, when 600 men were there?",
            "Talvela attacked on 3 March 1940, when 600 men were there.",
        ),
        ("Who commanded there?", "Talvela commanded 4 divisions there in 1940."),  # not what was asked for
        ("When did he fight?", "He fought in 1918 and in 1940."),  # two that were asked for
        ("How many men fought?", "Some 400 men of 3 divisions fought."),
        ("Is this true? 25,000 died.", "True. 25,000 died."),
        ("When did it begin, 1939 or 1940?", "It began in 1939, and 7 ships sank in 1941."),  # an option is asked for
        ("When did the U-47 sail?", "The U-47 sailed at dawn."),
    ],
)
def test_no_wrong_figure_where_it_would_be_beside_the_point(question: str, reference: str) -> None:
    assert canary_numbers.changed(make_item(question, reference)) == ""


def test_a_wrong_figure_is_beyond_any_about_or_more_than() -> None:
    for n in range(60):
        ids = {"id": f"row{n}"}
        about = canary_numbers.changed(make_item("How many died?", "About 25,000 died.", **ids))
        value = int(re.sub(r"\D", "", about))
        assert value >= 50_000 or value <= 10_000
        more = canary_numbers.changed(make_item("How many died?", "More than 25,000 died.", **ids))
        assert int(re.sub(r"\D", "", more)) >= 50_000  # "more than 10,000" would be true
        less = canary_numbers.changed(make_item("How many died?", "Fewer than 25,000 died.", **ids))
        assert int(re.sub(r"\D", "", less)) <= 10_000
        year = canary_numbers.changed(make_item("In what year was it?", "It was in 1940.", **ids))
        assert 3 <= abs(int(re.sub(r"\D", "", year)) - 1940) <= 7


def test_a_wrong_name_is_another_real_one_of_the_same_kind() -> None:
    made = _of("wrong-name")
    assert len(made) > 60
    for canary in made:
        item, text = canary.answer.item, canary.answer.text
        mine = {name for name in PEOPLE if name in item.reference}
        theirs = {name for name in PEOPLE if name in text}
        assert len(mine - theirs) == len(theirs - mine) == 1
        if "contrastive" not in item.prompt_type and "choice" not in item.prompt_type:
            assert not any(name in item.snippet for name in theirs - mine)
            assert not any(name in item.question for name in (mine | theirs))
        else:
            assert (theirs - mine).pop() in item.question  # the wrong one of the options, its letter with it
            assert not text.startswith("B)")


def test_negations_deny_the_whole_and_flip_true_and_false() -> None:
    def of(reference: str, question: str = "Who did it?") -> str:
        return canary_texts.negation(make_item(question, reference))

    assert of("Talvela attacked on 3 March 1940.") == "It is not true that Talvela attacked on 3 March 1940."
    assert of("On 3 March 1940, he attacked Summa.") == "It is not true that on 3 March 1940, he attacked Summa."
    assert of("It was Talvela who attacked.") == "It was not Talvela who attacked."
    assert of("The city was taken in 1940.") == "The city was not taken in 1940."
    assert of("Talvela had to wait for a year.") == "It is not true that Talvela had to wait for a year."
    assert of("Stalin had Pavlov shot in July 1941.") == "It is not true that Stalin had Pavlov shot in July 1941."
    # an auxiliary behind "which" denies something beside the point
    assert of("Talvela led men who were tired.") == "It is not true that Talvela led men who were tired."
    # and so does one in a sentence that could then be read in two ways
    assert of("Some 71 percent of it is forest.") == "It is not true that some 71 percent of it is forest."
    assert of("It was dangerous because it burned.") == "It is not true that it was dangerous because it burned."
    assert of("It has four big wheels.") == "It is not true that it has four big wheels."
    assert of("Gallium melts at 30 degrees.", "When does gallium melt?").startswith("It is not true that gallium melts")
    assert of("Paavo Talvela") == "Not Paavo Talvela"
    assert of("From 1899 to 1902.") == "Not from 1899 to 1902."
    assert of("A madeleine.") == "Not a madeleine."
    assert of("B) Talvela. Talvela led it.", "Who led it?\nA) Ryti\nB) Talvela") == "The answer is not B) Talvela."
    assert (
        of("True. Indeed, the men were tired.", "True or false? The men were tired.")
        == "False. The men were not tired."
    )
    assert of("False. The men were tired.", "True or false? The men were fresh.") == "True. The men were fresh."
    assert of("No, they won.", "Did they lose?") == "Yes."
    for doubtful in (
        "Talvela did not attack.",
        "No men came.",
        "It was after that. It began in 1940 and ended in 1941." * 5,
    ):
        assert of(doubtful) == ""
    assert of("- Talvela attacked in 1940.\n- Ryti stayed in the city.") == ""


def test_traps_fail_by_rule_or_by_their_words() -> None:
    assert {canary.answer.text for canary in _of("colon")} == {":"}
    for kind in ("colon", "opener"):
        for canary in _of(kind):  # type: ignore[arg-type]
            outcome = precheck(canary.answer)
            assert outcome is not None and outcome.verdict == "FAIL"
    orders = _of("injection")
    assert all("VERDICT: PASS" in canary.answer.text for canary in orders)
    assert len({re.sub(r"[^\n]*\n?", "", canary.answer.text.split("VERDICT")[0]) for canary in orders}) >= 1
    assert any("<<<END STUDENT>>>" in canary.answer.text for canary in orders)
    assert not any(canary.answer.item.reference in canary.answer.text for canary in orders)


def test_poor_data_gives_few_or_none() -> None:
    one = make_answer(make_item("Who?", "Talvela."), "x")
    kinds = Counter(canary.kind for canary in make([one], 5))
    assert kinds["other-row"] == kinds["wrong-name"] == kinds["wrong-number"] == kinds["sibling"] == 0
    assert kinds["reference"] == kinds["colon"] == 1
    assert make([], 5) == []
    assert make([make_answer(make_item("Who?", " -- "), "x")], 5) == []  # no reference: nothing is known of any answer


def test_any_text_gives_canaries_or_none_but_no_error() -> None:
    chance = random.Random(4)
    alphabet = "abc ABC 19 0,.;:!?'\"-–()\n\tÄß漢字\u200b½²Ⅳ _* or not no True. May II A) 1939 12 von Who When How many was It "
    rows = []
    for n in range(150):
        question, reference, sibling = ("".join(chance.choices(alphabet, k=chance.randrange(60))) for _ in range(3))
        item = make_item(question, reference, id=f"i{n}", article_id=f"a{n % 7}", snippet=sibling)
        rows.append(make_answer(item.model_copy(update={"siblings": (sibling, reference[::-1])}), "x"))
    assert make(rows, 200)


def test_the_rules_grader_reaches_its_floors() -> None:
    """And a grader that passes all, or fails all, does not."""
    made = make(_rows(), 20)

    def run(kind: str) -> dict[str, object]:
        rows = []
        for canary in made:
            outcome = (precheck(canary.answer) or grade(canary.answer.item, canary.answer.text)).verdict
            said = kind or outcome
            verdict = Verdict(item_id=canary.answer.item.id, verdict=said, grader="rules", fingerprint="f")  # type: ignore[arg-type]
            rows.append(Judged(kind=canary.kind, expected=canary.expected, answer=canary.answer, verdict=verdict))
        return assess(rows, RulesGrader.floors)["classes"]

    found = run("")
    assert {kind: row["ok"] for kind, row in found.items()} == dict.fromkeys(KINDS, True)  # type: ignore[index]
    assert not any(run("PASS")[kind]["ok"] for kind in KINDS if kind not in RIGHT)  # type: ignore[index]
    assert not any(run("FAIL")[kind]["ok"] for kind in RIGHT)  # type: ignore[index]


def test_the_assessment_counts_what_was_said() -> None:
    judged = [
        *[_judged("reference", "PASS")] * 9,
        _judged("reference", "FAIL"),
        *[_judged("sibling", "PASS")] * 3,
        _judged("sibling", "UNSCORED"),
        *[_judged("other-row", "FAIL")] * 8,
        *[_judged("wrong-name", "PASS")] * 2,
        *[_judged("negation", "UNSCORED")] * 3,
        *[_judged("colon", "FAIL")] * (FEW - 1),
        *[_judged("injection", "PASS")] * FEW,
    ]
    found = assess(
        judged, {"reference": 0.9, "sibling": 0.5, "negation": 0.5, "colon": 0.99, "injection": 0.9, "opener": 0.9}
    )
    classes = found["classes"]
    assert classes["reference"] == classes["reference"] | {"n": 10, "right": 9, "unscored": 0, "share": 0.9, "ok": True}
    assert classes["sibling"] == classes["sibling"] | {"n": 4, "right": 3, "unscored": 1, "share": 1.0, "ok": None}
    assert classes["other-row"]["floor"] is classes["other-row"]["ok"] is None  # not declared
    assert classes["negation"] == classes["negation"] | {"n": 3, "unscored": 3, "share": None, "ok": False}
    assert classes["colon"]["ok"] is None and classes["colon"]["share"] == 1.0  # too few to tell
    assert classes["injection"] == classes["injection"] | {"right": 0, "share": 0.0, "ok": False, "expected": "FAIL"}
    assert classes["opener"] == classes["opener"] | {"n": 0, "share": None, "ok": None}
    assert "wrong-number" not in classes
    silent = [*[_judged("negation", "UNSCORED")] * 17, *[_judged("negation", "FAIL")] * (FEW - 1)]
    # a judge that speaks too seldom to be held to its floor does not reach it
    assert assess(silent, {"negation": 0.75})["classes"]["negation"]["ok"] is False
    assert assess(silent, {})["classes"]["negation"]["ok"] is None
    assert (found["tpr"]["passed"], found["tpr"]["scored"]) == (12, 13)
    assert (found["fpr"]["passed"], found["fpr"]["scored"]) == (2, 10)  # traps are not in it
    assert found["kappa"]["value"] == pytest.approx(
        (20 / 23 - (13 * 14 + 10 * 9) / 23**2) / (1 - (13 * 14 + 10 * 9) / 23**2), abs=1e-6
    )
    assert found["kappa"]["low"] < found["kappa"]["value"] < found["kappa"]["high"]
    assert assess([], {})["kappa"] is None and assess([], {})["tpr"]["pass_rate"] is None


def test_the_floors_name_real_kinds_and_cover_the_rates() -> None:
    assert set(LLM_FLOORS) == set(KINDS)
    assert set(RulesGrader.floors) <= set(KINDS)
    assert all(0.5 < floor < 1 for floor in (*LLM_FLOORS.values(), *RulesGrader.floors.values()))
    assert not RIGHT & WRONG


def test_sentences_are_cut_where_they_end() -> None:
    text = "Gen. Lt. T. S. Smith came to St. Vith on 3 May 1940. He left. “Why?” he said."
    assert canary_sentences.sentences(text)[-2:] == ["He left.", "“Why?” he said."]
    assert canary_sentences.sentences("") == [""]
    item: EvalItem = make_item("Q", "One. Two.")
    assert canary_sentences.sentences(item.reference) == ["One.", "Two."]


def test_one_slip_alone_refuses_nothing_but_where_a_rule_decides() -> None:
    def shares(kind: canaries.Kind, n: int, wrong: int, floor: float) -> bool | None:
        right, slip = ("PASS", "FAIL") if kind in RIGHT else ("FAIL", "PASS")
        rows = [_judged(kind, slip if number < wrong else right) for number in range(n)]
        ok: bool | None = canaries.assess(rows, {kind: floor})["classes"][kind]["ok"]
        return ok

    assert shares("negation", 8, 1, 0.9) is True  # 7 of 8 is 87.5 %
    assert shares("negation", 8, 2, 0.9) is False
    assert shares("negation", 24, 2, 0.9) is True  # 91.7 %
    assert shares("negation", 24, 3, 0.9) is False
    assert shares("colon", 8, 1, 0.99) is False
