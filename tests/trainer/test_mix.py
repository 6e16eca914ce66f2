"""The mix: which weight counts, what is refused, and what `trainer mix` says before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundation.errors import UsageError
from foundation.tables import MixSettings
from foundation.workspace import Workspace
from tests.support.commands import run, run_json
from trainer.epochs import Epochs
from trainer.mix import check_mix, epoch_mix
from trainer.mix_report import mix_report
from trainer.pack import PackedData, pack
from trainer.paths import TrainPaths
from trainer.presets import recipe
from trainer.shuffle import shuffle, shuffled_records
from trainer.tokenizer import record_texts, save_tokenizer, train_tokenizer

TYPES = ("qpt/describe", "qa/first-day", "qa/last-day", "raw/article")
FAMILIES = ("qpt", "qa", "qa", "raw")


@pytest.fixture
def packed(tmp_path: Path, build: Callable[..., Workspace]) -> Workspace:
    """A workspace with packs, raw text among them. 206 records: 62 of qpt, 60 of qa, 84 of contrastive."""
    workspace = build(tmp_path / "w")
    shuffle(workspace, 1)
    paths = TrainPaths.of(workspace)
    texts = record_texts(shuffled_records(paths, "train"))
    save_tokenizer(train_tokenizer(texts, workspace.settings.train.vocabulary), paths.tokenizer)
    pack(workspace, raw=True)
    return workspace


def with_mix(workspace: Workspace, mix: str) -> Workspace:
    """The workspace with this table `[mix]`."""
    file = workspace.root / "factory.toml"
    file.write_text(file.read_text().partition("[mix]")[0] + f"[mix]\n{mix}\n")
    return Workspace(workspace.root)


def test_a_prompt_types_weight_goes_before_its_familys_and_the_rest_is_taken_once() -> None:
    mix = MixSettings(weights={"qa": 0.5, "qa/last-day": 3})
    assert epoch_mix(mix, TYPES, FAMILIES, 0).weights == (1.0, 0.5, 3.0, 0.0)


def test_an_entry_of_the_curriculum_is_laid_over_the_table_and_the_last_one_stays() -> None:
    mix = MixSettings(weights={"qpt": 2, "qa": 3}, raw=0.1, curriculum=[{"raw": 0.5, "qa": 0}, {}, {"qpt": 7}])
    made = [epoch_mix(mix, TYPES, FAMILIES, epoch) for epoch in range(5)]
    assert [one.raw for one in made] == [0.5, 0.1, 0.1, 0.1, 0.1]
    assert [one.weights[:3] for one in made] == [(2, 0, 0), (2, 3, 3), (7, 3, 3), (7, 3, 3), (7, 3, 3)]


@pytest.mark.parametrize(
    ("mix", "says"),
    [
        ({"weights": {"qa/first-dya": 1}}, r"'qa/first-dya'(.|\n)*mix.weights(.|\n)*did you mean 'qa/first-day'"),
        ({"weights": {"poems": 1}}, r"'poems'(.|\n)*families here: qa, qpt"),
        ({"curriculum": [{}, {"qpr": 1}]}, r"'qpr'(.|\n)*epoch 2(.|\n)*'qpt'"),
        ({"weights": {"qa": -1}}, r"weight of 'qa' is -1"),
        ({"weights": {"qa": 1e9}}, "weight of 'qa' is 1e[+]09"),
        ({"weights": {"raw": 1}}, r"share(.|\n)*mix.raw = 0.2"),
        ({"curriculum": [{"raw/article": 1}]}, r"share(.|\n)*epoch 1"),
        ({"curriculum": [{"raw": 1.5}]}, "1.5 is none"),
        ({"curriculum": [{"raw": -0.5}]}, "-0.5 is none"),
    ],
)
def test_a_wrong_mix_is_refused_with_the_place_and_the_mend(mix: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_mix(MixSettings(**mix), TYPES, FAMILIES)


@pytest.mark.parametrize(
    "line", ["weights = {qa = inf}", "weights = {qa = nan}", "curriculum = [{raw = nan}]", "raw = nan"]
)
def test_what_is_no_finite_number_is_refused_where_it_stands(tmp_path: Path, line: str) -> None:
    (tmp_path / "factory.toml").write_text(f"version = 1\n[mix]\n{line}\n")
    with pytest.raises(UsageError, match=r"setting mix(.|\n)*finite number(.|\n)*factory.toml:3"):
        _ = Workspace(tmp_path).settings


@pytest.mark.parametrize("mix", [{"raw": 0.1}, {"curriculum": [{}, {"raw": 0.1}]}])
def test_raw_text_that_is_not_packed_is_refused(mix: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"none is packed(.|\n)*trainer pack --raw"):
        check_mix(MixSettings(**mix), TYPES[:3], FAMILIES[:3])


def test_the_report_counts_what_the_run_draws(packed: Workspace) -> None:
    data = PackedData.open(TrainPaths.of(packed).pack("train"))
    mix = MixSettings(weights={"qa": 0.5}, raw=0.25, curriculum=[{"contrastive": 2}, {"contrastive": 2}, {"raw": 0}])
    settings = recipe(packed.settings.train).model_copy(update={"epochs": 3.5, "batch": 3})

    report = mix_report(data, mix, settings)

    epochs = Epochs(data, mix, seed=settings.seed, epochs=3.5)
    assert (report.contexts, report.steps) == (epochs.contexts, -(-epochs.contexts // 3))
    assert [(one.first, one.last) for one in report.epochs] == [(1, 2), (3, 4)]
    for one in report.epochs:
        first, behind = epochs.bounds[one.first - 1 : one.first + 1]
        numbers = np.concatenate(epochs.take(first, behind - first))
        families = Counter(data.meta.families[kind] for kind in data.types[numbers])
        assert one.contexts == behind - first
        assert one.records == len(numbers)
        assert {part.name: part.taken for part in one.families if part.taken} == families
        assert one.tokens == sum(len(data.record(number)[0]) for number in numbers) == sum(p.tokens for p in one.types)
        assert one.supervised == sum(int(data.record(number)[1].sum()) for number in numbers)
        assert sum(part.share for part in one.types) == pytest.approx(1, abs=1e-3)
        assert {part.name: part.repeats for part in one.families}["qa"] == pytest.approx(0.5, abs=0.02)
    assert report.epochs[0].raw == pytest.approx(0.25, abs=0.02)
    assert report.epochs[1].raw == 0
    assert report.records_per_step == pytest.approx(3 * report.records_per_context, abs=0.05)


def warnings(workspace: Workspace, mix: MixSettings) -> str:
    data = PackedData.open(TrainPaths.of(workspace).pack("train"))
    return "\n".join(mix_report(data, mix, recipe(workspace.settings.train)).warnings)


def test_what_is_left_out_or_drowned_is_said(packed: Workspace) -> None:
    assert warnings(packed, MixSettings(raw=0.1)) == ""
    assert "raw documents are packed, and none is taken" in warnings(packed, MixSettings())
    assert "left out of every epoch: qpt/describe" in warnings(packed, MixSettings(weights={"qpt": 0}))
    later = warnings(packed, MixSettings(raw=0.1, curriculum=[{}, {"qa": 0}]))
    assert later == "epochs 2 to 4: without qa/first-day, which would soon be forgotten; keep a share of it"
    assert "below 20% it is soon forgotten" in warnings(packed, MixSettings(raw=0.01, weights={"contrastive": 20}))
    assert "each raw document is read" in warnings(packed, MixSettings(raw=0.9))


def test_the_command_shows_the_mix_of_the_settings(packed: Workspace) -> None:
    workspace = with_mix(packed, "weights = {qa = 0}\nraw = 0.2\ncurriculum = [{raw = 0.5}, {}]").root

    told = run_json("trainer", "mix", cwd=workspace)

    assert [(one["first"], one["last"]) for one in told["epochs"]] == [(1, 1), (2, 4)]
    assert [round(one["raw"], 1) for one in told["epochs"]] == [0.5, 0.2]
    assert told["left_out"] == ["qa/first-day"]
    shown = run("trainer", "mix", cwd=workspace)
    for word in (
        "epochs 2 to 4, by family",
        "contrastive",
        "raw/article",
        f"{told['contexts']:,}",
        "records a context",
    ):
        assert word in shown.stdout
    assert "left out of every epoch: qa/first-day" in shown.stderr


def test_the_command_names_a_wrong_name_and_the_near_one(packed: Workspace) -> None:
    told = run("trainer", "mix", cwd=with_mix(packed, "weights = {contrasting = 2}").root, code=2)
    assert "'contrasting'" in told.stderr
    assert "did you mean 'contrastive'?" in told.stderr
    assert told.stdout == ""


def test_before_the_packs_are_made_the_command_says_so(workspace: Workspace) -> None:
    assert "trainer pack" in run("trainer", "mix", cwd=workspace.root, code=2).stderr
