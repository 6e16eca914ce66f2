"""`factory stats`: the tables equal a count by hand, over real shards and rejects and over made ones."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foundation.reader import Tombstone
from foundation.records import Record
from foundation.workspace import Workspace
from tests.generator.report_workspace import TYPES as MADE
from tests.generator.report_workspace import Built, build
from tests.support.commands import REPOSITORY, reject_lines, run, run_json, shard_records
from tests.support.faults import RULES, clear

TYPES = (
    "choice/four-options",
    "cloze/entity",
    "contrastive/date",
    "contrastive/person",
    "qpt/formal",
    "truth/wrong-date",
)
ARTICLES = sorted((REPOSITORY / "examples/wwii/articles").glob("*.md"))[:3]


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three articles through six prompt types, by the rules teacher. Tests only read it."""
    workspace = Workspace.init(tmp_path_factory.mktemp("stats") / "w")
    (workspace.root / "factory.toml").write_text(RULES)
    try:
        run("factory", "ingest", *map(str, ARTICLES), cwd=workspace.root)
        run("factory", "enqueue", *(word for one in TYPES for word in ("--prompt-type", one)), cwd=workspace.root)
        run("factory", "work", "--burst", cwd=workspace.root)
    finally:
        clear(workspace)
    return workspace.root


@pytest.fixture(scope="module")
def told(worked: Path) -> dict[str, dict[str, Any]]:
    return {row["prompt_type"]: row for row in run_json("factory", "stats", cwd=worked)["prompt_types"]}


def by_hand(root: Path) -> dict[str, dict[str, Any]]:
    """Of each prompt type what its shards and rejects hold, counted without the project's code."""
    found: dict[str, dict[str, Any]] = {}
    records, rejects = shard_records(root), reject_lines(root)
    for kind in {row["prompt_type"] for row in records + rejects}:
        mine = [row for row in records if row["prompt_type"] == kind]
        refused = [row for row in rejects if row["prompt_type"] == kind]
        accepted = {row["item"] for row in mine}
        calls = {(row["item"], row["phase"]): row["right_at"] for row in mine if row["right_at"]}
        found[kind] = {
            "accepted": len(accepted),
            "rejected": len({row["item"] for row in refused} - accepted),
            "records": len(mine),
            "rejects": Counter((row["gate"], row["code"], row["phase"].split(".")[0]) for row in refused),
            "put": Counter(str(place) for place in calls.values()),
            "stands": Counter(row["ordering"] for row in mine if row["ordering"]),
        }
    return found


def test_accepted_and_rejected_by_type_and_reason_are_what_the_files_hold(
    worked: Path, told: dict[str, dict[str, Any]]
) -> None:
    hand = by_hand(worked)
    assert told.keys() == hand.keys() == set(TYPES)
    for kind, row in told.items():
        counted = hand[kind]
        assert {name: row[name] for name in ("accepted", "rejected", "records")} == {
            name: counted[name] for name in ("accepted", "rejected", "records")
        }
        assert row["items"] == row["accepted"] + row["rejected"] > 0
        assert row["accept_rate"] == pytest.approx(row["accepted"] / row["items"])
        assert {(one["gate"], one["code"], one["phase"]): one["count"] for one in row["rejects"]} == counted["rejects"]
        assert [one["count"] for one in row["rejects"]] == sorted(counted["rejects"].values(), reverse=True)
    # every item of a type was asked about, whatever the type
    assert len({row["items"] for row in told.values()}) == 1
    assert any(row["rejects"] for row in told.values())


def test_the_total_is_the_sum_and_agrees_with_status(worked: Path, told: dict[str, dict[str, Any]]) -> None:
    total = run_json("factory", "stats", cwd=worked)["total"]
    for name in ("items", "accepted", "rejected", "records"):
        assert total[name] == sum(row[name] for row in told.values())
    status = run_json("factory", "status", cwd=worked)
    assert (total["items"], total["accepted"], total["rejected"], total["records"]) == tuple(
        status[name] for name in ("items", "items_accepted", "items_rejected", "records")
    )
    assert total["accept_rate"] == pytest.approx(total["accepted"] / total["items"])


def test_the_right_option_stands_first_in_exactly_half_of_the_contrastive_records(
    worked: Path, told: dict[str, dict[str, Any]]
) -> None:
    hand = by_hand(worked)
    for kind, row in told.items():
        assert row["right_stands"] == hand[kind]["stands"], kind
        assert row["teacher_put_right"] == hand[kind]["put"], kind
    for kind in ("contrastive/date", "contrastive/person"):
        row = told[kind]
        assert row["right_stands"]["right_first"] == row["right_stands"]["wrong_first"] == row["records"] // 2 > 0
        assert sum(row["teacher_put_right"].values()) == row["records"] // 2  # one call made both
        assert set(row["teacher_put_right"]) <= {"1", "2"}
    four = told["choice/four-options"]
    assert sum(four["right_stands"].values()) == sum(four["teacher_put_right"].values()) == four["records"] > 0
    assert set(four["right_stands"]) <= {f"right_{place}" for place in range(1, 5)}
    assert told["cloze/entity"]["right_stands"] == told["cloze/entity"]["teacher_put_right"] == {}


