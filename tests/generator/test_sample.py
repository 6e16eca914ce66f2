"""`factory sample`: a fair draw of what stands, each beside its snippet; nothing a model wrote drives the terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from foundation.console import plain
from foundation.reader import Tombstone
from foundation.records import Record, Reject, messages_of
from generator import sample as sampling
from generator.sample import Filter, draw, taken_from
from tests.generator.report_workspace import TYPES, Built, build
from tests.support.commands import REPOSITORY, run, run_json

STYLE = re.compile(r"\x1b\[[0-9;]*m")
HIDDEN = "a\x1b[31mred\x1b]0;title\x07\x9b2J\r\u202eback\u200b\u2028b"


def uneven(tmp_path: Path) -> Built:
    """Shards of 1, 4 and 4 records; those of one shard are five times as long as the others'."""
    built = build(tmp_path, "corpus", "plan")
    one, two, other = built.unit(TYPES[0], 0), built.unit(TYPES[0], 4), built.unit(TYPES[1], 0)
    built.commit(one, [built.record(one, built.snippets[0])], [built.reject(one, built.snippets[1])])
    built.commit(two, [long(built.record(two, snippet)) for snippet in built.snippets[4:]], [])
    built.commit(other, [built.record(other, snippet) for snippet in built.snippets[:4]], [])
    return built


def long(record: Record) -> Record:
    said = messages_of([("user", "Who was it?"), ("assistant", "The army. " * 400)])
    return record.model_copy(update={"messages": said})


def stand(built: Built) -> set[str]:
    return {
        json.loads(line)["id"] for name in built.store.list("shards") for line in built.store.get(name).splitlines()
    }


def drawn(built: Built, wanted: Filter, types: Sequence[str] = TYPES) -> dict[str, Record | Reject]:
    """What some hundred draws of one give between them."""
    found = (draw(built.workspace, types, 1, wanted, str(seed)).outputs for seed in range(100))
    return {one.id: one for outputs in found for one in outputs}


