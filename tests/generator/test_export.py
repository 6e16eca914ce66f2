"""`factory export`: the rows are the committed records, the card tells the truth, and `datasets` loads all three formats."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from foundation.reader import Tombstone
from foundation.records import Message, Record
from foundation.workspace import Workspace
from generator.export import formats
from generator.export.card import HUB_LICENSES, hub_license
from generator.export.columns import COLUMNS, public
from generator.export.formats import Format
from generator.export.run import Options, export
from tests.generator.export_workspace import assert_whole, build, load, plant, records_of, tree
from tests.support.commands import run, run_json

pytestmark = pytest.mark.xdist_group("export")  # what they share is made once
LONG = (
    "The garrison of the old harbour town held out for eleven weeks while the relief column crossed the mountains, lost half of "
    "its wagons in the snow, and reached the walls only on the morning after the last flour had been baked and eaten."
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled workspace; tests only read it."""
    return build(tmp_path_factory.mktemp("export"))


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """One of its own."""
    return Path(shutil.copytree(built, tmp_path / "own", ignore=shutil.ignore_patterns("run", "cache")))


@pytest.fixture(scope="module")
def exported(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All three formats of it."""
    folder = tmp_path_factory.mktemp("exported")
    for name in ("jsonl", "parquet", "hf"):
        run("factory", "export", str(folder / name), "--format", name, cwd=built)
    return {name: folder / name for name in ("jsonl", "parquet", "hf")}


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of an export as JSON lines, in the order of its files."""
    paths = [path for split in ("train", "phrasing", "unseen") for path in sorted(folder.glob(f"{split}-*.jsonl"))]
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def test_all_formats_load_and_hold_the_committed_records(
    built: Path, exported: dict[str, Path], tmp_path: Path
) -> None:
    records = records_of(built)
    expected: dict[str, list[Record]] = {}
    for record in records:
        expected.setdefault(record.split, []).append(record)
    assert expected.keys() == {"train", "phrasing", "unseen"}
    loaded = load(tmp_path, *exported.values())
    for one in loaded:
        assert one["features"] == loaded[0]["features"]
        assert one["rows"] == loaded[0]["rows"]
        assert one["rows"].keys() == expected.keys()
    for split, rows in loaded[0]["rows"].items():
        assert [row["id"] for row in rows] == [record.id for record in expected[split]]
        for row, record in zip(rows, expected[split], strict=True):
            assert list(row) == [column.name for column in COLUMNS]
            assert row["messages"] == [message.model_dump() for message in record.messages]
            assert tuple(row["supervised"]) == record.supervised
            same = record.model_dump(
                mode="json", exclude={"v", "messages", "supervised", "sampling", "usage", "attempt", "license"}
            )
            assert {key: row[key] for key in same} == same
            assert row["temperature"] == record.sampling.temperature
            assert row["completion_tokens"] == record.usage.completion_tokens
            assert None not in row.values()


def test_the_hub_takes_the_front_matter(exported: dict[str, Path]) -> None:
    import datasets
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, DatasetCardData

    resources = Path(datasets.__file__).parent / "utils" / "resources"
    known = {name: json.loads((resources / f"{name}.json").read_text()) for name in ("size_categories", "languages")}
    for name, folder in exported.items():
        card = DatasetCard.load(folder / "README.md")
        assert isinstance(card.data, DatasetCardData)
        data = card.data.to_dict()
        assert set(data["size_categories"]) <= set(known["size_categories"])
        assert set(data["language"]) <= set(known["languages"])
        assert (data["license"], data["license_link"]) == ("other", "LICENSE.md")
        assert data["license_name"] == "not-stated-and-apache-2.0-and-cc-by-sa-4.0"
        assert (folder / data["license_link"]).is_file()
        configs = MetadataConfigs.from_dataset_card_data(card.data)
        for entry in configs["default"]["data_files"]:
            files = list(folder.glob(entry["path"]))
            assert [file.name for file in files] == [
                f"{entry['split']}-00000-of-00001.{'jsonl' if name == 'jsonl' else 'parquet'}"
            ]


def test_the_card_counts_what_is_there(built: Path, exported: dict[str, Path]) -> None:
    records, text = records_of(built), (exported["jsonl"] / "README.md").read_text()
    found = json.loads((exported["jsonl"] / "manifest.json").read_text())
    splits, types = Counter(one.split for one in records), Counter(one.prompt_type for one in records)
    assert found["records"] == len(records)
    assert found["by_split"] == splits
    assert found["by_prompt_type"] == types
    for split, count in splits.items():
        assert f"| `{split}` | {count:,} | 1 |" in text
    families = Counter((one.family, one.split) for one in records)
    for family in {one.family for one in records}:
        cells = [families[family, split] for split in ("train", "phrasing", "unseen")]
        assert f"| {family} | {' | '.join(f'{cell:,}' for cell in cells)} | {sum(cells):,} |" in text
    stats = {one["prompt_type"]: one for one in run_json("factory", "stats", cwd=built)["prompt_types"]}
    for id_, count in types.items():
        one = stats[id_]
        row = f"| `{id_}` | {count:,} | {one['items']:,} | {one['accepted']:,} | {one['rejected']:,} | {one['accept_rate']:.1%} |"
        assert row in text
    for id_, fingerprint in {(one.prompt_type, one.fingerprint) for one in records}:
        assert re.search(rf"\| `{id_}` \| \d+ \| `{fingerprint}` \| {types[id_]:,} \|", text)
    (teacher,) = {one.teacher for one in records}
    assert f"| {teacher} | {len(records):,} |" in text
    assert "is not a language model" in text
    assert sum(file["records"] for file in found["files"]) == len(records)


def test_every_article_is_attributed(built: Path, exported: dict[str, Path]) -> None:
    rows = lines_of(exported["jsonl"])
    sources = {one["article_id"]: one for one in map(json.loads, (exported["hf"] / "sources.jsonl").open())}
    used = Counter(id_ for row in rows for id_ in {row["article_id"], row["partner_article_id"]} - {""})
    assert {id_: one["records"] for id_, one in sources.items()} == used
    assert {one["license"] for one in sources.values()} == {"Apache-2.0", "CC BY-SA 4.0", ""}
    for row in rows:
        own = sources[row["article_id"]]
        assert (row["title"], row["url"], row["source"]) == (own["title"], own["url"], own["source"])
        assert bool(row["url"]) == (own["source"] == "other-wiki")
        partner = sources[row["partner_article_id"]]["license"] if row["partner_article_id"] else own["license"]
        both = f"{own['license'] or 'not stated'}; {partner or 'not stated'}"
        assert row["license"] == (own["license"] if partner == own["license"] else both)
    assert any(";" in row["license"] for row in rows)
    silent = sum(not row["license"] or "not stated" in row["license"] for row in rows)
    assert silent > sum(not row["license"] for row in rows), "a pair is silent if one of its two is"
    assert f"For {silent:,} records no licence was stated" in (exported["hf"] / "README.md").read_text()
    assert f"For {silent:,} records no licence was stated" in (exported["hf"] / "LICENSE.md").read_text()


def test_a_silent_licence_is_warned_of(built: Path, tmp_path: Path) -> None:
    assert "no licence was stated" in run("factory", "export", str(tmp_path / "out"), cwd=built).stderr


def test_no_path_of_the_machine_is_in_it(built: Path, exported: dict[str, Path]) -> None:
    for folder in exported.values():
        for name, data in tree(folder).items():
            for path in (str(built), str(built.parent), str(Path.home()), str(Path.cwd())):
                assert path.encode() not in data, name


@pytest.mark.parametrize(
    ("teacher", "shown"),
    [
        ("vllm:Qwen/Qwen3-4B@main", "vllm:Qwen/Qwen3-4B@main"),
        ("vllm:/home/me/models/mine@main", "vllm:mine@main"),
        ("vllm:/home/me/models/mine/@main", "vllm:mine@main"),
        ("openai:../secret/mine@unnamed", "openai:mine@unnamed"),
        ("vllm:~/models/mine@main", "vllm:mine@main"),
        ("rules:2", "rules:2"),
    ],
)
def test_a_teacher_in_a_folder_is_named_without_it(teacher: str, shown: str) -> None:
    assert public(teacher) == shown


@pytest.mark.parametrize("form", ["jsonl", "parquet", "hf"])
def test_the_same_manifest_gives_the_same_bytes(
    built: Path, exported: dict[str, Path], tmp_path: Path, form: str
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(built, moved, ignore=shutil.ignore_patterns("run", "cache"))
    run("factory", "export", str(tmp_path / "again"), "--format", form, cwd=moved, env={"PYTHONHASHSEED": "7"})
    assert tree(tmp_path / "again") == tree(exported[form])
    assert_whole(tmp_path / "again")


@pytest.mark.parametrize("form", ["jsonl", "hf"])
def test_many_files(built: Path, exported: dict[str, Path], tmp_path: Path, form: Format, monkeypatch: Any) -> None:
    monkeypatch.setattr(formats, "ROWS", 60)
    monkeypatch.setattr(formats, "GROUP_ROWS", 25)
    monkeypatch.setenv("FACTORY_WORKSPACE", str(built))
    found = export(Workspace.find(), tmp_path / "out", Options(format=form))
    counts = found["by_split"]
    for split, count in counts.items():
        names = [one["name"].rpartition("/")[2] for one in found["files"] if f"{split}-" in one["name"]]
        of = -(-count // 60)
        assert names == [f"{split}-{n:05d}-of-{of:05d}.{formats.SUFFIX[form]}" for n in range(of)]
    assert max(one["records"] for one in found["files"]) == 60
    assert_whole(tmp_path / "out")
    many, one = load(tmp_path, tmp_path / "out", exported[form])
    assert many == one


def planted(root: Path) -> dict[str, Record]:
    """A long question, the same in other marks, one with another word, and a pair of which one half repeats it."""
    base = next(record for record in records_of(root) if record.prompt_type == "wh/who" and record.split == "train")

    def one(name: str, text: str, **values: Any) -> Record:
        messages = (Message(role="user", content=text), Message(role="assistant", content="The garrison."))
        return base.model_copy(update={"id": name, "item": name, "messages": messages, "supervised": (1,), **values})

    found = [
        one("first", LONG),
        one("exact", LONG.upper().replace(",", " -")),
        one("near", LONG.replace("snow", "rain")),
        one("near-held-out", LONG.replace("flour", "grain"), split="unseen"),
        one("pair-a", LONG.replace("wagons", "horses"), pair_id="pair"),
        one("pair-b", "Which of the two was it? " + " ".join(reversed(LONG.split())), pair_id="pair"),
    ]
    plant(root, *found)
    return {record.id: record for record in found}


def test_duplicates_are_marked(root: Path, tmp_path: Path) -> None:
    before = run_json("factory", "export", str(tmp_path / "before"), cwd=root)["duplicates"]
    planted(root)
    found = run_json("factory", "export", str(tmp_path / "out"), cwd=root)
    marks = {row["id"]: (row["duplicate"], row["near_duplicate_of"]) for row in lines_of(tmp_path / "out")}
    assert marks["first"] == marks["pair-b"] == ("", "")
    assert marks["exact"] == ("exact", "first")
    assert marks["near"] == marks["near-held-out"] == marks["pair-a"] == ("near", "first")
    assert found["duplicates"]["exact"] == before["exact"] + 1
    assert found["duplicates"]["near"] == before["near"] + 3
    assert found["duplicates"]["across_splits"] == before["across_splits"] + 1
    assert Counter(kind for kind, _ in marks.values() if kind) == {
        kind: found["duplicates"][kind] for kind in ("exact", "near") if found["duplicates"][kind]
    }
    assert all(first in marks for kind, first in marks.values() if kind)


def test_duplicates_are_dropped_but_for_half_a_pair(root: Path, tmp_path: Path) -> None:
    planted(root)
    found = run_json("factory", "export", str(tmp_path / "out"), "--near-duplicates", "drop", cwd=root)
    rows = {row["id"]: row for row in lines_of(tmp_path / "out")}
    assert {"first", "pair-a", "pair-b"} <= rows.keys()
    assert not {"exact", "near", "near-held-out"} & rows.keys()
    assert not any(row["duplicate"] or row["near_duplicate_of"] for row in rows.values())
    figures = found["duplicates"]
    assert figures["kept_as_half_of_a_pair"] >= 1
    assert figures["dropped"] == figures["exact"] + figures["near"] - figures["kept_as_half_of_a_pair"]
    assert len(rows) == found["records"] == len(records_of(root)) - figures["dropped"]
    assert f"{figures['dropped']:,} were left out" in (tmp_path / "out" / "README.md").read_text()


def test_duplicates_are_not_looked_for(root: Path, tmp_path: Path) -> None:
    planted(root)
    found = run_json("factory", "export", str(tmp_path / "out"), "--near-duplicates", "keep", cwd=root)
    assert found["records"] == len(records_of(root))
    assert not any(row["duplicate"] for row in lines_of(tmp_path / "out"))
    assert "They were not looked for" in (tmp_path / "out" / "README.md").read_text()


def test_what_is_withdrawn_is_left_out(root: Path, tmp_path: Path) -> None:
    records = records_of(root)
    article = records[0].article_id
    for stone in (
        Tombstone(kind="article", value=article, reason="a secret"),
        Tombstone(kind="prompt_type", value="wh/who"),
    ):
        Workspace(root).store.put(stone.name, stone.model_dump_json().encode())
    left = [
        record.id
        for record in records
        if record.prompt_type != "wh/who" and article not in (record.article_id, record.partner_article_id)
    ]
    found = run_json("factory", "export", str(tmp_path / "out"), cwd=root)
    rows = lines_of(tmp_path / "out")
    assert sorted(row["id"] for row in rows) == sorted(left)
    assert found["withdrawn"] == len(records) - len(left)
    assert found["tombstones"] == {"article": 1, "prompt_type": 1}
    text = (tmp_path / "out" / "README.md").read_text()
    assert (
        f"{found['withdrawn']:,} records, of all splits, were left out since what they were made of is withdrawn"
        in text
    )
    assert "wh/who" not in text
    assert b"a secret" not in b"".join(tree(tmp_path / "out").values())
    assert article not in (tmp_path / "out" / "sources.jsonl").read_text()


def test_a_selection(built: Path, tmp_path: Path) -> None:
    chosen = ("--prompt-type", "contrastive", "--prompt-type", "wh/who", "--split", "train", "--split", "unseen")
    found = run_json("factory", "export", str(tmp_path / "out"), *chosen, cwd=built)
    expected = [
        record.id
        for record in records_of(built)
        if record.family in ("contrastive", "wh") and record.split in ("train", "unseen")
    ]
    assert sorted(row["id"] for row in lines_of(tmp_path / "out")) == sorted(expected)
    assert found["by_split"]["phrasing"] == 0
    assert found["prompt_types"] == ["contrastive/person", "wh/who"]
    assert not list((tmp_path / "out").glob("phrasing*"))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "only `contrastive/person`, `wh/who`" in text
    assert "only `train`, `unseen`" in text
    assert set(load(tmp_path, tmp_path / "out")[0]["rows"]) == {"train", "unseen"}


def test_a_type_that_is_no_longer_in_the_catalogue(root: Path, tmp_path: Path) -> None:
    base = records_of(root)[0]
    plant(
        root,
        base.model_copy(update={"id": "old", "prompt_type": "gone/old-one", "family": "gone", "fingerprint": "f0"}),
    )
    found = run_json("factory", "export", str(tmp_path / "out"), "--prompt-type", "gone", cwd=root)
    assert found["by_prompt_type"] == {"gone/old-one": 1}
    assert "| `gone/old-one` | - | `f0` |" in (tmp_path / "out" / "README.md").read_text()


def test_a_dry_run_counts_and_writes_nothing(built: Path, exported: dict[str, Path], tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    found = run_json("factory", "export", str(tmp_path / "out"), "--dry-run", cwd=built)
    real = json.loads((exported["jsonl"] / "manifest.json").read_text())
    for key in ("records", "by_split", "by_prompt_type", "duplicates", "licenses", "reader_manifest"):
        assert found[key] == real[key]
    assert sum(file.stat().st_size for file in exported["jsonl"].glob("*.jsonl")) < found["estimated_bytes"]
    assert set(tmp_path.iterdir()) == before


def test_broken_lines_are_named_and_counted(root: Path, tmp_path: Path) -> None:
    shard = next(root.glob("shards/wh/who/*.jsonl"))
    shard.write_bytes(shard.read_bytes() + b'{"v": 1, "torn\n')
    count = len(shard.read_bytes().splitlines())
    done = run("factory", "export", str(tmp_path / "out"), "--json", cwd=root)
    assert json.loads(done.stdout)["broken_lines"] == 1
    assert f"shards/wh/who/{shard.name}:{count}: " in done.stderr
    assert "1 lines could not be read" in (tmp_path / "out" / "README.md").read_text()


def test_text_of_the_corpus_stays_in_its_place(root: Path, tmp_path: Path) -> None:
    hostile = "a | b\n# Heading <script>alert(1)</script> ```` [x](y)"
    base = records_of(root)[0]
    update = {"id": "odd", "article_id": "unknown", "title": hostile, "source": hostile, "license": hostile}
    plant(root, base.model_copy(update=update))
    run("factory", "export", str(tmp_path / "out"), "--format", "hf", cwd=root)
    text = (tmp_path / "out" / "README.md").read_text().partition("## One of them")[0]
    assert "<script>" not in text
    assert "\n# Heading" not in text
    rows = [row for split in load(tmp_path, tmp_path / "out")[0]["rows"].values() for row in split]
    assert next(row for row in rows if row["id"] == "odd")["title"] == hostile


@pytest.mark.parametrize(
    ("stated", "found"),
    [
        (["Apache 2.0"], {"license": "apache-2.0"}),
        (["CC-BY-SA 4.0"], {"license": "cc-by-sa-4.0"}),
        (["CC BY-SA"], {"license": "other", "license_name": "cc-by-sa", "license_link": "LICENSE.md"}),
        (["MIT", "CC0"], {"license": "other", "license_name": "cc0-1.0-and-mit", "license_link": "LICENSE.md"}),
        ([""], {"license": "unknown"}),
        (["§§"], {"license": "other", "license_name": "unnamed", "license_link": "LICENSE.md"}),
    ],
)
def test_licences_by_the_hubs_names(stated: list[str], found: dict[str, str]) -> None:
    assert hub_license(stated) == found
    assert HUB_LICENSES["apache20"] == "apache-2.0"


def test_bad_use_is_refused(built: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine").write_text("keep me")
    refused = {
        "there is something here already": (str(there),),
        "there is no such folder": (str(tmp_path / "none" / "out"),),
        "shards/ is the workspace's own": (str(built / "shards" / "wh" / "out"),),
        "no such prompt type": (str(tmp_path / "out"), "--prompt-type", "wh/whom"),
        "there is no record to export": (str(tmp_path / "out"), "--prompt-type", "dialogue"),
    }
    for words, arguments in refused.items():
        assert words in run("factory", "export", *arguments, cwd=built, code=2).stderr
    assert tree(there) == {"mine": b"keep me"}
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
