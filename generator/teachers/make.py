"""From settings to a teacher that is ready, and away again.

Guarantees: when the context ends, a server it started is gone with all its children, and its device is free. `auto` says what
it chose and why, and stays with it: what it chose first is in `plan/teacher.json`, so that no month's records change their
teacher because a driver is gone, and likewise the profile and so the model that it took for the card (`plan/profile.json`);
another finding is a `Failure`, which may pass. A setting that cannot work is a `UsageError`; a server that does not answer is `Unavailable`, and a device
that another process holds a `Failure` that names it, before any unit is leased.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from foundation.console import say
from foundation.engine_health import Look
from foundation.errors import Failure, Unavailable, UsageError
from foundation.processes import gpu_memory_used
from foundation.records import ChatRequest, Sampling, messages_of

if TYPE_CHECKING:
    from foundation.chat_client import ChatClient
    from foundation.devices import DeviceHold
    from foundation.profiles import Profile
    from foundation.store import Store
    from foundation.tables import TeacherSettings
    from foundation.workspace import Workspace
    from generator.teachers.base import Teacher

# Qwen3 thinks before it answers unless told not to; structured output wants the answer alone.
NO_THINKING = (("chat_template_kwargs", {"enable_thinking": False}),)
CHOSEN, CHOSEN_PROFILE = "plan/teacher.json", "plan/profile.json"
FOUND = {"vllm": "a GPU", "rules": "no GPU"}

REACH_EVERY = 10.0  # seconds between two questions whether somebody else's server is there
REACH_PATIENCE = 3.0
NAMED = 5  # models that a message lists


def _well() -> Look:
    return Look("well")


@dataclass(frozen=True)
class ReadyTeacher:
    """A teacher that can be asked, the device that it holds, if it does, and how it is.

    `look` is cheap, blocks 4 s at most, and is meant to be called every few seconds. `dead`: a managed server ended, or
    another one cannot be reached; `hung`: a managed server does nothing for work.hung_after seconds (see `engine_health`).
    `costs`: a reply of it is worth keeping until its unit is committed.
    """

    teacher: Teacher
    device: DeviceHold | None = None
    look: Callable[[], Look] = _well
    costs: bool = True


@contextlib.contextmanager
def teacher_from_settings(
    workspace: Workspace, *, purpose: str = "factory run", settle: bool = True
) -> Iterator[ReadyTeacher]:
    """The workspace's teacher, ready to be asked; `purpose` is the command that others are told holds the device.

    What `auto` chose is put into the store once it is ready, but not without `settle`: for a look.
    """
    settings, backend = workspace.settings.teacher, settled_backend(workspace)
    profile = settled_profile(workspace) if backend == "vllm" else None
    with _ready(workspace, backend, purpose) as teacher:
        if settle and settings.backend == "auto":
            _settle(workspace.store, backend)
        if settle and profile and _by_card(settings):
            workspace.store.put_once(CHOSEN_PROFILE, json.dumps({"profile": profile.name}).encode())
            _compare_profile(workspace.store, profile)
        yield teacher


@contextlib.contextmanager
def _ready(workspace: Workspace, backend: str, purpose: str) -> Iterator[ReadyTeacher]:
    settings = workspace.settings.teacher
    if backend == "rules":
        if settings.backend == "auto":
            say("teacher: rules (no GPU found: embedded rules write the questions, not a language model)")
        from generator.teachers.rules import RulesTeacher

        yield ReadyTeacher(RulesTeacher(), costs=False)
    elif backend == "openai":
        yield _openai(settings)
    else:
        with _vllm(workspace, purpose) as teacher:
            yield teacher


def chosen_backend(settings: TeacherSettings) -> str:
    """What `teacher.backend` stands for on this machine."""
    if settings.backend != "auto":
        return settings.backend
    return "vllm" if gpu_memory_used() else "rules"


def unable(workspace: Workspace, prompt_types: Iterable[str]) -> list[str]:
    """Those of some prompt types (ids) that the workspace's teacher declines by name: for `rules`, what it has no rules for."""
    if chosen_backend(workspace.settings.teacher) != "rules":
        return []
    from generator.teachers.rules.teacher import MAKERS

    return [id_ for id_ in prompt_types if id_ not in MAKERS]


def settled_backend(workspace: Workspace) -> str:
    """The same; a `Failure` where `auto` chose another one for this workspace before. Changes nothing."""
    settings = workspace.settings.teacher
    backend = chosen_backend(settings)
    if settings.backend == "auto":
        _compare(workspace.store, backend)
    return backend


def settled_profile(workspace: Workspace) -> Profile:
    """The profile of a managed server; a `Failure` where `auto` took another one, and so another model, for this workspace
    before. Changes nothing."""
    from foundation.profiles import choose

    settings = workspace.settings.teacher
    profile = choose(settings)
    if _by_card(settings):
        _compare_profile(workspace.store, profile)
    return profile


def _by_card(settings: TeacherSettings) -> bool:
    """Whether the card decides which model writes."""
    return settings.profile == "auto" and not settings.model


def _compare_profile(store: Store, profile: Profile) -> None:
    from foundation.profiles import PROFILES

    before = PROFILES.get(_chosen_before(store, CHOSEN_PROFILE, "profile", PROFILES) or "", profile)
    if before is not profile:
        raise Failure(
            f"teacher.profile is auto, which chose {before.name} ({before.model}) for this workspace; for this machine it "
            f"would choose {profile.name} ({profile.model}): its records would have two teachers",
            where=CHOSEN_PROFILE,
            mend=f'set teacher.profile to "{before.name}" or "{profile.name}", or teacher.model, in factory.toml',
        )