@pytest.fixture(params=["from shards drawn at random", "by one pass"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of drawing: the limits below which everything is read are moved, nothing else.

    So many shards are drawn that a miss cannot hide the first way behind the second.
    """
    monkeypatch.setattr(sampling, "SMALL", -1 if request.param == "from shards drawn at random" else 1 << 40)
    monkeypatch.setattr(sampling, "SPARSE", 0)
    monkeypatch.setattr(sampling, "TRIES", 400)
    return str(request.param)


@pytest.mark.parametrize("count", [1, 3])
def test_every_record_has_the_same_chance_however_long_it_is_and_whatever_lies_beside_it(
    tmp_path: Path, way: str, count: int
) -> None:
    built = uneven(tmp_path)
    times: Counter[str] = Counter()
    for seed in range(450):
        outputs = draw(built.workspace, TYPES, count, Filter(), str(seed)).outputs
        assert len({one.id for one in outputs}) == count
        times.update(one.id for one in outputs)
    assert times.keys() == stand(built) and len(times) == 9
    mean = 50 * count
    assert sum((number - mean) ** 2 / mean for number in times.values()) < 26.1, times  # chi squared, 8 degrees, 0.1 %


def test_the_two_ways_are_really_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = uneven(tmp_path)
    monkeypatch.setattr(sampling, "SMALL", -1)
    monkeypatch.setattr(sampling, "SPARSE", 0)
    monkeypatch.setattr(sampling, "TRIES", 400)
    monkeypatch.setattr(sampling._Source, "scan", lambda *_: pytest.fail("everything was read"))
    assert len(draw(built.workspace, TYPES, 2, Filter(), "1").outputs) == 2


def test_what_is_asked_for_beyond_what_there_is_gives_all_of_it_once(tmp_path: Path, way: str) -> None:
    built = uneven(tmp_path)
    outputs = draw(built.workspace, TYPES, 10, Filter(), "1").outputs
    assert sorted(one.id for one in outputs) == sorted(stand(built))


def test_rejects_are_those_of_the_attempt_that_was_committed(tmp_path: Path, way: str) -> None:
    built = build(tmp_path, "corpus", "plan", "generate")  # with stale attempts, and one of a unit without a shard
    outputs = drawn(built, Filter(rejects=True)).values()
    assert len(outputs) == 6 and all(isinstance(one, Reject) and one.attempt == "good" for one in outputs)


def test_of_an_empty_shard_the_attempt_that_tells_of_the_most_items_counts(tmp_path: Path, way: str) -> None:
    built = build(tmp_path, "corpus", "plan", "generate")
    unit = built.unit(TYPES[0], 4)
    built.store.put(unit.rejects("aa"), built.store.get(unit.rejects("good")).splitlines(keepends=True)[0])
    outputs = drawn(built, Filter(rejects=True), TYPES[:1]).values()
    assert sorted(one.snippet_id for one in outputs) == sorted(one.id for one in built.snippets[4:])


def test_what_is_withdrawn_is_never_drawn(tmp_path: Path, way: str) -> None:
    built = build(tmp_path, "corpus", "plan", "generate")
    gone = built.snippets[0].article_id
    stone = Tombstone(kind="article", value=gone)
    built.store.put(stone.name, stone.model_dump_json().encode())
    assert draw(built.workspace, TYPES, 1, Filter(), "1").outputs == []
    rejects = drawn(built, Filter(rejects=True)).values()
    assert len(rejects) == 4 and all(one.article_id != gone for one in rejects)


def test_a_filter_is_kept_to(tmp_path: Path, way: str) -> None:
    built = uneven(tmp_path)
    unit = built.unit(TYPES[2], 0)
    held = built.record(unit, built.snippets[0]).model_copy(update={"split": "phrasing"})
    odd = built.reject(unit, built.snippets[1]).model_copy(update={"gate": "shape", "code": 'a"b'})
    built.commit(unit, [held], [odd, built.reject(unit, built.snippets[2])])
    assert [*drawn(built, Filter(split="phrasing"))] == [held.id]
    assert draw(built.workspace, TYPES, 1, Filter(split="unseen"), "1").outputs == []
    assert [*drawn(built, Filter(rejects=True, gate="shape", code='a"b'))] == [odd.id]
    assert len(drawn(built, Filter(rejects=True, gate="cjk"))) == 2


def test_broken_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    built = uneven(tmp_path)
    name = built.unit(TYPES[0], 0).shard
    built.store.put(name, built.store.get(name) + b'{"half')
    root = built.workspace.root
    assert run_json("factory", "sample", "-n", "50", cwd=root)["broken_lines"] == 1
    assert "1 broken line" in run("factory", "sample", "-n", "50", cwd=root).stderr


def test_a_seed_draws_the_same_again_and_without_one_each_draw_is_another(tmp_path: Path) -> None:
    root = uneven(tmp_path).workspace.root
    first = run("factory", "sample", "-n", "4", "--seed", "7", cwd=root)
    assert run("factory", "sample", "-n", "4", "--seed", "7", cwd=root).stdout == first.stdout
    assert "--seed 7" in first.stderr
    assert len({run_json("factory", "sample", "-n", "4", cwd=root)["seed"] for _ in range(2)}) == 2


def test_each_prompt_type_named_gives_as_many_and_a_family_is_its_types(tmp_path: Path) -> None:
    root = build(tmp_path, "corpus", "plan", "generate").workspace.root
    named = run_json(
        "factory", "sample", "-n", "2", "--prompt-type", TYPES[0], "--prompt-type", "contrastive", cwd=root
    )
    assert [one["record"]["prompt_type"] for one in named["samples"]] == [TYPES[0]] * 2 + [TYPES[1]] * 2
    assert len(run_json("factory", "sample", "-n", "2", cwd=root)["samples"]) == 2  # of all together
    out = run("factory", "sample", "--prompt-type", "qpt/formal", cwd=root).stdout
    assert (
        out
        == "qpt/formal: nothing is committed yet; next: factory enqueue --prompt-type qpt/formal, then factory run\n"
    )


def test_wrong_use_and_nothing_there_are_told(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan")
    root = built.workspace.root
    assert "next: factory enqueue, then factory run" in run("factory", "sample", cwd=root).stdout
    assert run_json("factory", "sample", cwd=root)["samples"] == []
    done = run("factory", "sample", "--prompt-type", "qpt/formel", cwd=root, code=2)
    assert done.stdout == "" and "qpt/formal" in done.stderr
    assert "train, phrasing, unseen" in run("factory", "sample", "--split", "test", cwd=root, code=2).stderr
    built.generate()
    out = run("factory", "sample", "--gate", "shape/looping", cwd=root).stdout
    assert out == "there is no reject by shape/looping; `factory stats` says what there is\n"


def test_the_document_holds_record_snippet_partner_and_what_was_taken(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan")
    unit, snippet, beside = built.unit(TYPES[0], 0), built.snippets[0], built.snippets[5]
    record = built.record(unit, snippet).model_copy(
        update={"partner_id": beside.id, "partner_article_id": beside.article_id}
    )
    built.commit(unit, [record], [])
    (one,) = run_json("factory", "sample", cwd=built.workspace.root)["samples"]
    assert one["record"] == json.loads(record.model_dump_json())
    assert (one["snippet"]["text"], one["partner"]["text"]) == (snippet.text, beside.text)
    assert [snippet.text[start:end] for start, end in one["taken"]] == ["army"]
    out = run("factory", "sample", cwd=built.workspace.root).stdout
    assert snippet.text in out and beside.text in out and "Who crossed the river on day 0?" in out
    for fact in (record.id, "split train", record.teacher, "round 0", "tokens 100 + 10"):
        assert fact in out


def test_a_snippet_that_the_corpus_lacks_is_said_to_be_missing(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan")
    unit = built.unit(TYPES[0], 0)
    built.commit(unit, [built.record(unit, built.snippets[0].model_copy(update={"id": "f" * 24}))], [])
    assert run_json("factory", "sample", cwd=built.workspace.root)["samples"][0]["snippet"] is None
    assert "not in the corpus" in run("factory", "sample", cwd=built.workspace.root).stdout


def on_terminal(root: Path, columns: int, *command: str, **env: str) -> str:
    """What `factory COMMAND` writes on a terminal of that width."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    argv = [sys.executable, "-c", "from generator.cli import main; main()", *command]
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    environment = {**kept, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm-256color", **env}
    with subprocess.Popen(argv, cwd=root, stdout=its, stderr=subprocess.DEVNULL, env=environment) as process:
        os.close(its)
        found = b""
        while True:
            try:
                data = os.read(mine, 1 << 16)
            except OSError:  # how a terminal's other end says that all is said
                break
            if not data:
                break
            found += data
    os.close(mine)
    assert process.returncode == 0
    return found.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("what", ["record", "reject"])
def test_nothing_a_model_wrote_drives_the_terminal(tmp_path: Path, what: str) -> None:
    built = build(tmp_path, "corpus", "plan")
    unit, snippet = built.unit(TYPES[0], 0), built.snippets[0]
    if what == "record":
        said = messages_of([("user", HIDDEN), ("assistant", HIDDEN)])
        built.commit(unit, [built.record(unit, snippet).model_copy(update={"messages": said, "teacher": HIDDEN})], [])
    else:
        bad = {"text": HIDDEN, "reason": HIDDEN, "code": HIDDEN, "field": HIDDEN, "phase": HIDDEN}
        built.commit(unit, [], [built.reject(unit, snippet).model_copy(update=bad)])
    command = ("sample", "--rejects") if what == "reject" else ("sample",)
    for out in (
        on_terminal(built.workspace.root, 300, *command),
        run("factory", *command, cwd=built.workspace.root).stdout,
    ):
        bare = STYLE.sub("", out)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u2028\u202e]", bare), ascii(bare)
        assert r"a\x1b[31mred\x1b]0;title\x07\x9b2J\r\u202eback\u200b\u2028b" in bare


def test_a_wide_terminal_has_the_snippet_beside_the_record_and_a_narrow_one_above_it(tmp_path: Path) -> None:
    built = uneven(tmp_path)
    root, text = built.workspace.root, "The army of day 0 of battle 0"
    command = ("sample", "--prompt-type", TYPES[1], "-n", "9", "--seed", "1")
    wide, narrow = (STYLE.sub("", on_terminal(root, width, *command)) for width in (140, 80))
    (line,) = [line for line in wide.splitlines() if text in line]
    assert "user" in line or "Who crossed" in line
    lines = narrow.splitlines()
    (at,) = [index for index, line in enumerate(lines) if text in line]
    assert lines[at].startswith(text) and "Who crossed the river on day 0?" not in lines[at]
    assert any("Who crossed the river on day 0?" in line for line in lines[at + 1 : at + 5])
    assert max(map(len, wide.splitlines())) <= 140 and max(map(len, lines)) <= 80


def test_what_was_taken_stands_out_in_colour_and_no_colour_is_kept_to(tmp_path: Path) -> None:
    built = uneven(tmp_path)
    command = ("sample", "--prompt-type", TYPES[1], "-n", "1")
    out = on_terminal(built.workspace.root, 140, *command)
    assert out.count("\x1b[1;32marmy\x1b[0m") == 2  # in the snippet, and in the answer
    plain_out = on_terminal(built.workspace.root, 140, *command, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", plain_out)
    assert "\x1b[1marmy\x1b[0m" in plain_out  # bold is no colour
    assert "\x1b" not in run("factory", *command, cwd=built.workspace.root).stdout


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("It was General Groves, by 17 September 1942.", ["General Groves", "17 September 1942"]),
        ("He took charge of the work.", ["took charge"]),
        ("In it all, of the night, he was there.", []),
        ("in the middle of the night", ["in the middle of the"]),
        ("GENERAL GROVES", ["General Groves"]),
        ("", []),
    ],
)
def test_the_longest_runs_of_words_are_found_and_words_that_say_nothing_are_not(text: str, taken: list[str]) -> None:
    source = "In the middle of the war General Groves took charge, on 17 September 1942, of all of it."
    assert [source[start:end] for start, end in taken_from(source, text)] == [
        one if one[0] != "i" else f"I{one[1:]}" for one in taken
    ]


def test_plain_text_is_left_as_it_is() -> None:
    text = "Åndalsnes – “it's 5 °C” \n日本 \U0001f600"
    assert plain(text) == text
