"""The grounded gate: how many ways of writing a fact it knows for one fact, and which inventions it stops."""

from __future__ import annotations

import pytest

from generator.gates.grounded import Grounds, check_grounded

PASSAGE = (
    "On 16 July 1940, Adolf Hitler issued Directive No. 16, which ordered plans for a landing in England. "
    "Field Marshal Walther von Brauchitsch expected to land nine divisions, and some 1,200 barges were gathered. "
    "German pilots of Luftflotte 2 met the Royal Air Force on the 13th of August, and twenty-one aircraft were shot down. "
    "Air Chief Marshal Sir Hugh Dowding led Fighter Command, and Łódź and Göring's staff were far away. "
    "From 4 to 7 September the bombers flew 2.5 million kilometres, 20 per cent of it by night. "
    "Henry VIII built the fort that B-17s and Me-109s flew over in 1941–42."
)
ARTICLE = (
    PASSAGE,
    "The U.S. Navy and the Dutch watched in May 1939. A dozen men of the SOE, a half-German unit, came in the Second World War.",
    "In the 1820s the village had been poor, and in the nineteenth century it grew.",
)
GROUNDS = Grounds.of(PASSAGE, "Operation Sea Lion", ARTICLE)


@pytest.mark.parametrize(
    "text",
    [
        # numbers, however they are written
        "1200 barges were gathered.",
        "Twelve hundred barges were gathered.",
        "About 1.2 thousand barges were gathered.",
        "Hitler issued directive number sixteen.",
        "They planned with 9 divisions.",
        "21 aircraft were shot down.",
        "They flew 2,500,000 kilometres.",
        "They flew 2.5 million kilometres.",
        "20% of it was flown by night.",
        "Twenty percent was flown by night.",
        "12 men of the SOE came.",
        "The first two of them landed.",
        "Dozens of aircraft were shot down.",
        "The fort of Henry the Eighth lay below.",
        "The fort of Henry the 8th lay below.",
        # dates, in any order, and as exactly as the ground or less
        "It was issued on July 16, 1940.",
        "It was issued on 16th July 1940.",
        "It was issued on the sixteenth of July 1940.",
        "1940-07-16",
        "16/07/1940",
        "07/16/1940",
        "16 Jul. 1940",
        "It was issued in July 1940.",
        "It was issued in 1940.",
        "It was issued in July.",
        "It was issued in the 1940s.",
        "It was issued in the 20th century.",
        "It was issued in the twentieth century.",
        # a range, and a date whose year stands beside it
        "The bombers flew on 7 September 1940.",
        "The bombers flew from 4 September to 7 September.",
        "Eagle-eyed pilots met on 13 August 1940.",
        "They flew over it from 1941 to 1942.",
        "The village was poor in the 1820s, in the 19th century.",
        # names and their forms
        "Von Brauchitsch's divisions were ready.",
        "Dowding led Fighter Command.",
        "Hugh Dowding's command",
        "Goring stayed in Lodz.",
        "Germany sent the pilots.",
        "Germans flew there.",
        "The English coast was the goal.",
        "Netherlands",
        "It was watched from Holland.",
        "The RAF met them.",
        "The R.A.F. met them.",
        "The United States Navy watched.",
        "The US Navy and the USA watched.",
        "America watched it.",
        "The Special Operations Executive sent a dozen men.",
        "It was a battle of World War II.",
        "It was a battle of WWII.",
        "Operation Sea Lion was its code name.",
        "A B-17 flew over.",
        "Me 109 fighters flew over.",
        "The Field Marshals expected it.",
        "An anti-German mood was felt.",
        # words that only open a sentence, a line, a quotation or a title
        "Bombers gathered. Barges waited. Slowly, they met.",
        "Planning began early. Nobody landed.",
        "- Aircraft were lost\n- Barges were gathered",
        'He said: "Nothing can stop us."',
        "1) Bombers gathered\n2) Nobody landed\n3. Barges waited",
        "The Plan to Land in England",
        "I think that is right: it was Hitler.",
        "HITLER ISSUED DIRECTIVE STOP NINE DIVISIONS READY STOP",
        "",
        "nine",
    ],
)
def test_what_the_source_says_in_any_writing_is_grounded(text: str) -> None:
    result = check_grounded(text, "answer", GROUNDS)

    assert result.ok, result.reason