def test_the_tables_say_the_same(worked: Path, told: dict[str, dict[str, Any]]) -> None:
    out = run("factory", "stats", cwd=worked).stdout
    first, told_too, *others = out.split("\n\n")
    (second,) = [
        part for part in others if part.startswith("prompt type") and "where it stands" in part.splitlines()[0]
    ]
    assert "entry by entry" in told_too  # contrastive types are asked so
    for kind, row in told.items():
        (line,) = [line for line in first.splitlines() if line.split()[0] == kind]
        assert [int(word.replace(",", "")) for word in line.split()[1:4]] == [
            row["items"],
            row["accepted"],
            row["rejected"],
        ]
        if row["rejects"]:
            most = row["rejects"][0]
            assert f"{most['gate']}/{most['code']} {most['count']}" in line
    assert first.splitlines()[-1].split()[0] == "all"
    (line,) = [line for line in second.splitlines() if line.split()[:1] == ["contrastive/person"]]
    half = told["contrastive/person"]["records"] // 2
    assert line.rstrip().endswith(f"1: {half} (50.0%)  2: {half} (50.0%)")
    assert not re.search(r"^cloze", second, re.MULTILINE)  # it has no options


def test_a_filter_is_an_id_or_a_family(worked: Path, told: dict[str, dict[str, Any]]) -> None:
    family = run_json("factory", "stats", "--prompt-type", "contrastive", cwd=worked)
    assert family["prompt_types"] == [told["contrastive/date"], told["contrastive/person"]]
    assert family["total"]["items"] == sum(row["items"] for row in family["prompt_types"])
    two = run_json("factory", "stats", "--prompt-type", "qpt/formal", "--prompt-type", "cloze", cwd=worked)
    assert [row["prompt_type"] for row in two["prompt_types"]] == ["cloze/entity", "qpt/formal"]
    assert run_json("factory", "stats", "--prompt-type", "wh", cwd=worked)["prompt_types"] == []
    done = run("factory", "stats", "--prompt-type", "qpt/formel", cwd=worked, code=2)
    assert done.stdout == "" and "qpt/formal" in done.stderr


def test_an_empty_workspace_says_what_comes_next(tmp_path: Path) -> None:
    root = Workspace.init(tmp_path / "w").root
    assert "factory enqueue" in run("factory", "stats", cwd=root).stdout
    document = run_json("factory", "stats", cwd=root)
    assert document["prompt_types"] == []
    assert document["total"] == {
        **{"items": 0, "accepted": 0, "rejected": 0, "accept_rate": None, "records": 0},
        **{"prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0, "tokens_per_record": None},
        "duplicates": {"exact": 0, "near": 0, "across_types": 0, "share": None},
    }


def test_broken_lines_are_passed_over_and_told(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan", "generate")
    for name in (built.unit(MADE[0], 0).shard, built.unit(MADE[0], 4).rejects("good")):
        built.store.put(name, built.store.get(name) + b'{"half')
    root = built.workspace.root
    total = run_json("factory", "stats", cwd=root)["total"]
    assert (total["items"], total["accepted"], total["rejected"]) == (12, 6, 6)
    assert "2 broken lines were passed over" in run("factory", "stats", cwd=root).stdout


def test_stale_attempts_and_withdrawn_text_are_in_no_figure(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan", "generate")  # it leaves three stale files of rejects
    root = built.workspace.root
    assert run_json("factory", "stats", cwd=root)["total"]["rejected"] == 6
    stone = Tombstone(kind="article", value=built.snippets[0].article_id)
    built.store.put(stone.name, stone.model_dump_json().encode())
    total = run_json("factory", "stats", cwd=root)["total"]
    assert (total["accepted"], total["rejected"]) == (0, 4)


def test_parts_of_an_item_count_by_their_phase_and_the_item_counts_once(tmp_path: Path) -> None:
    # given an item asked about twice, once accepted and once not, and one of which all three parts failed
    built = build(tmp_path, "corpus", "plan")
    unit, one, other = built.unit(MADE[1], 0), *built.snippets[:2]
    records = [pair_of(built, one, order) for order in ("right_first", "wrong_first")]
    parts = [("ask.2", "grounded", one), ("extract.1", "features", other), ("extract.2", "features", other)]
    rejects = [
        built.reject(unit, snippet).model_copy(
            update={"id": f"{phase}{snippet.id}", "phase": phase, "gate": gate, "code": "x"}
        )
        for phase, gate, snippet in (*parts, ("ask.3", "grounded", other))
    ]
    built.commit(unit, records, rejects)
    (row,) = run_json("factory", "stats", cwd=built.workspace.root)["prompt_types"]
    assert (row["items"], row["accepted"], row["rejected"], row["records"]) == (2, 1, 1, 2)
    assert {(one["gate"], one["phase"]): one["count"] for one in row["rejects"]} == {
        ("grounded", "ask"): 2,
        ("features", "extract"): 2,
    }
    assert row["teacher_put_right"] == {"2": 1}
    assert row["right_stands"] == {"right_first": 1, "wrong_first": 1}
    assert "features/x 2 (extract)" in run("factory", "stats", cwd=built.workspace.root).stdout


def pair_of(built: Built, snippet: Any, ordering: str) -> Record:
    record = built.record(built.unit(MADE[1], 0), snippet, ordering)
    return record.model_copy(update={"phase": "ask.1", "right_at": 2})
