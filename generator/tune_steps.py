"""What `factory teacher tune` may change, and how it writes what it found.

Guarantees: only teacher.concurrency and teacher.args change; comments, order and everything else of factory.toml stay as they
are (but comments inside a list of args that is replaced); it is replaced whole or not at all, keeps its mode, and what stood there is kept beside it. Cost: reading one file.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from foundation.profiles import with_flag
from generator.tune import HIGHEST, Candidate, Dimension, Step

if TYPE_CHECKING:
    from foundation.profiles import Profile
    from foundation.prompt_type import PromptType
    from foundation.tables import TeacherSettings

BEFORE = ".before-tune"  # behind the name of what stood there
NGRAM = {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 3, "prompt_lookup_max": 6}
LEAST_BATCHED = 1024  # tokens of one step: fewer starve a prompt


def most_at_once(prompt_types: Iterable[PromptType]) -> int:
    """The calls that a worker can have in flight: it does one unit at a time, so more than the largest unit changes nothing.

    A type with `each` makes as many of an item as it has entries.
    """
    return min(HIGHEST, max(one.unit * _entries(one) for one in prompt_types))


def _entries(prompt_type: PromptType) -> int:
    return prompt_type.phases[-1].fields[prompt_type.each].items_max if prompt_type.each else 1


def dimensions(
    backend: str, settings: TeacherSettings, profile: Profile | None = None, most: int = HIGHEST
) -> list[Dimension]:
    """What to try for a backend, in order: first what needs no new start of the engine. Empty where there is nothing to tune.

    `most` is the concurrency above which nothing changes.
    """
    if backend == "rules":
        return []
    found = [Dimension("concurrency", _requests(2, most), _requests(0.5, most))]
    if profile is None:
        return found
    found.append(_sizes(profile, settings, "max-num-seqs", "sequences in a batch", 1))
    found.append(Dimension("speculative decoding", _drafts(profile, settings)))
    if _value(profile, settings, settings.args, "max-num-batched-tokens"):
        found.append(_sizes(profile, settings, "max-num-batched-tokens", "tokens in a step", LEAST_BATCHED))
    return found


def first_steps(base: Candidate, found: Sequence[Dimension]) -> list[str]:
    """What will be tried first in each direction; how it goes on, the trials decide."""
    steps = [step(base) for dimension in found for step in (dimension.up, dimension.down)]
    return [step.why for step in steps if step]


def _requests(factor: float, most: int) -> Step:
    def step(candidate: Candidate) -> Candidate | None:
        now = min(candidate.concurrency, most)  # all above is the same
        wanted = min(int(now * factor), most)
        if wanted < 1 or wanted == now:
            return None
        return Candidate(f"concurrency {wanted:,}", wanted, candidate.args)

    return step


def _sizes(profile: Profile, settings: TeacherSettings, flag: str, what: str, least: int) -> Dimension:
    def to(factor: float) -> Step:
        def step(candidate: Candidate) -> Candidate | None:
            value = _value(profile, settings, candidate.args, flag)
            wanted = int(int(value) * factor) if value.isdigit() else 0
            if wanted < least:
                return None
            return Candidate(f"--{flag} {wanted}", candidate.concurrency, with_flag(candidate.args, flag, str(wanted)))

        return step

    return Dimension(what, to(2), to(0.5))


def _drafts(profile: Profile, settings: TeacherSettings) -> Step:
    """On where it is off, off where it is on: once."""
    flag = "speculative-config"
    was_on = bool(_value(profile, settings, settings.args, flag))

    def step(candidate: Candidate) -> Candidate | None:
        if bool(_value(profile, settings, candidate.args, flag)) != was_on:
            return None
        if was_on:
            args = with_flag(candidate.args, flag, None)
            if _value(profile, settings, args, flag):  # the profile's own
                args = (*args, f"--no-{flag}")
            return Candidate("no speculative decoding", candidate.concurrency, args)
        drafts = json.dumps(NGRAM, separators=(",", ":"))
        return Candidate("n-gram speculation", candidate.concurrency, with_flag(candidate.args, flag, drafts))

    return step


def _value(profile: Profile, settings: TeacherSettings, args: Sequence[str], flag: str) -> str:
    """What the server would get for a flag; empty if nothing."""
    from foundation.profiles import server_arguments, value_of

    return value_of(flag, server_arguments(profile, settings.model_copy(update={"args": list(args)})))


def check_writable(path: Path) -> None:
    """Raises `UsageError` if `write` could not put anything beside `path`."""
    if not os.access(path.parent, os.W_OK):
        raise UsageError(
            "what is found best could not be written here", where=str(path), mend=f"chmod u+w {path.parent}"
        )


def write(path: Path, found: Candidate, settings: TeacherSettings) -> Path:
    """Put what was found into a factory.toml as it stands now. Returns where the text before is kept."""
    path = path.resolve()  # a link stays one
    before = path.read_bytes()
    after = edited(before.decode(), found, settings, str(path)).encode()
    mode = stat.S_IMODE(path.stat().st_mode)  # a key may stand in it
    kept = path.with_name(path.name + BEFORE)
    _replace(kept, before, mode)
    _replace(path, after, mode)
    return kept


def edited(text: str, found: Candidate, settings: TeacherSettings, where: str) -> str:
    """The text with teacher.concurrency and teacher.args changed, where they differ from `settings`."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        table = document.setdefault("teacher", tomlkit.table())
        if found.concurrency != settings.concurrency:
            table["concurrency"] = found.concurrency
        if list(found.args) != settings.args:
            table["args"] = list(found.args)
    except (TOMLKitError, TypeError, AttributeError) as error:
        raise UsageError(
            f"factory.toml cannot be edited: {error}", where=where, mend=f"write it yourself: {told(found)}"
        ) from error
    return tomlkit.dumps(document)


def told(found: Candidate) -> str:
    """The lines of [teacher] that say the same."""
    return f"concurrency = {found.concurrency}, args = {json.dumps(list(found.args), ensure_ascii=False)}"


def hidden_by(environment: Mapping[str, str], found: Candidate, settings: TeacherSettings) -> list[str]:
    """Variables that overrule what is written."""
    keys = [
        key
        for key, changed in (
            ("CONCURRENCY", found.concurrency != settings.concurrency),
            ("ARGS", list(found.args) != settings.args),
        )
        if changed
    ]
    names = ["FACTORY_TEACHER", *(f"FACTORY_TEACHER__{key}" for key in keys)] if keys else []
    return [name for name in names if name in {known.upper() for known in environment}]


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Put a file in place whole or not at all, on the disk before it has its name."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
