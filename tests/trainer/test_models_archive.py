"""Exports and their archive: whole or absent, each with an honest label, its losses, its pass rate and where it came from."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import trainer.export.hf
import trainer.export.run
from foundation.errors import Failure, UsageError
from foundation.reader import pin, read
from foundation.workspace import Workspace
from tests.support.commands import MODULES, REPOSITORY, run, run_json
from tests.trainer.saved_run import LLAMA, QWEN3, run_tokenizer, saved_run, told_run
from trainer.export.archive import checked_label, entries, entry, entry_folder, relabel, weights_folder
from trainer.export.card import summed_up
from trainer.export.run import Wanted, export
from trainer.metrics import RoundPoint
from trainer.tokenizer import tokenizer_sha

FILES = {
    "README.md", "archive.json", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json",
}  # fmt: skip


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden or not."""
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def judged_run(workspace: Workspace) -> None:
    """What a run says of itself, its rounds with corrected rates, and one that is not to be believed."""
    told_run(workspace)
    path = workspace.train / "runs/main/rounds.jsonl"
    first, *others = (RoundPoint.model_validate_json(line) for line in path.read_text("utf-8").splitlines())
    corrected = first.model_copy(update={"corrected": 0.26, "corrected_low": 0.2, "corrected_high": 0.33})
    doubted = RoundPoint(
        round=1, step=7, split="train", pass_rate=0.77, low=0.7, high=0.8, corrected=0.777, baseline=0.077, stop_rate=0.77,
        problems=("5.0 % are <b>unscored", "and more"),
    )  # fmt: skip
    path.write_text("".join(f"{one.model_dump_json()}\n" for one in (corrected, doubted, *others)), "utf-8")


def test_an_export_says_what_it_is(workspace: Workspace) -> None:
    path, model = saved_run(workspace)
    judged_run(workspace)
    folder, made = export(workspace, Wanted(run="main", label="not-good:  repeats   itself"))
    assert folder == workspace.root / "models/main-000007"
    assert {one.name for one in folder.iterdir()} == FILES
    assert list(entries(workspace)) == [made] == [entry(workspace, "main-000007")]
    assert (made.name, made.label, made.run, made.step) == ("main-000007", "not-good: repeats itself", "main", 7)
    assert (made.preset, made.git, made.layout, made.dtype) == ("demo", "abc1234", "qwen3", "float32")
    assert made.parameters == model.num_parameters
    assert made.bytes == sum((folder / name).stat().st_size for name in FILES - {"README.md", "archive.json"})
    assert made.config == QWEN3
    assert made.settings["train.epochs"] == 4.0
    assert made.tokenizer == tokenizer_sha(folder / "tokenizer.json") == tokenizer_sha(run_tokenizer(workspace))
    # the mean of the steps' losses up to this step; held-out ones as last measured before it, never after
    assert (made.losses.train, made.losses.train_steps) == (4.0, 7)
    assert (made.losses.phrasing, made.losses.unseen) == (5.0, 15.0)
    judged = made.judged()
    assert judged is not None
    assert (judged.pass_rate, judged.low, judged.high) == (0.245, 0.191, 0.309)
    assert made.judged("unseen") is None
    # a judging that something speaks against is there, and is no pass rate
    assert made.judged("train") is None
    doubted = made.judging("train")
    assert doubted is not None and doubted.pass_rate == 0.77 and not doubted.believed
    records = [record for record in read(workspace.store) if record.split == "train"]
    assert made.data.manifest == pin(workspace.store).fingerprint
    assert made.data.total == len(records)
    assert made.data.records["qa/first-day"] == sum(record.prompt_type == "qa/first-day" for record in records)
    assert [(one.source, one.license, one.articles) for one in made.data.origins] == [("calendar", "", 5)]
    assert made.data.teachers == {"test": len(records)}
    assert path.is_dir()


