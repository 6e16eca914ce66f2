"""`factory retire`: what a tombstone withdraws, and takes back, is what a count by hand says; nothing committed is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation.corpus import Corpus, jsonl
from foundation.reader import Tombstone, pin, read, tombstones
from foundation.records import Article, Reject
from foundation.workspace import Workspace
from generator.ingest.run import EDITED
from tests.generator.report_workspace import TYPES as MADE
from tests.generator.report_workspace import build
from tests.support.commands import REPOSITORY, reject_lines, run, run_json, shard_records
from tests.support.faults import RULES, clear

TYPES = ("cloze/entity", "contrastive/person", "cross/compared-passages", "wh/when", "wh/who")
ARTICLES = sorted((REPOSITORY / "examples/wwii/articles").glob("*.md"))[:3]
ENQUEUE = ("enqueue", *(word for one in TYPES for word in ("--prompt-type", one)))


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three articles through five prompt types, one of which compares passages. Tests only copy it."""
    workspace = Workspace.init(tmp_path_factory.mktemp("retire") / "w")
    (workspace.root / "factory.toml").write_text(f'[split]\nkey = "k"\nunseen = 0.3\nphrasing = 0.2\n{RULES}')
    try:
        run("factory", "ingest", *map(str, ARTICLES), cwd=workspace.root)
        run("factory", *ENQUEUE, cwd=workspace.root)
        run("factory", "work", "--burst", cwd=workspace.root)
    finally:
        clear(workspace)
    return workspace.root


@pytest.fixture
def root(worked: Path, tmp_path: Path) -> Any:
    """A copy of it."""
    copy = tmp_path / "w"
    shutil.copytree(worked, copy, ignore=shutil.ignore_patterns("run", "logs", "cache"))
    yield copy
    clear(Workspace(copy))


def standing(root: Path) -> list[str]:
    """Every record that stands, as the one reader gives it, to the byte."""
    return [record.model_dump_json() for record in read(Workspace(root).store)]


def committed(root: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in ("shards", "rejects", "plan")
        for path in sorted((root / folder).rglob("*.*"))
    }


def the_article(root: Path) -> Article:
    """One that is the second passage of another one's records, or at least of its own."""
    held = Counter(row["article_id"] for row in shard_records(root))
    return next(one for one in Corpus(Workspace(root).store).articles() if one.id == held.most_common(1)[0][0])


def names_article(row: dict[str, Any], id_: str) -> bool:
    return id_ in (row["article_id"], row["partner_article_id"])


def names_snippet(row: dict[str, Any], id_: str) -> bool:
    return id_ in (row["snippet_id"], row["partner_id"])


def test_retire_and_undo_round_trip_to_the_byte(root: Path) -> None:
    # given what every reader says
    article, before, files = the_article(root), standing(root), committed(root)
    stats, drawn = (
        run_json("factory", *one, cwd=root) for one in (("stats",), ("sample", "-n", "9999", "--seed", "1"))
    )
    records = [row for row in shard_records(root) if names_article(row, article.id)]
    rejects = [row for row in reject_lines(root) if names_article(row, article.id)]
    assert records and rejects and len(records) < len(before)
    # when the article is retired, by its title as one would type it
    told = run_json("factory", "retire", "--article", article.title.lower(), "--reason", "wrong", cwd=root)
    # then what is told is a count by hand, and every reader leaves exactly that out
    assert told["retired"][0]["value"] == article.id
    assert (told["records"], told["rejects"]) == (len(records), len(rejects))
    assert told["by_split"] == {name: Counter(row["split"] for row in records)[name] for name in told["by_split"]}
    assert told["by_prompt_type"] == Counter(row["prompt_type"] for row in records)
    assert standing(root) == [line for line in before if not names_article(json.loads(line), article.id)]
    assert run_json("factory", "stats", cwd=root)["total"]["records"] == stats["total"]["records"] - len(records)
    for kind, option in (("record", ()), ("reject", ("--rejects",))):
        samples = run_json("factory", "sample", "-n", "9999", *option, cwd=root)["samples"]
        assert samples and not any(names_article(one[kind], article.id) for one in samples)
    # and when it is taken back, all is as it was
    undone = run_json("factory", "retire", "--undo", "--article", article.id, cwd=root)
    assert (undone["records"], undone["by_split"]) == (told["records"], told["by_split"])
    assert undone["missing_items"] == undone["without_partner"] == {}
    assert standing(root) == before
    assert committed(root) == files
    assert run_json("factory", "stats", cwd=root) == stats
    assert run_json("factory", "sample", "-n", "9999", "--seed", "1", cwd=root) == drawn
    assert not list(tombstones(Workspace(root).store))


