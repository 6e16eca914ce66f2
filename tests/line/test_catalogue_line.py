"""Every prompt type of the catalogue through the whole factory: what is accepted and what is rejected is all there is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foundation.engine import has_vllm
from foundation.workspace import Workspace
from generator.catalogue import FOLDER, files_of, load_catalogue
from generator.teachers.rules.teacher import MAKERS
from tests.support.commands import REPOSITORY, reject_lines, run, run_json, shard_records
from tests.support.faults import RULES, clear
from tests.support.tiny_qwen import TINY_ARGUMENTS, make_tiny_qwen3

ARTICLES = [
    REPOSITORY / f"examples/wwii/articles/{name}.md" for name in ("battle-of-midway", "battle-of-moscow", "winter-war")
]
CATALOGUE = load_catalogue()
CJK = re.compile(r"[\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]")
MOST = 40  # tokens a random model may write, or its gibberish would take all the room there is

# Two articles of two windows each, which name the same man: a partner of either kind.
HARBOUR = """---
title: {title}
---

Admiral Harald Brecht came to {town} in 1911 with six old ships. The harbour had been closed by ice for eleven weeks.
Nobody in the garrison believed that a fleet could be kept there. The engineers built two stone piers before the summer.
In August the first convoy arrived from the south with coal. The town council paid for a new lighthouse on the cape.
Fishermen were ordered to leave the inner basin at night. By December some 400 sailors lived in wooden barracks.
The winter of 1912 was mild and the piers were finished early. A railway reached {town} from the mines in April.
The admiral wrote long letters to the ministry about the guns. Two batteries were placed on the hills above the bay.
During the summer the squadron trained for a long blockade. Its cruisers sailed as far as the northern islands.
The men complained about the food and the endless fog. When the armistice came, Harald Brecht handed over the port.
"""


def of_type(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["prompt_type"] == name]


def assert_every_item_is_accounted_for(workspace: Path) -> dict[str, dict[str, Any]]:
    """Of every type `accepted + rejected = items = snippets`, by the commands and by the files; the rows of `factory stats`."""
    status, stats = (run_json("factory", command, cwd=workspace) for command in ("status", "stats"))
    assert status["planned"] == status["committed"] > 0
    assert status["queued"] == status["in_flight"] == status["failed"] == 0
    told = {row["prompt_type"]: row for row in stats["prompt_types"]}
    records, rejects = shard_records(workspace), reject_lines(workspace)
    snippets = sum(len(path.read_bytes().splitlines()) for path in workspace.glob("corpus/blocks/*.jsonl"))
    for name in CATALOGUE:
        accepted = {row["item"] for row in of_type(records, name)}
        rejected = {row["item"] for row in of_type(rejects, name)} - accepted
        assert len(accepted) + len(rejected) == snippets, name
        assert (told[name]["items"], told[name]["accepted"]) == (snippets, len(accepted)), name
        assert told[name]["rejected"] == len(rejected), name
    assert told.keys() == CATALOGUE.keys()
    assert status["items"] == status["items_accepted"] + status["items_rejected"] == snippets * len(CATALOGUE)
    ids = [row["id"] for row in (*records, *rejects)]
    assert len(ids) == len(set(ids))
    assert all(row["gate"] and row["code"] and row["reason"] for row in rejects)
    return told


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the project's articles through all of the catalogue, by the rules teacher. Tests only read it."""
    workspace = Workspace.init(tmp_path_factory.mktemp("catalogue") / "w")
    (workspace.root / "factory.toml").write_text(RULES)
    try:
        run("factory", "ingest", *map(str, ARTICLES), cwd=workspace.root)
        run("factory", "enqueue", "--all", cwd=workspace.root)
        run("factory", "work", "--burst", cwd=workspace.root)
    finally:
        clear(workspace)
    return workspace.root