def test_the_card_says_it_to_people(workspace: Workspace) -> None:
    saved_run(workspace)
    judged_run(workspace)
    folder, made = export(workspace, Wanted(run="main"))
    card = (folder / "README.md").read_text("utf-8")
    assert card.startswith("---\nlanguage: en\nlibrary_name: transformers\n")
    for told in (
        "**Label:** unlabelled",
        "24.5 % (19.1–30.9)",
        f"{made.parameters:,}",
        f"{made.data.total:,} records for training",
        "| calendar | not stated | 5 |",
        "`qa/first-day`",
        "Qwen3ForCausalLM; the weights of q_norm and k_norm are all 1; the embedding holds each row scaled",
        "| judged right, held-out phrasing | 24.5 % (19.1–30.9) |",
        "corrected for the errors the judge made on answers of known worth | 26.0 % (20.0–33.0) |",
        "| judged right, unseen article | not judged: the judging failed |",
        "| judged right, trained phrasing | not believed: 5.0 % are &lt;b>unscored; and more |",
        made.tokenizer,
        made.data.manifest,
    ):
        assert told in card, told
    assert "77" not in card.partition("## How well it did")[2].partition("## Data")[0]
    relabel(workspace, made.name, "collapsed")
    assert (folder / "README.md").read_text("utf-8") == card.replace("unlabelled", "collapsed")


def test_a_table_says_of_every_split_what_its_judging_came_to(workspace: Workspace) -> None:
    saved_run(workspace)
    judged_run(workspace)
    _, made = export(workspace, Wanted(run="main"))
    assert summed_up(made).splitlines() == [
        "trained phrasing not believed",
        "held-out phrasing 24.5 % (19.1–30.9), corrected 26.0 %",
        "unseen article failed",
    ]
    assert summed_up(made.model_copy(update={"rounds": ()})) == "not judged"


def test_a_judging_that_is_not_believed_is_no_pass_rate(workspace: Workspace) -> None:
    saved_run(workspace)
    told_run(workspace)
    point = RoundPoint(
        round=1, step=7, pass_rate=0.93, low=0.9, high=0.96, problems=("a judge that passes wrong dates",)
    )
    (workspace.train / "runs/main/rounds.jsonl").write_text(point.model_dump_json() + "\n", "utf-8")
    folder, made = export(workspace, Wanted(run="main"))
    card = (folder / "README.md").read_text("utf-8")
    assert "| judged right, held-out phrasing | not believed: a judge that passes wrong dates |" in card
    assert "The judging of its answers has no figure to believe" in card
    assert "93.0" not in card
    assert made.judged() is None
    (document,) = run_json("trainer", "models", cwd=workspace.root)
    assert (document["pass_rate"], document["low"], document["high"]) == (None, None, None)
    listing = run("trainer", "models", cwd=workspace.root).stdout
    assert "93.0" not in listing


def test_the_best_judged_checkpoint_can_be_exported(workspace: Workspace) -> None:
    saved_run(workspace, step=5)
    saved_run(workspace, step=9)
    told_run(workspace, step=5)
    points = [RoundPoint(round=1, step=5, pass_rate=0.4), RoundPoint(round=2, step=9, pass_rate=0.9, problems=("no",))]
    (workspace.train / "runs/main/rounds.jsonl").write_text("".join(f"{one.model_dump_json()}\n" for one in points))
    _, made = export(workspace, Wanted(run="main", checkpoint=Path("best-judged")))
    assert (made.name, made.step) == ("main-000005", 5)


def test_an_entry_of_before_is_still_read(workspace: Workspace) -> None:
    saved_run(workspace)
    told_run(workspace)
    _, made = export(workspace, Wanted(run="main"))
    path = entry_folder(workspace, made.name) / "archive.json"
    old = json.loads(path.read_text())
    new = {"corrected", "corrected_low", "corrected_high", "gpu_seconds", "problems"}
    old["rounds"] = [{name: value for name, value in one.items() if name not in new} for one in old["rounds"][:1]]
    path.write_text(json.dumps(old))
    judged = entry(workspace, made.name).judged()
    assert judged is not None and judged.pass_rate == 0.245 and judged.corrected is None


