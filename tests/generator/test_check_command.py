"""`factory check` as a user runs it: over a shard, over one with a doctored line, over plain lines; and the lines in order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation.errors import UsageError
from foundation.records import GateResult, Record, Snippet
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.gates.files import check_lines
from generator.teachers.rules import RulesTeacher
from tests.generator.prompt_files import ANSWERED, PASSAGE, armies, small, snippet
from tests.generator.scripted import everyone, records_of, run
from tests.support.commands import run as run_command

TYPES = ("qpt/formal", "truth/true-statement", "contrastive/date", "choice/four-options", "cloze/entity")
Line = dict[str, Any]


@pytest.fixture(scope="module")
def shard(wwii_snippets: list[Snippet], warm_gates: Gates) -> list[Line]:
    """Records as they are committed, of several types, from the project's own corpus."""
    teacher, found = RulesTeacher(), []
    for id_ in TYPES:
        records = records_of(run(teacher, load_catalogue()[id_], wwii_snippets[::9], warm_gates))
        assert records, id_
        found += records
    return [json.loads(record.model_dump_json()) for record in found]


def put(folder: Path, lines: list[Line]) -> Path:
    path = folder / "shard.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return path


def verdicts(lines: list[Line], gates: Gates) -> list[GateResult]:
    rows = [json.dumps(line, ensure_ascii=False).encode() for line in lines]
    return list(check_lines(rows, "shard.jsonl", gates, load_catalogue()))


def ask(line: Line, question: str) -> Line:
    """A record with another question."""
    return {**line, "messages": [{"role": "user", "content": question}, *line["messages"][1:]]}


def reply(line: Line, text: str) -> Line:
    """A record with another answer."""
    return {**line, "messages": [*line["messages"][:-1], {"role": "assistant", "content": text}]}


Doctor = Callable[[Line], Line]
LOOP = "He took the town and then he lost the town again. " * 20
FRENCH = "La ville fut prise au mois de mai, et les troupes avancèrent vers la côte sans être arrêtées par personne."
DOCTORED: dict[str, tuple[Doctor, tuple[str, str, str]]] = {
    "a Chinese question": (lambda line: ask(line, "谁领导了军队?"), ("cjk", "cjk", "messages[0]")),
    "a Chinese character in an answer": (
        lambda line: reply(line, "It began in May 五."),
        ("cjk", "cjk", "messages[1]"),
    ),
    "a title": (lambda line: {**line, "title": "Midway 中"}, ("cjk", "cjk", "title")),
    "a French answer": (lambda line: reply(line, FRENCH), ("english", "other-language", "messages[1]")),
    "a Russian answer": (lambda line: reply(line, "Город был взят."), ("language", "confidence", "messages[1]")),
    "a question that leans": (
        lambda line: ask(line, "According to the passage, who took the town?"),
        ("standalone", "leaning", "messages[0]"),
    ),
    "an answer that leans": (
        lambda line: reply(line, "As the author says, it fell in May."),
        ("standalone", "leaning", "messages[1]"),
    ),
    "looping text": (lambda line: reply(line, LOOP), ("shape", "looping", "messages[1]")),
    "an empty answer": (lambda line: reply(line, "  "), ("shape", "empty", "messages[1]")),
    "a thought": (lambda line: reply(line, "<think>Hm.</think> In May."), ("shape", "thinking", "messages[1]")),
}


def of_type(lines: list[Line], id_: str) -> list[int]:
    return [number for number, line in enumerate(lines) if line["prompt_type"] == id_]


def test_what_the_line_accepts_the_command_accepts(shard: list[Line], tmp_path: Path) -> None:
    done = run_command("factory", "check", str(put(tmp_path, shard)), cwd=tmp_path)

    assert done.stdout == ""
    assert f"{len(shard):,} lines, {len(shard):,} accepted, 0 rejected" in done.stderr


@pytest.mark.parametrize("what", DOCTORED)
def test_one_doctored_line_is_found_and_no_other(shard: list[Line], warm_gates: Gates, what: str) -> None:
    # given a shard with one line changed
    doctor, verdict = DOCTORED[what]
    bad = of_type(shard, "truth/true-statement")[1]
    lines = [doctor(line) if number == bad else line for number, line in enumerate(shard)]

    results = verdicts(lines, warm_gates)

    # then it alone is refused, by the gate that would have refused the reply
    assert [number for number, result in enumerate(results) if not result.ok] == [bad]
    assert (results[bad].gate, results[bad].code, results[bad].field) == verdict


def test_the_command_names_every_doctored_line_and_exits_1(shard: list[Line], tmp_path: Path) -> None:
    # given a shard with a line of each kind, and a question that is asked twice
    places = of_type(shard, "truth/true-statement")
    first, rest = places[0], places[1 : 1 + len(DOCTORED)]
    assert len(rest) == len(DOCTORED)
    lines = list(shard)
    expected = {}
    for place, (doctor, verdict) in zip(rest, DOCTORED.values(), strict=True):
        lines[place] = doctor(lines[place])
        expected[place + 1] = verdict
    lines.append(lines[first])
    expected[len(lines)] = ("duplicate", "exact", "messages")
    path = put(tmp_path, lines)

    plain = run_command("factory", "check", str(path), cwd=tmp_path, code=1)
    rows = run_command("factory", "check", "--json", str(path), cwd=tmp_path, code=1).stdout.splitlines()

    results = [GateResult.model_validate_json(row) for row in rows]
    assert len(results) == len(lines)
    assert {n: (one.gate, one.code, one.field) for n, one in enumerate(results, 1) if not one.ok} == expected
    assert [int(row.partition(":")[0]) for row in plain.stdout.splitlines()] == sorted(expected)
    assert f"{len(expected)} rejected" in plain.stderr
    assert "Traceback" not in plain.stderr