@pytest.mark.parametrize(
    ("text", "code", "shown"),
    [
        ("1,300 barges were gathered.", "number", "1,300"),
        ("Thirteen hundred barges were gathered.", "number", "thirteen hundred"),
        ("1.3 thousand barges were gathered.", "number", "1.3 thousand"),
        ("They planned with four divisions.", "number", "four"),
        ("Twenty-two aircraft were shot down.", "number", "twenty-two"),
        ("Some 25% was flown by night.", "number", "25"),
        ("The aircraft were 3. Nobody landed.", "number", "3"),
        ("Thousands of millions of barges, or billions, were there.", "number", "billions"),
        ("He was the eleventh to land.", "number", "eleventh"),
        ("The 11th Air Fleet met them.", "number", "11th"),
        ("Henry VII built it.", "name", "VII"),
        # the parts of different dates make no date
        ("It was issued on 16 May 1939.", "date", "16 May 1939"),
        ("It was issued on 16 August 1940.", "date", "16 August 1940"),
        ("It was issued on 16 July 1939.", "date", "16 July 1939"),
        ("It was issued in May 1940.", "date", "May 1940"),
        ("It was issued on 17 July.", "date", "17 July"),
        ("It was issued in October.", "date", "October"),
        ("1940-08-16", "date", "1940-08-16"),
        ("It was issued in 1943.", "number", "1943"),
        ("It was issued in the 1950s.", "number", "1950s"),
        ("It was issued in the 18th century.", "number", "18th century"),
        # a day of the month is no number of things
        ("The air force lost 13 aircraft.", "number", "13"),
        # names
        ("It was General Rommel who expected it.", "name", "General"),
        ("Field Marshal Rommel expected it.", "name", "Rommel"),
        ("Rommel expected to land nine divisions.", "name", "Rommel"),
        ("Montgomery's barges were gathered.", "name", "Montgomery's"),
        ("The French watched.", "name", "French"),
        ("Italy watched.", "name", "Italy"),
        ("The NKVD sent a dozen men.", "name", "NKVD"),
        ("The NKVD STOPPED.", "name", "NKVD"),
        ("A B-24 flew over.", "name", "B-24"),
        ("An anti-French mood was felt.", "name", "French"),
        ("It was a battle of World War I.", "name", "WWI"),
        ("It was a battle of the First World War.", "name", "WWI"),
        ("Operation Barbarossa was its code name.", "name", "Barbarossa"),
        ("The attack of Gen. Patton failed.", "name", "Gen"),
        ("- Aircraft were lost\n- Rommel waited", "name", "Rommel"),
        ("It was led by Saint-Exupéry.", "name", "Saint-Exupéry"),
    ],
)
def test_what_the_source_does_not_say_is_named(text: str, code: str, shown: str) -> None:
    result = check_grounded(text, "answer", GROUNDS)

    assert (result.ok, result.gate, result.code, result.field) == (False, "grounded", code, "answer")
    assert result.reason.endswith(f": {shown}")


def test_the_article_and_the_partner_are_ground_as_the_passage_is() -> None:
    # given an answer on what stands in three places
    answer = "Rommel met Montgomery near Tobruk in 1942."

    # when the ground has one of them, two, or all three
    grounds = [
        Grounds.of("Rommel was met in 1942.", "Tobruk"),
        Grounds.of("Rommel was met in 1942.", "Tobruk", ["It was Montgomery who met him."]),
        Grounds.of("Rommel was met.", "Tobruk", ["It was in 1942."], "A battle that Montgomery won."),
    ]

    # then only what none of them holds is refused
    assert [check_grounded(answer, "answer", ground).ok for ground in grounds] == [False, True, True]


def test_an_answer_that_corrects_may_repeat_what_it_corrects() -> None:
    wrong = "True or false? Rommel issued it on 3 May 1938 with 77 men."
    answer = "It was not Rommel on 3 May 1938 with 77 men, but Hitler on 16 July 1940."

    assert not check_grounded(answer, "correction", GROUNDS).ok
    assert check_grounded(answer, "correction", GROUNDS, also=wrong).ok
    assert check_grounded(answer + " Patton knew.", "correction", GROUNDS, also=wrong).reason.endswith("Patton")


def test_a_year_near_by_completes_a_date_and_a_far_one_does_not() -> None:
    grounds = Grounds.of(
        "It began in June 1942. On 4 June the ships met. They had sailed in 1930. It was 1931. In 1950 it was told."
    )

    assert check_grounded("They met on 4 June 1942.", "answer", grounds).ok
    assert not check_grounded("They met on 4 June 1950.", "answer", grounds).ok


def test_an_article_is_read_as_one_text_however_it_is_cut() -> None:
    # given a date whose year stands in the sentence before, and the passage that begins behind that
    sentences = ["It began in 1942.", "On 4 June the ships met.", "They parted on 9 June."]
    grounds = Grounds.of("On 4 June the ships met. They parted on 9 June.", "Midway", sentences)

    assert check_grounded("They met on 4 June 1942 and parted on 9 June 1942.", "answer", grounds).ok


def test_years_between_two_years_may_be_counted_and_nothing_else_may() -> None:
    grounds = Grounds.of("He led it in 1940, and again in June 1944, with 30 ships and 37 men.")

    assert check_grounded("He led it in 1940, and four years later, in 1944, again.", "answer", grounds).ok
    assert check_grounded("From 1940 to 1944 is a four-year span.", "answer", grounds).ok
    assert not check_grounded("He led it in 1940, and five years later, in 1944, again.", "answer", grounds).ok
    assert not check_grounded("He led it in 1940 and again four years later.", "answer", grounds).ok
    assert not check_grounded("He led 30 ships, and seven ships more made 37.", "answer", grounds).ok


@pytest.mark.parametrize(
    "text", ["\x00", "____", "Ünïcödé?" * 3, "1" * 400, "1,2,3" * 50, "May " * 200, "ten hundred " * 100]
)
def test_odd_text_gets_a_verdict(text: str) -> None:
    assert check_grounded(text, "answer", GROUNDS).gate in ("", "grounded")