def test_what_is_not_known_is_not_guessed(workspace: Workspace) -> None:
    """No run.json, no metrics, no judging, no manifest: an export all the same, that says so."""
    path, _ = saved_run(
        workspace, LLAMA, identity={"mix.raw": 0.2, "mix.weights": '{"qpt": 2}', "mix.curriculum": "[]"}
    )
    state = json.loads((path / "state.json").read_text())
    assert "manifest.json" in state["files"]
    (workspace.train / "runs/main/checkpoints/step-000007").rename(workspace.root / "step-000007")
    folder, made = export(workspace, Wanted(run="main", checkpoint=workspace.root / "step-000007"))
    assert (made.git, made.losses.train, made.losses.phrasing, made.judged()) == ("", None, None, None)
    card = (folder / "README.md").read_text("utf-8")
    assert "Nobody has judged its answers at this step" in card
    assert "not measured" in card
    assert 'They were mixed by these settings: weights {"qpt": 2}; raw 0.2 (' in card
    for shard in (workspace.root / "shards/qa/first-day").glob("*.jsonl"):
        shard.unlink()
    _, again = export(workspace, Wanted(run="main", name="again", checkpoint=workspace.root / "step-000007"))
    assert again.data.missing > 0
    assert "qa/first-day" not in again.data.records


@pytest.mark.parametrize(
    ("label", "kept"),
    [
        ("good", "good"),
        (" collapsed ", "collapsed"),
        ("not-good: repeats itself", "not-good: repeats itself"),
        ("not-good:x: y\nz", "not-good: x: y z"),
    ],
)
def test_labels_there_are(label: str, kept: str) -> None:
    assert checked_label(label) == kept


@pytest.mark.parametrize(
    "label", ["", "great", "Good", "not-good", "not-good:", "not-good:  ", "good: really", "bad: x"]
)
def test_no_other_label(workspace: Workspace, label: str) -> None:
    with pytest.raises(UsageError) as told:
        checked_label(label)
    assert "good, collapsed, 'not-good: REASON'" in told.value.mend
    if label:
        saved_run(workspace)
        with pytest.raises(UsageError):
            export(workspace, Wanted(run="main", label=label))
        assert names(workspace.root / "models") == []


