"""The reader's two doors: what `read` gives as records `ShardLines` gives as lines, and of broken ones both say the same."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import foundation.reader
from foundation.errors import Failure
from foundation.reader import ReadReport, ShardLines, Tombstone, identities, listed, pin, read
from foundation.records import Contract, Message, Record, Sampling, Usage
from foundation.rows import Row, RowMessage, RowSampling, RowUsage
from foundation.store import LocalStore

NAME = "shards/wh/who/u.jsonl"
GOOD: dict[str, Any] = {
    "v": 1,
    "id": "r1",
    "item": "i1",
    "unit": "u",
    "prompt_type": "wh/who",
    "fingerprint": "f",
    "family": "wh",
    "split": "train",
    "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
    "supervised": [1],
    "snippet_id": "s1",
    "article_id": "a1",
    "title": "T",
    "source": "s",
    "teacher": "rules:1",
    "sampling": {"temperature": 0.5},
    "seed": 1,
    "usage": {"prompt_tokens": 3},
    "round": 0,
    "attempt": "x",
}


def store_of(folder: Path, data: bytes) -> LocalStore:
    file = folder / NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)  # not by `put`, which waits for the disk
    return LocalStore(folder)


def plainly(store: LocalStore) -> tuple[list[dict[str, Any]], ReadReport, str]:
    report, records, error = ReadReport(), [], ""
    try:
        records += [record.model_dump() for record in read(store, report=report)]
    except Failure as failure:
        error = str(failure)
    return records, report, error


def by_lines(store: LocalStore) -> tuple[list[bytes], list[Row], ReadReport, str]:
    report, error = ReadReport(), ""
    lines: list[bytes] = []
    rows: list[Row] = []
    ((name, size),) = listed(store)
    withdrawn = identities(foundation.reader.tombstones(store))
    try:
        for piece in ShardLines(store, name, size).pieces(withdrawn, report):
            for line, row in zip(piece.lines, piece.rows, strict=True):
                if row is not None:
                    lines.append(line)
                    rows.append(row)
    except Failure as failure:
        error = str(failure)
    return lines, rows, report, error


def check_doors_agree(store: LocalStore) -> int:
    """Asserts that they do; how many records both gave."""
    records, report, error = plainly(store)
    lines, rows, other, other_error = by_lines(store)
    assert error == other_error
    if not error:
        again = [Record.model_validate_json(line).model_dump() for line in lines]
        assert repr(again) == repr(records)  # written out, since NaN is not NaN
        for row, record in zip(rows, records, strict=True):
            turns = tuple({"role": turn.role, "content": turn.content} for turn in row.messages)
            assert (row.id, row.split, row.seed, turns) == (
                record["id"],
                record["split"],
                record["seed"],
                record["messages"],
            )
            assert tuple(row.supervised) == record["supervised"]
        assert report == other
    return len(records)


@pytest.mark.parametrize(
    ("contract", "row"), [(Record, Row), (Message, RowMessage), (Sampling, RowSampling), (Usage, RowUsage)]
)
def test_a_row_has_the_fields_and_defaults_of_the_contract(contract: type[Contract], row: type[msgspec.Struct]) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(row)}
    assert list(fields) == list(contract.model_fields)
    for name, field in contract.model_fields.items():
        assert fields[name].required == field.is_required(), name
        if not field.is_required():
            assert fields[name].default == field.default, name


VALUES: list[Any] = [
    *(
        None,
        True,
        0,
        1,
        -1,
        2,
        7,
        1.0,
        1.5,
        -0.0,
        1e15,
        2**53,
        2**53 - 1,
        2**64,
        10**30,
        "",
        "1",
        "1.5",
        "x",
        "train",
        "user",
    ),
    *([], {}, [1], ["1"], [1.0], [True], [None], {"v": 1}, [[1]], "\u2028", "\x85", "\U0001f600", "\x00", "\x7f"),
    *({"temperature": 2.5}, {"temperature": 2}, {"top_p": 0}, {"max_tokens": 0}, {"max_tokens": "5"}, {"seconds": "1"}),
    *({"prompt_tokens": -1}, {"prompt_tokens": 2**53}, {"seconds": -3}, {"more": 1}, [{"role": "user", "content": ""}]),
    *([{"role": "tool", "content": "x"}], [{"role": "user"}], [{"role": "user", "content": "x", "name": "y"}]),
]
TOKENS = [b"NaN", b"Infinity", b"1e999", b"01", b"1.", b".5", b"-", b"1e2", b"'x'", b'"\\ud800"', b'"\\udc00\\ud800"']
TOKENS += [
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xc0\xaf"',
    b'"\t"',
    b'"\\x"',
    b'"\\/"',
    b'"a\\nb"',
    b"9" * 5000,
    b"[" * 3000,
]


@st.composite
def odd_line(draw: st.DrawFn) -> bytes:
    """A record's line with one or two things odd about it; often still a record."""
    row = dict(GOOD)
    for _ in range(draw(st.integers(0, 2))):
        key = draw(st.sampled_from([*GOOD, "pair_id", "right_at", "license", "unknown"]))
        if draw(st.booleans()):
            row[key] = draw(st.sampled_from(VALUES))
        else:
            row.pop(key, None)
    line = json.dumps(row, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    how = draw(st.sampled_from(["whole"] * 6 + ["cut", "token", "twice", "space", "byte", "double", "key"]))
    if how == "cut":
        line = line[: draw(st.integers(0, len(line)))]
    elif how == "token":
        line = line.replace(b': "T"', b": " + draw(st.sampled_from(TOKENS))).replace(b'"seed": 1,', b'"seed": 1e0,')
    elif how == "twice":
        line = (
            line[:-1] + b"," + draw(st.sampled_from([b'"v":2', b'"split":"unseen"', b'"seed":[]', b'"id":"r2"'])) + b"}"
        )
    elif how == "space":
        line = draw(st.sampled_from([b" ", b"\t", b"\r", b"\x0b", b"\xef\xbb\xbf", b"\x00"])) + line + b" "
    elif how == "byte":
        at = draw(st.integers(0, len(line) - 1))
        line = line[:at] + bytes([draw(st.integers(0, 255))]) + line[at + 1 :]
    elif how == "double":
        line += draw(st.sampled_from([b"", b" ", b","])) + line
    elif how == "key":
        line = line.replace(
            b'"title"', draw(st.sampled_from([b'"tit\\u006ce"', b'"Title"', b"title", b'"title\\u0000"']))
        )
    return line


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(odd_line(), min_size=1, max_size=6), st.sampled_from([b"\n", b"\r\n", b"\r"]), st.booleans())
def test_both_doors_agree_on_odd_lines(lines: list[bytes], end: bytes, ended: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_doors_agree(store_of(Path(folder), end.join(lines) + end * ended))


@pytest.mark.parametrize("key", ["v", "split", "seed", "supervised", "messages", "usage", "sampling", "title"])
def test_both_doors_agree_on_every_odd_value_of_a_field(tmp_path: Path, key: str) -> None:
    for value in [*VALUES, *TOKENS]:
        told = value if isinstance(value, bytes) else json.dumps(value).encode()
        fields = [f'"{name}":'.encode() + (told if name == key else json.dumps(GOOD[name]).encode()) for name in GOOD]
        check_doors_agree(store_of(tmp_path, b"{" + b",".join(fields) + b"}\n"))


def test_lines_keep_their_bytes_and_a_loosely_typed_one_its_row(tmp_path: Path) -> None:
    loose = json.dumps(GOOD | {"id": "r2", "seed": "7", "supervised": [True], "usage": {"seconds": float("nan")}})
    spaced = b"  " + json.dumps(GOOD | {"title": "Zürich\n"}, indent=None).encode() + b"\t"
    store = store_of(tmp_path, spaced + b"\n" + loose.encode() + b"\n\n")
    lines, rows, report, _ = by_lines(store)
    assert lines == [spaced, loose.encode()]
    assert [(row.id, row.seed, row.supervised) for row in rows] == [("r1", 1, [1]), ("r2", 7, [1])]
    assert report.broken_lines == 1 and report.broken[0].startswith(f"{NAME}:3: ")
    assert check_doors_agree(store) == 2


def test_two_values_on_one_line_are_not_two_records(tmp_path: Path) -> None:
    one = json.dumps(GOOD)
    over_two = json.dumps(GOOD, indent=1).split("\n")
    data = "\n".join(
        [one + one, over_two[0], "".join(over_two[1:])]
    )  # three lines, three values, none on a line of its own
    assert check_doors_agree(store_of(tmp_path, data.encode())) == 0


@pytest.mark.parametrize("piece", [1, 7, 100, 1_000, 1 << 20])
def test_pieces_end_where_lines_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    rows = [GOOD | {"id": f"r{n}", "title": "x" * (n * 37 % 400)} for n in range(40)]
    lines = [json.dumps(row).encode() for row in rows]
    lines[5], lines[11] = b"{torn", b""
    data = b"\r\n".join(lines[:20]) + b"\n" + b"\n".join(lines[20:])
    store = store_of(tmp_path, data)
    monkeypatch.setattr(foundation.reader, "PIECE", piece)
    assert check_doors_agree(store) == 38
    assert [name.split(": ")[0] for name in by_lines(store)[2].broken] == [f"{NAME}:6", f"{NAME}:12"]
    shard = ShardLines(store, NAME, len(data))
    numbers = [
        at for found in shard.pieces(set(), ReadReport()) for at in range(found.first, found.first + len(found.lines))
    ]
    assert numbers == list(range(1, 41))
    assert (shard.entry.sha256, shard.entry.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert pin(store).shards == (shard.entry,)


@pytest.mark.parametrize("kind", ["article", "snippet", "prompt_type", "fingerprint", "unit"])
def test_tombstones_hold_at_both_doors(tmp_path: Path, kind: str) -> None:
    field = {"article": "article_id", "snippet": "snippet_id"}.get(kind, kind)
    rows = [GOOD | {"id": f"r{n}", field: f"x{n % 3}"} for n in range(9)]
    rows += [GOOD | {"id": "p", "partner_id": "x1", "partner_article_id": "x1"}, GOOD | {"id": "q", "title": "x1"}]
    store = store_of(tmp_path, "\n".join(map(json.dumps, rows)).encode())
    stone = Tombstone(kind=kind, value="x1")  # type: ignore[arg-type]
    store.put(stone.name, stone.model_dump_json().encode())
    assert check_doors_agree(store) == 8 - (kind in ("article", "snippet")) - 0
    report = by_lines(store)[2]
    assert dataclasses.asdict(report)["withdrawn"] == 11 - report.read


def test_a_shard_that_changed_or_went_away_is_named_at_both_doors(tmp_path: Path) -> None:
    store = store_of(tmp_path, json.dumps(GOOD).encode() + b"\n")
    manifest, ((name, size),) = pin(store), listed(store)
    store.put(NAME, json.dumps(GOOD).encode() + b"\n\n")
    for reading in (read(store, manifest), ShardLines(store, name, size).pieces(set(), ReadReport())):
        with pytest.raises(Failure, match="a shard was changed") as caught:
            list(reading)
        assert caught.value.where == NAME
    store.delete(NAME)
    for reading in (read(store, manifest), ShardLines(store, name, size).pieces(set(), ReadReport())):
        with pytest.raises(Failure, match="a shard went away") as caught:
            list(reading)
        assert caught.value.where == NAME