def test_a_question_may_come_again_in_another_unit_and_in_the_other_order_of_its_pair(
    shard: list[Line], warm_gates: Gates
) -> None:
    one = shard[of_type(shard, "truth/true-statement")[0]]
    pair = [shard[number] for number in of_type(shard, "contrastive/date")][:2]
    assert pair[0]["pair_id"] == pair[1]["pair_id"] != ""

    results = verdicts([one, {**one, "unit": "another"}, one, *pair], warm_gates)

    assert [result.code for result in results] == ["", "", "exact", "", ""]


def test_a_record_that_shows_its_passage_may_speak_of_it(warm_gates: Gates) -> None:
    # given records of two types of a workspace, of which one shows the passage beside the question
    turns = [("user", "{{ passage }}\n\n{{ question }}"), ("assistant", "{{ answer }}")]
    beside = small({"question": {}, "answer": {}}, turns, id="tests/beside")
    fields = {"question": "What does the passage say of Georgy Zhukov?", "answer": "He led an army."}
    (shown,) = records_of(run(everyone(fields), beside, armies(1), warm_gates))
    hidden = shown.model_copy(update={"prompt_type": ANSWERED.id})
    rows = [record.model_dump_json().encode() for record in (shown, hidden)]

    results = list(check_lines(rows, "f", warm_gates, {beside.id: beside, ANSWERED.id: ANSWERED}))

    assert [(result.gate, result.field) for result in results] == [("", ""), ("standalone", "messages[0]")]


def test_a_passage_that_speaks_of_a_text_is_no_fault_of_its_record(warm_gates: Gates) -> None:
    text = snippet("Georgy Zhukov wrote it. According to the text above, snow fell.")
    (record,) = records_of(run(everyone({"question": "What did Georgy Zhukov write?"}), PASSAGE, [text], warm_gates))

    (result,) = check_lines([record.model_dump_json().encode()], "f", warm_gates, {PASSAGE.id: PASSAGE})

    assert result.ok


def test_a_record_of_an_unknown_type_is_judged_for_shape_and_language(shard: list[Line], warm_gates: Gates) -> None:
    line = {**shard[0], "prompt_type": "mine/own"}

    results = verdicts([line, ask(line, "谁?"), reply(line, LOOP)], warm_gates)

    assert [result.gate for result in results] == ["", "cjk", "shape"]
    assert isinstance(Record.model_validate(line), Record)


def test_a_file_is_judged_line_by_line_in_order(warm_gates: Gates) -> None:
    lines = [
        "\ufeffSnow fell.\r\n",
        '{"question": "When?", "answer": "1942"}\n',
        '{"text": "雪"}\n',
        "\n",
        '{"messages": [{"role": "user", "content": "Привет"}], "n": 3}\n',
        "1942",
    ]

    results = list(check_lines([line.encode() for line in lines], "f", warm_gates, {}))

    assert [(result.ok, result.gate, result.field) for result in results] == [
        (True, "", ""),
        (True, "", ""),
        (False, "cjk", "text"),
        (False, "schema", ""),
        (False, "language", "messages[0].content"),
        (False, "language", "text"),
    ]


@pytest.mark.parametrize("line", [b'{"text": "a"', b'{"n": 1}', b"Snow \xff fell"])
def test_a_line_that_cannot_be_read_is_named(warm_gates: Gates, line: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        list(check_lines([b"Snow fell.\n", line], "corpus.jsonl", warm_gates, {}))

    assert caught.value.where == "corpus.jsonl:2"


@pytest.mark.parametrize(
    ("text", "code", "out"),
    [
        ("Snow fell on the road.\nTanks froze in the night.\n", 0, ""),
        ("Snow fell on the road.\nI'm sorry, but I can't answer that.\n", 1, "2: shape:"),
        (f"{FRENCH}\n", 1, "1: english:"),
        ("Snow 雪 fell.\n", 1, "1: cjk:"),
        ("", 2, ""),
        ('{"text": "Snow fell."\n', 2, ""),
    ],
    ids=["good", "a refusal", "French", "Chinese", "empty", "no JSON"],
)
def test_plain_lines_and_exit_codes(tmp_path: Path, text: str, code: int, out: str) -> None:
    path = tmp_path / "lines.txt"
    path.write_text(text, "utf-8")

    done = run_command("factory", "check", str(path), cwd=tmp_path, code=code)

    assert done.stdout.startswith(out)
    assert bool(done.stdout) == (code == 1)
    assert "Traceback" not in done.stderr
    if code == 2:
        assert str(path) in done.stderr
