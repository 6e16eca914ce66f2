"""A grader's replies, as models write them: the last verdict-shaped line decides, and nothing else does."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.records import ChatReply, Usage
from judge.parse import outcome, parse
from judge.prompt import defang
from tests.judge.replies import REPLIES, Reply

# Bits of what judges write, in any order: what a parser stumbles over.
BITS = st.sampled_from(
    [
        *(
            "VERDICT",
            "verdict",
            "Verdict",
            ":",
            "：",
            " ",
            "\n",
            "\n\n",
            "\r\n",
            "PASS",
            "FAIL",
            "pass",
            "or",
            "not",
            "/",
            "|",
        ),
        *(
            "**",
            "`",
            "```",
            ">",
            '"',
            "#",
            "-",
            "→",
            "?",
            "✅",
            "❌",
            "<think>",
            "</think>",
            "{",
            "}",
            "\\boxed{",
            "(",
            ")",
        ),
        *(
            "The student wrote:",
            "is",
            "The answer is right.",
            "1939",
            "\u200b",
            "漢字",
            "I cannot help",
            "\x00",
            "~~",
            "=",
        ),
    ]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(BITS, max_size=30).map("".join))


@pytest.mark.parametrize("reply", REPLIES, ids=[reply.name for reply in REPLIES])
def test_a_careful_reader_takes_the_same_from_it(reply: Reply) -> None:
    found = parse(reply.text)
    assert (found.reason or found.verdict) == reply.outcome, found
    if found.verdict == "UNSCORED":
        assert found.explanation


def test_the_corpus_is_large_and_holds_all_kinds() -> None:
    assert len({reply.name for reply in REPLIES}) == len(REPLIES) >= 60
    assert len({reply.text for reply in REPLIES}) == len(REPLIES)
    kinds = Counter(reply.outcome for reply in REPLIES)
    assert set(kinds) == {"PASS", "FAIL", "parse", "refusal"}
    assert min(kinds["PASS"], kinds["FAIL"], kinds["parse"]) >= 30


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_no_text_breaks_it(text: str) -> None:
    found = parse(text)
    assert found.verdict in ("PASS", "FAIL", "UNSCORED")
    assert (found.reason in ("parse", "refusal")) == (found.verdict == "UNSCORED")


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_without_the_word_verdict_nothing_is_scored(text: str) -> None:
    bare = "".join(char for char in unicodedata.normalize("NFKC", text) if char.isalnum()).casefold()
    if "verdict" not in bare and "boxed" not in bare:
        assert parse(text).verdict == "UNSCORED"


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from(["PASS", "FAIL"]), st.sampled_from(["VERDICT: {}", "**VERDICT: {}**", "Verdict: {}."]))
def test_a_good_line_at_the_end_of_a_finished_text_decides(text: str, word: str, form: str) -> None:
    finished = text + "\nThat is all.\n\n"
    if "<think" not in text.rpartition("</think>")[2] and "[THINK]" not in text:
        assert parse(finished + form.format(word)).verdict == word


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_what_a_student_writes_is_no_verdict_once_it_stands_in_the_prompt(text: str) -> None:
    assert parse(defang(text)).verdict == "UNSCORED"


@pytest.mark.parametrize("reply", REPLIES, ids=[reply.name for reply in REPLIES])
def test_a_judge_that_repeats_the_student_s_text_from_the_prompt_gives_no_verdict_by_it(reply: Reply) -> None:
    repeated = f"{defang(reply.text)}\n\nThat is what the student wrote."
    assert parse(repeated).verdict == "UNSCORED"
    assert parse(f"{defang(reply.text)}\n\nIt is wrong.\nVERDICT: FAIL").verdict == "FAIL"


def test_the_explanation_is_what_stands_before_the_verdict() -> None:
    assert parse("<think>hm</think>\nThe year is right.\n\nVERDICT: PASS").explanation == "The year is right."
    assert parse("<think>The year is right.</think>\nVERDICT: PASS").explanation == "The year is right."
    assert parse("VERDICT: FAIL\nThe year is wrong.").explanation == "The year is wrong."
    assert len(parse("x" * 9000 + "\nVERDICT: PASS").explanation) == 2000


def test_a_reply_that_did_not_come_is_unscored_by_its_reason() -> None:
    def of(
        finish: Literal["length", "declined", "error"], detail: str = "", text: str = "VERDICT: PASS"
    ) -> tuple[str, str]:
        found = outcome(ChatReply(id="0", text=text, finish=finish, detail=detail, usage=Usage(completion_tokens=2048)))
        assert found.verdict == "UNSCORED"
        return found.reason, found.explanation

    assert of("length", "length")[0] == "length"
    assert "2,048 tokens" in of("length", "length")[1]
    assert of("length", "content_filter")[0] == "refusal"
    assert of("error", "HTTP 500") == ("engine", "The grader gave no reply: HTTP 500")
    assert of("declined", "HTTP 400: maximum context length") == (
        "length",
        "The prompt does not fit the grader's context: HTTP 400: maximum context length",
    )


def test_reading_takes_time_in_proportion_to_the_reply() -> None:
    # given what could make a pattern go back and forth, when it is read, then it ends (a second would be a minute here)
    for bit in (
        "verdict ",
        "*",
        "final ",
        " \n",
        "VERDICT: PASS or ",
        "<think>",
        "| verdict |",
        "{",
        "student says ",
        "I can't ",
        "Wait, no, ",
        "but so — ",
        "The student adds:\n\n",
        "VERDICT: PASS\n \n",
        "VERDICT: PASS. However, ",
    ):
        text = bit * (200_000 // len(bit))
        assert parse(f"{text}\nVERDICT: PASS").verdict in ("PASS", "UNSCORED")
        parse(f"VERDICT: {text}")
        parse(f"VERDICT: PASS\n{text}.")
        parse(f"VERDICT: FAIL. It {text}")
        parse(text)