@pytest.mark.parametrize("kind", ["snippet", "prompt_type", "fingerprint", "unit"])
def test_each_kind_withdraws_what_it_names_and_no_more(root: Path, kind: str) -> None:
    before = [json.loads(line) for line in standing(root)]
    row = next(row for row in before if row["partner_id"])
    value = row[f"{kind}_id" if kind == "snippet" else kind]
    own: Callable[[dict[str, Any]], bool] = (
        (lambda one: names_snippet(one, value)) if kind == "snippet" else (lambda one: one[kind] == value)
    )
    told = run_json("factory", "retire", f"--{kind.replace('_', '-')}", value, cwd=root)
    assert told["records"] == sum(map(own, before)) > 0
    assert told["rejects"] == sum(map(own, reject_lines(root)))
    assert [json.loads(line) for line in standing(root)] == [one for one in before if not own(one)]
    (listed,) = run_json("factory", "retire", "--list", cwd=root)["tombstones"]
    assert (listed["kind"], listed["value"], listed["records"]) == (kind, value, told["records"])
    undone = run_json("factory", "retire", "--undo", f"--{kind.replace('_', '-')}", value, cwd=root)
    assert (undone["records"], undone["rejects"]) == (told["records"], told["rejects"])
    assert [json.loads(line) for line in standing(root)] == before


def test_several_at_once_and_a_family_count_nothing_twice(root: Path) -> None:
    article, before = the_article(root), [json.loads(line) for line in standing(root)]
    command = ("retire", "--article", article.id, "--prompt-type", "wh", "--dry-run")
    told = run_json("factory", *command, cwd=root)
    assert told["dry_run"] and not list(tombstones(Workspace(root).store))
    run("factory", *command[:-1], "--reason", "both", cwd=root)
    gone = [row for row in before if names_article(row, article.id) or row["prompt_type"].startswith("wh/")]
    assert told["records"] == len(gone)
    listed = run_json("factory", "retire", "--list", cwd=root)
    assert listed["records"] == len(gone) < sum(one["records"] for one in listed["tombstones"])
    assert {one["reason"] for one in listed["tombstones"]} == {"both"}
    out = run("factory", "retire", "--list", cwd=root).stdout
    assert f'article "{article.title}"' in out and f"in all {len(gone):,} records" in out
    # one that is taken back leaves what the others withdraw withdrawn
    undone = run_json("factory", "retire", "--undo", "--article", article.id, cwd=root)
    assert undone["records"] == sum(not row["prompt_type"].startswith("wh/") for row in gone)


def test_what_is_retired_or_stands_already_is_said_and_is_no_error(root: Path) -> None:
    article = the_article(root)
    run("factory", "retire", "--article", article.id, "--reason", "first", cwd=root)
    (stone,) = tombstones(Workspace(root).store)
    again = run("factory", "retire", "--article", article.title, "--reason", "second", cwd=root)
    assert "already retired" in again.stdout and "first" in again.stdout
    assert tombstones(Workspace(root).store) == (stone,)
    assert "to take it back" not in again.stdout
    for _ in range(2):
        out = run("factory", "retire", "--undo", "--article", article.id, cwd=root).stdout
    assert "not retired" in out
    assert run("factory", "retire", "--list", cwd=root).stdout == "nothing is retired\n"


def test_an_undo_that_only_says_so_changes_nothing(root: Path) -> None:
    run("factory", "retire", "--prompt-type", "wh/who", cwd=root)
    told = run_json("factory", "retire", "--undo", "--prompt-type", "wh/who", "--dry-run", cwd=root)
    assert told["records"] > 0 and len(tombstones(Workspace(root).store)) == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ((), "say what to retire"),
        (("--article", "Winter Wars of Finland"), "no article of that title or id"),
        (("--snippet", "f" * 24), "no such snippet"),
        (("--prompt-type", "wh/whom"), "wh/who"),
        (("--fingerprint", "f" * 24), "no prompt type has that fingerprint"),
        (("--unit", "../../etc"), "not the id of a unit"),
        (("--list", "--prompt-type", "wh/who"), "--list stands alone"),
        (("--undo", "--prompt-type", "wh/who", "--reason", "x"), "--undo takes no --reason"),
        (("--prompt-type", "wh/who", "--reason", EDITED), "ingest"),
        (("--prompt-type", "wh/who", "--article", "nothing of the kind"), "no article"),
    ],
)
def test_wrong_use_writes_nothing(worked: Path, command: tuple[str, ...], said: str) -> None:
    done = run("factory", "retire", *command, cwd=worked, code=2)
    assert said in done.stderr and done.stdout == ""
    assert not list(tombstones(Workspace(worked).store))


