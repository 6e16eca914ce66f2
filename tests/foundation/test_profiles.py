"""Profiles of the managed server: that they fit their cards, which is chosen, and what the settings make of them."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from foundation import profiles
from foundation.engine import has_vllm
from foundation.errors import UsageError
from foundation.profiles import (
    GIB,
    NONE,
    PROFILES,
    SEQUENCE,
    Profile,
    choose,
    context_of,
    for_card,
    model_here,
    provenance,
    resolved_model,
    server_arguments,
    smaller,
    value_of,
)
from foundation.settings import load, template
from foundation.tables import TeacherSettings

MIB = 2**20
each = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)

# What the models' own config.json says: parameters, of them in embeddings and output head (never quantised), layers, KV heads.
MODELS = {
    "Qwen/Qwen3-0.6B": (596_049_920, 155_582_464, 28, 8),
    "Qwen/Qwen3-4B-Instruct-2507": (4_022_468_096, 388_956_160, 36, 8),
    "Qwen/Qwen3-8B-FP8": (8_190_735_360, 2 * 622_329_856, 36, 8),
    "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8": (30_532_122_624, 2 * 311_164_928, 48, 4),
}


@each
def test_weights_and_a_full_batch_fit_the_smallest_card_of_the_size(profile: Profile) -> None:
    parameters, unquantised, layers, heads = MODELS[profile.model]
    width = 1 if profile.quantization == "fp8" else 2
    weights = (parameters - unquantised) * width + unquantised * 2
    assert profile.weights == pytest.approx(weights, rel=0.02)
    assert profile.kv == 2 * layers * heads * 128 * 2
    needed = weights + profile.overhead + profile.kv * SEQUENCE * profile.concurrency
    assert needed <= profile.share * profile.memory_gb * GIB, f"{needed / GIB:.1f} GiB"
    assert weights + profile.overhead + profile.kv * profile.context <= profile.share * profile.memory_gb * GIB
    assert profile.needed <= profile.room


@each
def test_what_a_profile_says_of_itself_is_what_the_server_is_told(profile: Profile) -> None:
    assert value_of("max-num-seqs", profile.arguments) == str(profile.concurrency)
    assert "--enable-prefix-caching" in profile.arguments
    assert "--quantization" not in profile.arguments, "then the arguments would suit no other model"
    assert profile.why
    assert profile.card
    if profile.name != "cpu":
        assert value_of("gpu-memory-utilization", profile.arguments) == str(profile.share)
        assert json.loads(value_of("speculative-config", profile.arguments))["method"] == "ngram"
        assert int(value_of("max-num-batched-tokens", profile.arguments)) >= profile.context


@pytest.mark.parametrize(
    ("mib", "name"),
    [
        (15_109, "16gb"),  # T4 with ECC
        (16_376, "16gb"),  # RTX 4080
        (20_475, "16gb"),  # RTX 4000 Ada
        (23_028, "24gb"),  # A10G
        (23_034, "24gb"),  # L4
        (24_564, "24gb"),  # RTX 4090
        (46_068, "24gb"),  # L40S
        (81_559, "80gb"),  # H100
        (81_920, "80gb"),  # A100
        (143_771, "80gb"),  # H200
    ],
)
def test_the_card_decides(mib: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "gpu_memory_total", lambda: mib * MIB)  # a card that is not here
    assert choose(TeacherSettings()).name == name


def test_without_a_gpu_it_is_the_cpu_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "gpu_memory_total", lambda: None)
    assert choose(TeacherSettings()) is PROFILES["cpu"]
    assert choose(TeacherSettings(profile="24gb")) is PROFILES["24gb"]  # by name, whatever is here
    assert choose(TeacherSettings(profile="none")) is NONE


def test_a_card_too_small_for_any_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"8\.0 GiB") as caught:
        for_card(8 * GIB)
    assert 'profile = "none"' in caught.value.mend


def test_the_next_smaller_profile() -> None:
    assert smaller(PROFILES["80gb"]) is PROFILES["24gb"]
    assert smaller(PROFILES["24gb"]) is PROFILES["16gb"]
    assert smaller(PROFILES["16gb"]) is None


class TestArguments:
    """The settings over the profile."""

    def _arguments(self, *args: str, profile: str = "24gb") -> list[str]:
        return server_arguments(PROFILES[profile], TeacherSettings(args=list(args)))

    def test_without_any_they_are_the_profile_s(self) -> None:
        assert self._arguments() == list(PROFILES["24gb"].arguments)

    @pytest.mark.parametrize(
        "own",
        [
            ("--max-num-seqs", "16"),
            ("--max-num-seqs=16",),
            ("--max_num_seqs", "16"),
        ],
    )
    def test_a_flag_of_the_user_s_takes_the_place_of_the_profile_s(self, own: tuple[str, ...]) -> None:
        found = self._arguments(*own, "--seed", "-1")
        assert [part for part in found if "max-num-seqs" in part.replace("_", "-")] == [own[0]]
        assert value_of("max-num-seqs", found) == "16"
        assert value_of("seed", found) == "-1"
        assert value_of("gpu-memory-utilization", found) == "0.92"

    def test_a_switch_can_be_turned_off(self) -> None:
        found = self._arguments("--no-enable-prefix-caching")
        assert "--no-enable-prefix-caching" in found
        assert "--enable-prefix-caching" not in found

    def test_a_flag_with_a_value_can_be_taken_out(self) -> None:
        found = self._arguments("--no-speculative-config", "--enforce-eager")
        assert not [part for part in found if "speculative" in part]
        assert "--enforce-eager" in found

    @pytest.mark.parametrize(
        "own",
        [
            ("-sc", '{"method":"suffix"}'),
            ("--speculative-config.method", "suffix"),
            ("--spec-method", "suffix"),
        ],
    )
    def test_every_way_to_speak_of_drafts_replaces_the_profile_s(self, own: tuple[str, ...]) -> None:
        assert not [part for part in self._arguments(*own) if "ngram" in part]
        assert set(own) <= set(self._arguments(*own))

    def test_none_has_the_user_s_alone(self) -> None:
        settings = TeacherSettings(profile="none", model="m", args=["--max-num-seqs", "4"])
        assert server_arguments(choose(settings), settings) == ["--max-num-seqs", "4"]


class TestModel:
    """Whose model, and what records keep of it."""

    def test_the_profile_s_where_none_is_named(self) -> None:
        settings = TeacherSettings(profile="24gb")
        assert resolved_model(settings) == PROFILES["24gb"].model
        assert provenance(choose(settings), settings) == "vllm:Qwen/Qwen3-8B-FP8@main+fp8"

    def test_one_of_the_user_s_own_has_the_profile_s_arguments_but_not_its_quantisation(self) -> None:
        settings = TeacherSettings(profile="24gb", model="Qwen/Qwen2.5-7B-Instruct", revision="r1")
        assert resolved_model(settings) == "Qwen/Qwen2.5-7B-Instruct"
        assert provenance(choose(settings), settings) == "vllm:Qwen/Qwen2.5-7B-Instruct@r1"
        assert server_arguments(choose(settings), settings) == list(PROFILES["24gb"].arguments)

    @pytest.mark.parametrize("flag", [["--quantization", "fp8"], ["-q", "fp8"], ["--quantization=fp8"]])
    def test_a_quantisation_that_was_asked_for_is_kept(self, flag: list[str]) -> None:
        settings = TeacherSettings(profile="16gb", args=flag)
        assert provenance(choose(settings), settings) == "vllm:Qwen/Qwen3-4B-Instruct-2507@main+fp8"

    def test_no_profile_and_no_model_is_wrong_use(self) -> None:
        with pytest.raises(UsageError, match=r"teacher\.model is empty"):
            resolved_model(TeacherSettings(profile="none"))

    def test_the_context_of_the_settings_wins(self) -> None:
        assert context_of(PROFILES["24gb"], TeacherSettings()) == 4096
        assert context_of(PROFILES["24gb"], TeacherSettings(context=2048)) == 2048


def test_a_new_factory_toml_takes_the_profile_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "factory.toml").write_text(template())
    settings = load(tmp_path / "factory.toml").teacher
    assert (settings.profile, settings.model, settings.context) == ("auto", "", 0)
    assert tomllib.loads(template())["teacher"]["profile"] == "auto"


def test_a_factory_toml_of_before_profiles_keeps_its_model(tmp_path: Path) -> None:
    (tmp_path / "factory.toml").write_text(
        '[teacher]\nmodel = "Qwen/Qwen3-4B"\ncontext = 4096\nargs = ["--max-num-seqs", "8"]\n'
    )
    settings = load(tmp_path / "factory.toml").teacher
    assert resolved_model(settings) == "Qwen/Qwen3-4B"
    assert value_of("max-num-seqs", server_arguments(choose(settings), settings)) == "8"


@pytest.mark.parametrize(("line", "says"), [('profile = "12gb"', "profile"), ("context = 100", "too short")])
def test_a_profile_or_context_that_cannot_be_is_told(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "factory.toml").write_text(f"[teacher]\n{line}\n")
    with pytest.raises(UsageError, match=says):
        load(tmp_path / "factory.toml")


# Parses each line of arguments with vLLM's own parser, in a process of its own: vLLM starts threads and sets variables.
PARSE = """
import dataclasses, json, sys
from typing import get_args
from vllm.config.speculative import SpeculativeConfig, SpeculativeMethod
from vllm.utils.argparse_utils import FlexibleArgumentParser
try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
except ImportError:  # where it was before 0.31
    from vllm.entrypoints.openai.cli_args import make_arg_parser, validate_parsed_serve_args