def test_with_rules_every_item_of_every_type_is_accepted_or_rejected(worked: Path) -> None:
    told = assert_every_item_is_accounted_for(worked)
    assert len(told) == 84
    accepting = [name for name, row in told.items() if row["accepted"]]
    assert len(accepting) >= 40
    assert set(accepting) <= set(MAKERS)


def test_what_rules_cannot_make_is_declined_whole(worked: Path) -> None:
    rejects = reject_lines(worked)
    for name in CATALOGUE.keys() - MAKERS.keys():
        rows = of_type(rejects, name)
        reasons = Counter((row["gate"], row["code"]) for row in rows)
        assert reasons.keys() <= {("teacher", "declined"), ("partner", "none")}, name
        assert any("a language model is needed" in row["reason"] for row in rows), name


def test_the_gates_accept_every_record_again(worked: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    file.write_bytes(b"".join(path.read_bytes() for path in sorted(worked.glob("shards/*/*/*.jsonl"))))
    done = run("factory", "check", str(file), cwd=worked)
    assert f"{len(shard_records(worked)):,} accepted, 0 rejected" in done.stderr


def test_of_every_pair_one_record_has_the_right_option_first(worked: Path) -> None:
    paired = [name for name, one in CATALOGUE.items() if one.options and one.options.order == "both"]
    assert len(paired) >= 5
    for name in paired:
        rows = of_type(shard_records(worked), name)
        pairs: dict[str, list[str]] = {}
        for row in rows:
            pairs.setdefault(row["pair_id"], []).append(row["ordering"])
        assert rows, name
        assert {tuple(sorted(found)) for found in pairs.values()} == {("right_first", "wrong_first")}, name
        assert Counter(row["ordering"] for row in rows)["right_first"] * 2 == len(rows), name


def test_no_record_holds_chinese_japanese_or_korean(worked: Path) -> None:
    texts = [message["content"] for row in shard_records(worked) for message in row["messages"]]
    assert len(texts) > 1000
    assert not [text for text in texts if CJK.search(text)]


# The real engine


@pytest.fixture
def gibberish(tmp_path: Path) -> Iterator[Path]:
    """A workspace whose teacher is a random model: two small articles, and the catalogue with less room to write in.

    The types are copied into the workspace's own prompts/, as a user does to change one.
    """
    workspace = Workspace.init(tmp_path / "w")
    model = make_tiny_qwen3(tmp_path / "model")
    arguments = ", ".join(f'"{argument}"' for argument in TINY_ARGUMENTS)
    (workspace.root / "factory.toml").write_text(
        f'[teacher]\nbackend = "vllm"\nmodel = "{model}"\ncontext = 8192\nargs = [{arguments}]\nconcurrency = 16\n'
    )
    for path in files_of(FOLDER):
        own = workspace.prompts / path.relative_to(FOLDER)
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(re.sub(r"max_tokens: \d+", f"max_tokens: {MOST}", path.read_text("utf-8")), "utf-8")
    for town in ("Tarvik", "Osmark"):
        (tmp_path / f"{town}.md").write_text(HARBOUR.format(title=f"The harbour of {town}", town=town))
    run("factory", "ingest", *(str(tmp_path / f"{town}.md") for town in ("Tarvik", "Osmark")), cwd=workspace.root)
    yield workspace.root
    clear(workspace)


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.xdist_group("vllm")
@pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)")
@pytest.mark.timeout(900)
def test_with_a_random_model_every_item_of_every_type_is_accounted_for(gibberish: Path) -> None:
    run("factory", "enqueue", "--all", cwd=gibberish)
    run("factory", "work", "--burst", cwd=gibberish, timeout=800)
    told = assert_every_item_is_accounted_for(gibberish)
    assert sum(row["rejected"] for row in told.values()) >= 0.95 * sum(row["items"] for row in told.values())
    reasons = Counter((row["gate"], row["code"]) for row in reject_lines(gibberish))
    assert len({gate for gate, _ in reasons}) >= 2
    assert not any(code == "declined" for _, code in reasons)
    assert {row["teacher"].partition(":")[0] for row in reject_lines(gibberish)} == {"vllm"}