def test_an_unknown_title_offers_the_nearest_and_one_of_two_sources_both_ids(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan", "generate")
    twin = Article(id=Article.make_id("other", "Battle 0"), title="Battle 0", text="x", source="other")
    built.store.put("corpus/articles/000002.jsonl", jsonl([twin]))
    root = built.workspace.root
    assert "'Battle 0'" in run("factory", "retire", "--article", "Battel 0", cwd=root, code=2).stderr
    both = run("factory", "retire", "--article", "battle 0", cwd=root, code=2).stderr
    assert twin.id in both and built.snippets[0].article_id in both and "of notes" in both
    told = run_json("factory", "retire", "--article", twin.id, cwd=root)
    assert (told["records"], told["rejects"]) == (0, 0)
    assert "nothing of it is committed" in run("factory", "retire", "--unit", "0" * 24, cwd=root).stdout


def test_rejects_of_attempts_that_did_not_commit_are_not_counted(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan", "generate")
    told = run_json("factory", "retire", "--article", built.snippets[0].article_id, cwd=built.workspace.root)
    assert (told["records"], told["rejects"]) == (8, 2)
    assert told["by_prompt_type"] == {MADE[0]: 4, MADE[1]: 4}


def test_what_ran_meanwhile_has_no_item_of_it_and_undo_counts_what_is_missing(root: Path) -> None:
    # given an article that is retired while another round runs
    article, store = the_article(root), Workspace(root).store
    run("factory", "retire", "--article", article.id, cwd=root)
    run("factory", *ENQUEUE, "--round", "1", cwd=root)
    run("factory", "work", "--burst", cwd=root)
    rows = [row for row in (*shard_records(root), *reject_lines(root)) if row["round"] == 1]
    assert rows and not any(names_article(row, article.id) for row in rows)
    # when nothing is left to do, in the plan's eyes too
    assert run_json("factory", "reconcile", cwd=root)["requeued"] == 0
    status = run_json("factory", "status", cwd=root)
    assert status["planned"] == status["committed"] and status["left"] == 0
    # then undo brings the first round back, and tells how much of the second there is not
    own = [snippet for snippet in Corpus(store).all_snippets() if snippet.article_id == article.id]
    undone = run_json("factory", "retire", "--undo", "--article", article.id, cwd=root)
    assert undone["missing_items"] == dict.fromkeys(TYPES, len(own))
    assert undone["records"] == sum(names_article(row, article.id) for row in shard_records(root))
    asked = {(row["snippet_id"], row["round"]) for row in (*shard_records(root), *reject_lines(root))}
    assert all((snippet.id, 0) in asked and (snippet.id, 1) not in asked for snippet in own)
    assert run_json("factory", "reconcile", cwd=root)["requeued"] == 0
    # and those units stay as they are: only a round of its own asks about that text again
    run("factory", *ENQUEUE, "--round", "2", cwd=root)
    run("factory", "work", "--burst", cwd=root)
    again = {row["snippet_id"] for row in (*shard_records(root), *reject_lines(root)) if row["round"] == 2}
    assert again >= {snippet.id for snippet in own}


def test_an_item_that_lost_its_second_passage_is_counted(root: Path) -> None:
    partners = Counter(row["partner_id"] for row in shard_records(root) if row["partner_id"])
    id_ = partners.most_common(1)[0][0]
    # given a round that was planned, with its pairs, before one of their passages was retired
    run("factory", "enqueue", "--prompt-type", "cross/compared-passages", cwd=root)
    for path in (root / "shards/cross").rglob("*.jsonl"):
        path.unlink()
    for path in (root / "rejects/cross").rglob("*.jsonl"):
        path.unlink()
    run("factory", "retire", "--snippet", id_, cwd=root)
    run("factory", "work", "--burst", cwd=root)
    alone = [row for row in reject_lines(root) if (row["gate"], row["code"]) == ("partner", "none")]
    undone = run_json("factory", "retire", "--undo", "--snippet", id_, cwd=root)
    assert undone["missing_items"] == {"cross/compared-passages": 1}
    assert 0 < undone["without_partner"]["cross/compared-passages"] <= len(alone)


def test_a_prompt_type_with_units_to_come_is_told_with_the_mend(root: Path) -> None:
    run("factory", "enqueue", "--prompt-type", "wh/who", "--round", "1", cwd=root)
    status = run_json("factory", "status", cwd=root)
    told = run_json("factory", "retire", "--prompt-type", "wh", cwd=root)
    assert +Counter(told["units_left"]) == {"wh/who": status["left"]}
    mend = "factory cancel --prompt-type wh/who"
    assert mend in run("factory", "retire", "--prompt-type", "wh/who", cwd=root).stdout
    run(*mend.split(), "--yes", cwd=root)
    assert mend not in run("factory", "retire", "--prompt-type", "wh/who", cwd=root).stdout


def test_a_retired_prompt_type_that_runs_yields_nothing_and_undo_says_how_much(root: Path) -> None:
    # given units that were planned before (a retired type is not planned)
    run("factory", "enqueue", "--prompt-type", "wh/who", "--prompt-type", "wh/when", "--round", "1", cwd=root)
    run("factory", "retire", "--prompt-type", "wh/who", cwd=root)
    run("factory", "work", "--burst", cwd=root)
    rows = [row["prompt_type"] for row in (*shard_records(root), *reject_lines(root)) if row["round"] == 1]
    assert set(rows) == {"wh/when"}
    undone = run_json("factory", "retire", "--undo", "--prompt-type", "wh/who", cwd=root)
    assert undone["missing_items"] == {"wh/who": len(list(Corpus(Workspace(root).store).all_snippets()))}


def test_two_commands_at_once_put_one_tombstone(root: Path) -> None:
    article = the_article(root)
    script = "from generator.cli import main; main()"
    argv = [sys.executable, "-c", script, "retire", "--article", article.id, "--json", "--reason"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    both = [
        subprocess.Popen([*argv, reason], cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for reason in ("one", "two")
    ]
    told = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(len(one["retired"]) for one in told) == [0, 1]
    assert sorted(len(one["already"]) for one in told) == [0, 1]
    (stone,) = tombstones(Workspace(root).store)
    assert stone.reason == ("one" if told[0]["retired"] else "two")


def test_what_was_pinned_before_keeps_what_it_pinned_and_gc_leaves_tombstones(root: Path) -> None:
    store, article = Workspace(root).store, the_article(root)
    before, pinned = standing(root), pin(store)
    run("factory", "retire", "--article", article.id, cwd=root)
    assert [record.model_dump_json() for record in read(store, pinned)] == before
    files = {path: path.read_bytes() for path in (root / "tombstones").iterdir()}
    run("factory", "gc", cwd=root)
    assert {path: path.read_bytes() for path in (root / "tombstones").iterdir()} == files
    run("factory", "retire", "--undo", "--article", article.id, cwd=root)
    assert standing(root) == before


def test_retiring_what_an_edit_withdrew_outlasts_the_next_edit_and_undo_leaves_the_edit(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan", "generate")
    snippet, root = built.snippets[0], built.workspace.root
    stone = Tombstone(kind="snippet", value=snippet.id, reason=EDITED)
    built.store.put(stone.name, stone.model_dump_json().encode())
    assert "edits of their articles" in run("factory", "retire", "--list", cwd=root).stdout
    told = run_json("factory", "retire", "--snippet", snippet.id, "--reason", "false", cwd=root)
    assert told["retired"] and told["records"] == 0  # it withdraws nothing that was not withdrawn
    (now,) = tombstones(built.store)
    assert now.reason != EDITED and "false" in now.reason
    undone = run_json("factory", "retire", "--undo", "--snippet", snippet.id, cwd=root)
    assert undone["undone"] == [] and undone["edited"][0]["value"] == snippet.id
    assert tombstones(built.store) == (stone,)
    assert run_json("factory", "retire", "--undo", "--snippet", snippet.id, cwd=root)["records"] == 3
    assert tombstones(built.store) == ()


def test_a_reject_that_a_retired_partner_was_shown_in_is_withdrawn_too(tmp_path: Path) -> None:
    built = build(tmp_path, "corpus", "plan")
    unit, (one, *_, other) = built.unit(MADE[0], 0), built.snippets
    reject: Reject = built.reject(unit, one).model_copy(
        update={"partner_id": other.id, "partner_article_id": other.article_id}
    )
    built.commit(unit, [], [reject])
    told = run_json("factory", "retire", "--article", other.article_id, cwd=built.workspace.root)
    assert (told["records"], told["rejects"]) == (0, 1)