parser = make_arg_parser(FlexibleArgumentParser())
found = []
for arguments in json.load(sys.stdin):
    parsed = parser.parse_args(arguments)
    validate_parsed_serve_args(parsed)
    found.append({
        "max-num-seqs": parsed.max_num_seqs, "gpu-memory-utilization": parsed.gpu_memory_utilization,
        "max-num-batched-tokens": parsed.max_num_batched_tokens, "prefix": parsed.enable_prefix_caching,
        "chunked": parsed.enable_chunked_prefill, "drafts": parsed.speculative_config, "kv-cache-dtype": parsed.kv_cache_dtype,
    })
keys = [field.name for field in dataclasses.fields(SpeculativeConfig)]
print("FOUND " + json.dumps([found, keys, str(get_args(SpeculativeMethod))]))
"""


@pytest.mark.vllm
@pytest.mark.xdist_group("vllm")
@pytest.mark.skipif(not has_vllm(), reason="vLLM is not installed (make setup says why)")
@pytest.mark.timeout(300)
def test_vllm_s_own_parser_takes_every_flag() -> None:
    """And its drafts know every key: the parser takes any JSON there, and the engine would refuse it minutes later."""
    off = TeacherSettings(args=["--no-enable-prefix-caching", "--no-speculative-config", "--max_num_seqs", "5"])
    lines = [["--model", one.model, *one.arguments] for one in PROFILES.values()]
    lines.append(server_arguments(PROFILES["80gb"], off))
    done = subprocess.run(
        [sys.executable, "-c", PARSE], input=json.dumps(lines), capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (answer,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    (*found, last), keys, methods = json.loads(answer.removeprefix("FOUND "))
    for profile, parsed in zip(PROFILES.values(), found, strict=True):
        assert (parsed["max-num-seqs"], parsed["prefix"]) == (profile.concurrency, True)
        if profile.name != "cpu":
            assert parsed["gpu-memory-utilization"] == profile.share
            assert str(parsed["max-num-batched-tokens"]) == value_of("max-num-batched-tokens", profile.arguments)
            assert (parsed["chunked"], parsed["kv-cache-dtype"]) == (True, "auto")
            assert set(parsed["drafts"]) <= set(keys)
            assert f"'{parsed['drafts']['method']}'" in methods
    assert (last["prefix"], last["drafts"], last["max-num-seqs"]) == (False, None, 5)


def test_a_relative_model_folder_is_the_workspaces_wherever_one_stands(tmp_path: Path) -> None:
    assert model_here("../tiny", tmp_path / "w") == str(tmp_path / "tiny")
    assert model_here("/models/qwen", tmp_path) == "/models/qwen"
    assert model_here("Qwen/Qwen3-4B", tmp_path) == "Qwen/Qwen3-4B"