def _chosen_before(store: Store, name: str, key: str, known: Container[str]) -> str | None:
    """What `auto` chose first for `key`, one of `known`; None if it chose nothing yet."""
    try:
        before = json.loads(store.get(name))[key]
        if before in known:
            return str(before)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        pass
    raise Failure(
        f"what teacher.{key} = auto chose before cannot be read",
        where=name,
        mend=f"set teacher.{key} in factory.toml, or delete that file: auto chooses anew then",
    )


def _settle(store: Store, backend: str) -> None:
    """Keep what `auto` chose first. Raises `Failure` if another process chose another meanwhile."""
    store.put_once(CHOSEN, json.dumps({"backend": backend}).encode())
    _compare(store, backend)


def _compare(store: Store, backend: str) -> None:
    before = _chosen_before(store, CHOSEN, "backend", FOUND)
    if before and before != backend:
        first = "mend the driver (`nvidia-smi`), or " if before == "vllm" else ""
        raise Failure(
            f"teacher.backend is auto, which found {FOUND[before]} and chose {before} for this workspace; now it finds "
            f"{FOUND[backend]} and would choose {backend}: its records would have two teachers",
            where=CHOSEN,
            mend=f"{first}set teacher.backend to {before} or {backend} in factory.toml",
        )


def _openai(settings: TeacherSettings) -> ReadyTeacher:
    from foundation.chat_client import ChatClient
    from generator.teachers.openai import OpenAITeacher

    if not settings.base_url.startswith(("http://", "https://")):
        raise UsageError(
            "teacher.backend is openai, but teacher.base_url is not a URL",
            where="factory.toml",
            mend='base_url = "http://127.0.0.1:8000/v1"',
        )
    if not settings.model:
        raise UsageError(
            "teacher.backend is openai, but teacher.model is empty",
            where="factory.toml",
            mend='model = "NAME", one that the server\'s /v1/models names',
        )
    client = ChatClient(
        base_url=settings.base_url.rstrip("/"),
        model=settings.model,
        api_key=settings.api_key.get_secret_value(),
        concurrency=settings.concurrency,
        timeout=settings.timeout,
    )
    _check_reachable(client)
    teacher = OpenAITeacher(client, f"openai:{settings.model}@{settings.revision or 'unnamed'}")
    return ReadyTeacher(teacher, look=_Reach(client).look)


@contextlib.contextmanager
def _vllm(workspace: Workspace, purpose: str) -> Iterator[ReadyTeacher]:
    from foundation.chat_client import ChatClient
    from foundation.engine import EngineConfig, engine
    from foundation.profiles import choose, context_of, model_here, provenance, resolved_model, server_arguments
    from generator.teachers.openai import OpenAITeacher

    settings = workspace.settings.teacher
    profile, model = choose(settings), model_here(resolved_model(settings), workspace.root)
    config = EngineConfig(
        model=model,
        purpose=f"{purpose} in {workspace.root}",
        revision=settings.revision,
        context=context_of(profile, settings),
        start_timeout=settings.start_timeout,
        arguments=server_arguments(profile, settings),
        profile=profile,
    )
    say(f"teacher: starting vLLM with {model} (profile {profile.name}); its log is logs/vllm.log")
    with engine(config, workspace.logs / "vllm.log") as server:
        client = ChatClient(
            base_url=server.base_url,
            model=server.model,
            api_key=server.api_key,
            concurrency=settings.concurrency,
            timeout=settings.timeout,
            extra=NO_THINKING,
        )
        say("teacher: vLLM is ready")
        teacher = OpenAITeacher(client, provenance(profile, settings))
        hung_after = workspace.settings.work.hung_after
        yield ReadyTeacher(
            teacher, server.device, lambda: replace(server.look(hung_after), limit=client.throttle.limit)
        )


def _check_reachable(client: ChatClient) -> None:
    """Raises `Unavailable` if the server does not answer, `Failure` if it refuses the key or names models but not this one."""
    status, names = asyncio.run(client.models(10.0))
    if status in (401, 403):
        raise Failure("the teacher refuses the key", where=client.address, mend="set FACTORY_TEACHER__API_KEY")
    # `*` is a proxy's word for any model; a name without a tag is the tag `latest` to those that have tags.
    mine = (client.model, f"{client.model}:latest")
    if status != 200 or not names or any("*" in name or name in mine for name in names):
        return
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    told = f"it names {', '.join(map(repr, names[:NAMED]))}{more}"
    if asyncio.run(_takes(client)):
        say(f"teacher: the server answers for the model {client.model!r}, though {told}")
        return
    raise Failure(
        f"the server has no model {client.model!r}; {told}",
        where=f"{client.address}/models",
        mend=f"set teacher.model in factory.toml to one of them: model = {json.dumps(names[0])}",
    )


async def _takes(client: ChatClient) -> bool:
    """Whether the server answers for the model all the same: servers list other names than those they take, or not all."""
    asked = ChatRequest(id="model", messages=messages_of([("user", "Hello")]), sampling=Sampling(max_tokens=1), seed=1)
    try:
        return [reply.finish async for reply in client.complete([asked])] not in (["error"], ["declined"])
    except Unavailable:
        raise
    except Failure:
        return False


class _Reach:
    """Whether somebody else's server is there, asked now and then only; and what the client learnt of it."""

    def __init__(self, client: ChatClient) -> None:
        self.client, self.asked, self.last = client, time.monotonic(), Look("well")

    def look(self) -> Look:
        if time.monotonic() - self.asked >= REACH_EVERY:
            try:
                asyncio.run(self.client.status(REACH_PATIENCE))
                self.last = Look("well")
            except Unavailable as error:
                self.last = Look("dead", str(error))
            self.asked = time.monotonic()
        queries, hits = self.client.throttle.cache
        return replace(self.last, limit=self.client.throttle.limit, queries=queries, hits=hits)