def test_nothing_is_written_over(workspace: Workspace, tmp_path: Path) -> None:
    saved_run(workspace)
    folder, made = export(workspace, Wanted(run="main"))
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    with pytest.raises(UsageError, match="writes over nothing"):
        export(workspace, Wanted(run="main"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="writes over nothing"):
        export(workspace, Wanted(run="main", name="second", out=tmp_path / "mine"))
    with pytest.raises(UsageError, match="writes over nothing"):
        export(workspace, Wanted(run="main", name="second", out=tmp_path / "mine/thesis.txt"))
    with pytest.raises(UsageError, match="not a model's name"):
        export(workspace, Wanted(run="main", name="../escape"))
    assert before == {name: (folder / name).read_bytes() for name in names(folder)}
    assert names(workspace.root / "models") == [made.name]
    assert names(tmp_path / "mine") == ["thesis.txt"]


def test_an_export_elsewhere_is_in_the_archive(workspace: Workspace, tmp_path: Path) -> None:
    saved_run(workspace)
    folder, made = export(workspace, Wanted(run="main", out=tmp_path / "out", dtype="bfloat16"))
    assert made.name == "main-000007-bf16"
    assert names(folder) == sorted(FILES - {"archive.json"})
    assert names(workspace.root / "models/main-000007-bf16") == ["archive.json"]
    assert weights_folder(workspace, made) == tmp_path / "out"
    relabel(workspace, made.name, "good")
    assert "**Label:** good" in (folder / "README.md").read_text("utf-8")
    (tmp_path / "out").rename(tmp_path / "moved")
    (document,) = run_json("trainer", "models", cwd=workspace.root)
    assert (document["present"], document["label"]) == (False, "good")
    assert relabel(workspace, made.name, "collapsed").label == "collapsed"


def test_commands(workspace: Workspace) -> None:
    assert "no model yet" in run("trainer", "models", cwd=workspace.root).stderr
    saved_run(workspace, step=5, phrasing=1.0)
    saved_run(workspace, step=9)
    told_run(workspace, step=5)
    done = run("trainer", "export", "--checkpoint", "best", "--json", cwd=workspace.root)
    made = json.loads(done.stdout)
    assert (made["name"], made["step"], made["layout"], made["label"]) == ("main-000005", 5, "qwen3", None)
    assert "unlabelled" in done.stderr
    assert "trainer models label main-000005" in done.stderr
    refused = run("trainer", "models", "label", "main-000005", "fine", cwd=workspace.root, code=2)
    assert "good, collapsed, 'not-good: REASON'" in refused.stderr
    assert "it has: main-000005" in run("trainer", "models", "show", "other", cwd=workspace.root, code=2).stderr
    run("trainer", "models", "label", "main-000005", "not-good: makes up dates", cwd=workspace.root)
    (document,) = run_json("trainer", "models", cwd=workspace.root)
    assert document["label"] == "not-good: makes up dates"
    assert (document["pass_rate"], document["low"], document["high"]) == (0.245, 0.191, 0.309)
    assert document == run_json("trainer", "models", "show", "main-000005", cwd=workspace.root)
    listing = run("trainer", "models", cwd=workspace.root).stdout
    assert "not-good: makes up dates" in listing
    assert "24.5 % (19.1–30.9)" in listing
    shown = run("trainer", "models", "show", "main-000005", cwd=workspace.root).stdout
    assert "config.kv_heads" in shown
    assert "train.epochs" in shown


def test_a_damaged_entry_hides_no_other(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    saved_run(workspace)
    for name in ("one", "two"):
        export(workspace, Wanted(run="main", name=name))
    (entry_folder(workspace, "one") / "archive.json").write_text('{"v": 1, "name"')
    assert [found.name for found in entries(workspace)] == ["two"]
    assert "passed over one: archive.json cannot be read" in capsys.readouterr().err
    with pytest.raises(Failure, match="cannot be read"):
        entry(workspace, "one")


def test_a_full_disk_leaves_nothing(workspace: Workspace) -> None:
    """RLIMIT_FSIZE lets small files through and refuses the weights: what a quota does."""
    saved_run(workspace, LLAMA.model_copy(update={"width": 128, "vocabulary": 2000}))

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, resource.RLIM_INFINITY))

    done = start(workspace, "export", preexec_fn=limited)
    assert done.wait(120) == 1
    assert done.stderr is not None
    told = done.stderr.read()
    assert "nothing of the export is left" in told
    assert "Traceback" not in told
    assert names(workspace.root / "models") == []


def test_too_little_room_is_seen_before(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_run(workspace)
    monkeypatch.setattr(trainer.export.hf, "SPARE", 1 << 60)
    with pytest.raises(Failure, match="not enough room: the export takes"):
        export(workspace, Wanted(run="main"))
    assert names(workspace.root / "models") == []


def test_killed_it_leaves_nothing_that_counts(workspace: Workspace) -> None:
    """Killed with everything written and not yet in its place: no model, and the next export sweeps up and is whole."""
    saved_run(workspace)
    waiting = (
        "import trainer.export.run as run, time; run.card = lambda entry: print('here', flush=True) or time.sleep(600)"
    )
    process = start(workspace, "export", prelude=waiting)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = names(workspace.root / "models")
    assert left.startswith(".main-000007-")
    assert run_json("trainer", "models", cwd=workspace.root) == []
    export(workspace, Wanted(run="main"))
    assert names(workspace.root / "models") == ["main-000007"]
    assert set(names(workspace.root / "models/main-000007")) == FILES


def test_interrupted_it_leaves_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_run(workspace)

    def interrupted(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer.export.run, "card", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(workspace, Wanted(run="main"))
    assert names(workspace.root / "models") == []


def start(
    workspace: Workspace, *command: str, prelude: str = "", preexec_fn: Callable[[], None] | None = None
) -> subprocess.Popen[str]:
    code = f"{prelude}\nfrom {MODULES['trainer']} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *command],
        cwd=workspace.root,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec_fn,
    )
