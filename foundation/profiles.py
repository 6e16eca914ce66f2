"""Profiles of the managed vLLM server: what a card of a size runs well, as data, and the settings laid over it.

Guarantees: `choose` names the profile of this machine, or says why there is none; the settings win over the profile, flag
by flag, so no flag is given twice; each profile's weights and caches fit its smallest card by the arithmetic of `Profile`,
which a test does again. Weights are quantised by the checkpoint, never by a flag, so the arguments suit any model of the
size. Cost: one question to NVML (20 ms the first time) where the profile is `auto`; vLLM is never imported.

Not known here: how fast a setting is on the user's own prompts; `factory teacher tune` measures that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError

if TYPE_CHECKING:
    from foundation.tables import TeacherSettings

GIB = 2**30
SEQUENCE = 768
"""Tokens a request holds in the KV cache on average, none of them shared: a prompt of the catalogue has 450 to 900, half of
it fixed text, an answer 30 to 600."""
SLACK = 0.97  # drivers keep a little back: cards of 16, 24 and 80 GB report 15.0, 22.5 and 79.6 GiB, some with ECC less
# vLLM's other names of flags that a profile may have, and its flags for parts of one.
ALIASES = {"q": "quantization", "sc": "speculative-config"} | dict.fromkeys(
    ("spec-method", "spec-model", "spec-tokens"), "speculative-config"
)


@dataclass(frozen=True)
class Profile:
    """One size of card. `memory_gb` is the least memory, in GiB, that a card of it reports; `share` of it is the server's.

    `concurrency` are sequences in one batch, `context` tokens of the longest prompt and answer. `weights` (bytes), `kv` (bytes a
    token) and `overhead` (bytes: CUDA's own, activations, graphs) are of `model`. `quantization` is how its weights
    are kept; empty: as they were trained. `arguments` go to the server.
    """

    name: str
    card: str
    memory_gb: float
    model: str
    quantization: str
    context: int
    concurrency: int
    arguments: tuple[str, ...]
    why: str
    share: float = 0.9
    weights: int = 0
    kv: int = 0
    overhead: int = 0

    @property
    def needed(self) -> int:
        """Bytes that weights, overhead and a full batch take; one sequence of the whole context must fit in any case."""
        return self.weights + self.overhead + self.kv * max(self.concurrency * SEQUENCE, self.context)

    @property
    def room(self) -> int:
        """Bytes that the server may use on the smallest card of this size."""
        return int(self.share * self.memory_gb * GIB)


def _kv(layers: int, heads: int, head: int = 128, width: int = 2) -> int:
    """Bytes of keys and values a token takes: both, in every layer, for every KV head."""
    return 2 * layers * heads * head * width


def _arguments(concurrency: int, share: float, batched: int) -> tuple[str, ...]:
    """What all cards have in common. Copy-heavy answers (rewrites, tables) are drafted from their own prompt."""
    drafts = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 3, "prompt_lookup_max": 6}
    return (
        *("--max-num-seqs", str(concurrency), "--gpu-memory-utilization", str(share)),
        *("--max-num-batched-tokens", str(batched), "--enable-chunked-prefill", "--enable-prefix-caching"),
        *("--kv-cache-dtype", "auto", "--speculative-config", json.dumps(drafts, separators=(",", ":"))),
    )


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="cpu",
            card="no GPU",
            memory_gb=4.0,
            model="Qwen/Qwen3-0.6B",
            quantization="",
            context=4096,
            concurrency=8,
            # The engine's own start adds what the CPU build needs (see foundation/engine.py).
            # Its cache keeps blocks of 128 tokens unless told otherwise, longer than what many prompts still share at the end.
            arguments=("--max-num-seqs", "8", "--enable-prefix-caching", "--block-size", "32"),
            why="the smallest Qwen3, to try the line with a real model: some hundred tokens a second, not a run of weeks",
            share=0.75,
            weights=1_192_000_000,
            kv=_kv(28, 8),
            overhead=GIB // 2,
        ),
        Profile(
            name="16gb",
            card="16 GB (RTX 4060 Ti, 4080, 5080, A4000, T4)",
            memory_gb=15.0,
            model="Qwen/Qwen3-4B-Instruct-2507",
            quantization="",
            context=4096,
            concurrency=40,
            arguments=_arguments(40, 0.9, 4096),
            why="4B is enough for grounded questions, and unquantised it asks nothing special of the card",
            weights=8_045_000_000,
            kv=_kv(36, 8),
            overhead=3 * GIB // 2,
        ),
        Profile(
            name="24gb",
            card="24 GB (L4, A10, RTX 3090, 4090) up to 48 GB",
            memory_gb=22.4,
            model="Qwen/Qwen3-8B-FP8",
            quantization="fp8",
            context=4096,
            concurrency=80,
            arguments=_arguments(80, 0.92, 8192),
            why=(
                "an L4 writes as fast as it reads weights: 9.4 GB a step here, 15.2 for Qwen2.5-7B in bf16, for as many "
                "sequences; FP8 is computed as such on Ada and newer, unpacked on Ampere"
            ),
            share=0.92,
            weights=9_440_000_000,
            kv=_kv(36, 8),
            overhead=2 * GIB,
        ),
        Profile(
            name="80gb",
            card="80 GB and above (A100, H100, H200, B200)",
            memory_gb=79.0,
            model="Qwen/Qwen3-30B-A3B-Instruct-2507-FP8",
            quantization="fp8",
            context=4096,
            concurrency=192,
            arguments=_arguments(192, 0.9, 16384),
            why=(
                "3.3B of 30.5B parameters work on a token: a quarter of the arithmetic of Qwen3-14B, and prompts outweigh answers "
                "here; FP8 leaves 38 GiB for the cache. 192 sequences are what three workers of 64 requests send"
            ),
            weights=31_200_000_000,
            kv=_kv(48, 4),
            overhead=4 * GIB,
        ),
    )
}
NONE = Profile(
    name="none",
    card="any",
    memory_gb=0.0,
    model="",
    quantization="",
    context=4096,
    concurrency=0,
    arguments=(),
    why="nothing but teacher.model and teacher.args",
)


def choose(settings: TeacherSettings) -> Profile:
    """The profile that the settings name; for `auto` that of this machine's first GPU, or of none.

    Raises `UsageError` for a card smaller than the smallest profile.
    """
    if settings.profile == "none":
        return NONE
    if settings.profile != "auto":
        return PROFILES[settings.profile]
    total = gpu_memory_total()
    return PROFILES["cpu"] if total is None else for_card(total)


def for_card(total: int) -> Profile:
    """The largest profile that a GPU with `total` bytes can run. Raises `UsageError` if it is too small for any."""
    fitting = [one for one in PROFILES.values() if one.name != "cpu" and one.memory_gb * SLACK <= total / GIB]
    if not fitting:
        raise UsageError(
            f"this GPU has {total / GIB:.1f} GiB, and the smallest profile asks for 16 GB",
            where="teacher.profile = auto",
            mend='profile = "none" and a model that fits, or backend = "rules" or "openai", under [teacher] in factory.toml',
        )
    return max(fitting, key=lambda one: one.memory_gb)


def smaller(profile: Profile) -> Profile | None:
    """The next smaller one for a GPU; None if there is none."""
    below = [one for one in PROFILES.values() if one.name != "cpu" and one.memory_gb < profile.memory_gb]
    return max(below, key=lambda one: one.memory_gb, default=None)


def resolved_model(settings: TeacherSettings) -> str:
    """`teacher.model`, or the profile's where it is empty. Raises `UsageError` where neither names one."""
    model = settings.model or choose(settings).model
    if not model:
        raise UsageError(
            "teacher.model is empty, and teacher.profile is none",
            where="[teacher] in factory.toml",
            mend="name a model: one on the hub, or a folder with the weights; or take profile auto",
        )
    return model


def model_here(model: str, root: Path) -> str:
    """A model's folder as the workspace at `root` names it, from wherever one stands; a name on the hub as it is."""
    if model.startswith(("./", "../", "~")):
        return os.path.normpath(root / os.path.expanduser(model))
    return model


def quantization_of(profile: Profile, settings: TeacherSettings) -> str:
    """How the weights are kept, as far as settings and profile tell: a flag of the user's, else that of the profile's model."""
    asked = value_of("quantization", settings.args)
    own = not settings.model or settings.model == profile.model
    return asked or (profile.quantization if own else "")


def provenance(profile: Profile, settings: TeacherSettings) -> str:
    """What records keep as their teacher's name: model and revision, and how its weights are kept if they are quantised."""
    model, quantization = settings.model or profile.model, quantization_of(profile, settings)
    return f"vllm:{model}@{settings.revision or 'main'}" + (f"+{quantization}" if quantization else "")


def context_of(profile: Profile, settings: TeacherSettings) -> int:
    """Tokens of the longest prompt and answer."""
    return settings.context or profile.context


def server_arguments(profile: Profile, settings: TeacherSettings) -> list[str]:
    """The profile's arguments with `teacher.args` in the place of its flags of the same name.

    `--no-FLAG` takes a flag of the profile out; where FLAG is a switch of vLLM's, `--no-FLAG` is passed on as well.
    """
    asked = _groups(settings.args)
    names = {_name(group[0]) for group in asked}
    kept = [group for group in _groups(profile.arguments) if _name(group[0]) not in names]
    with_values = {_name(group[0]) for group in _groups(profile.arguments) if len(group) > 1}
    drop = {f"no-{name}" for name in with_values}
    passed = [group for group in asked if _words(group[0]) not in drop]
    return [part for group in (*kept, *passed) for part in group]


def value_of(name: str, arguments: Sequence[str]) -> str:
    """The value of the last flag of that name; empty if it is not there, or has none."""
    for group in reversed(_groups(arguments)):
        if _name(group[0]) == name:
            _, equals, value = group[0].partition("=")
            return value if equals else " ".join(group[1:])
    return ""


def with_flag(arguments: Sequence[str], name: str, value: str | None) -> tuple[str, ...]:
    """`arguments` with one flag at this value, in the place of all its other spellings; None takes it out."""
    kept = [part for group in _groups(arguments) if _name(group[0]) != name for part in group]
    return (*kept, f"--{name}", value) if value is not None else tuple(kept)


def _groups(arguments: Sequence[str]) -> list[list[str]]:
    """Each flag with its values. A negative number is a value."""
    found: list[list[str]] = []
    for part in arguments:
        if not found or (part.startswith("-") and not part[1:2].isdigit()):
            found.append([])
        found[-1].append(part)
    return found


def _words(flag: str) -> str:
    """A flag without dashes before it or a value behind it, in vLLM's preferred spelling."""
    return flag.lstrip("-").partition("=")[0].partition(".")[0].replace("_", "-")


def _name(flag: str) -> str:
    """What two spellings of one flag have in common: `--no-enable-x`, `--enable_x` and `--enable-x=1` are one."""
    words = _words(flag).removeprefix("no-")
    return ALIASES.get(words, words)


def gpu_memory_total() -> int | None:
    """Bytes of memory of the first NVIDIA GPU that this process may use; None where there is none."""
    from foundation.processes import visible_gpus

    numbers = visible_gpus()
    if not numbers:
        return None
    import pynvml

    pynvml.nvmlInit()
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(numbers[0])).total)
    finally:
        pynvml.nvmlShutdown()
