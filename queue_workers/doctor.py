"""`factory doctor`: checks all that a long run stands on, with the code that the run itself uses.

Guarantees: nothing is changed: probes are removed, and a Redis that was started only for the look is stopped again. A
check that fails itself is a row that says so, and hides no other; one that hangs is given up after 30 s. No secret is
told. Cost: all checks at once, as long as the slowest: under a second as a rule; a model is never loaded.

The machine's own checks are in `doctor_machine.py`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from foundation.errors import FactoryError, Failure, UsageError, from_os_error

if TYPE_CHECKING:
    from foundation.workspace import Workspace

State = Literal["ok", "warning", "problem"]
GIVE_UP = 30.0  # seconds
CLOCK = 5.0  # seconds between two machines' clocks that leases bear easily
STEP = 5.0  # seconds back in the event log that are a step of the clock, and no two processes writing at once
ANSWER = 10.0  # seconds for one tiny request to the teacher
COLOURS = ("red", "green")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was looked at; `mend` where it is not well."""

    check: str
    state: State
    found: str
    mend: str = ""


Check = Callable[["Workspace"], Sequence[Row]]


def examine(workspace: Workspace) -> list[Row]:
    """Every row, in a fixed order."""
    from queue_workers import doctor_machine as machine

    checks: dict[str, Check] = {
        "workspace": _workspace,
        "disk": _disk,
        "Redis": _redis,
        "clock": machine.clock,
        "teacher": _teacher,
        "GPU": machine.gpu,
        "versions": machine.versions,
        "limits": machine.limits,
        "sleep": machine.sleep,
        "session": machine.session,
        "plan": _plan,
    }
    return run_checks(workspace, checks)


def run_checks(workspace: Workspace, checks: dict[str, Check], give_up: float = GIVE_UP) -> list[Row]:
    """The rows of all checks, which run at once, in the order of `checks`."""
    found: dict[str, Sequence[Row]] = {}

    def run(name: str, check: Check) -> None:
        found[name] = _isolated(name, check, workspace)

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in checks.items()]
    until = time.monotonic() + give_up
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    silent = f"this check did not end in {give_up:g} s"
    mend = "see whether the disk, the network or a driver hangs (`dmesg`)"
    return [row for name in checks for row in found.get(name, (Row(name, "problem", silent, mend),))]


def _isolated(name: str, check: Check, workspace: Workspace) -> Sequence[Row]:
    try:
        return check(workspace)
    except (Failure, UsageError) as error:
        return (_refused(name, error),)
    except OSError as error:
        return (_refused(name, from_os_error(error)),)
    except Exception as error:
        found = f"this check failed itself: {type(error).__name__}: {error}"
        return (Row(name, "problem", found, "run `factory --debug doctor`, and report what it prints"),)


def _refused(name: str, error: FactoryError) -> Row:
    return Row(name, "problem", f"{error.what}{f' ({error.where})' if error.where else ''}", error.mend)


def _workspace(workspace: Workspace) -> Sequence[Row]:
    """The layout's version was checked when it was found, or nothing would have begun."""
    workspace.check_store()
    for folder in (workspace.run, workspace.logs, workspace.cache):
        if not os.access(folder, os.W_OK):
            return (Row("workspace", "problem", f"{folder} cannot be written", "check its owner and mode"),)
    socket = workspace.socket("redis.sock")
    found = f"{workspace.root}: version {workspace.settings.version}, writable, hard links and fsync work"
    return (Row("workspace", "ok", f"{found}; socket {socket}"),)


def _disk(workspace: Workspace) -> Sequence[Row]:
    from queue_workers.forecast import forecast, size

    free = shutil.disk_usage(workspace.root).free
    least = workspace.settings.work.min_free * 1_000_000
    if free < least:
        found = f"{size(free)} free, and work.min_free asks for {size(least)}: no unit is begun"
        return (Row("disk", "problem", found, "free some space (`factory gc`), or lower work.min_free"),)
    ahead = forecast(workspace)
    if ahead.warning:
        return (
            Row("disk", "warning", ahead.warning, "`factory gc`, a larger disk, or a smaller plan (`factory cancel`)"),
        )
    needs = (
        f"what is planned needs {size(ahead.needed)} more" if ahead.known else "nobody knows yet what the plan needs"
    )
    a_round = f", each further round {size(ahead.round)}" if ahead.round else ""
    return (Row("disk", "ok", f"{size(free)} free; {needs}{a_round}"),)


def _redis(workspace: Workspace) -> Sequence[Row]:
    from queue_workers.redis_client import describe
    from queue_workers.redis_server import redis_connection

    with redis_connection(workspace):
        state = describe(workspace)
    whose = "the workspace's own" if state.own else "elsewhere"
    found = f"{state.version} at {state.address}, {whose}; answers in {state.round_trip * 1000:.1f} ms"
    rows = [Row("Redis", "ok", f"{found}; {state.policy}, append-only file {'on' if state.append_only else 'off'}")]
    if not state.append_only:
        mend = (
            "CONFIG SET appendonly yes; without it a restart loses the queue, and `factory reconcile` has to refill it"
        )
        rows = [Row("Redis", "warning", f"{found}; it keeps nothing over a restart", mend)]
    if not state.own:
        rows.append(_ahead(state.ahead))
    return rows


def _ahead(seconds: float) -> Row:
    told = f"the clock of Redis is {abs(seconds):.3f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    if abs(seconds) < CLOCK:
        return Row("Redis clock", "ok", told)
    return Row("Redis clock", "warning", told, "synchronise both by NTP: leases are counted by clocks")


def _teacher(workspace: Workspace) -> Sequence[Row]:
    from foundation.devices import device_holder, device_name
    from foundation.engine import has_vllm
    from foundation.profiles import model_here, resolved_model
    from generator.teachers.make import settled_backend, settled_profile

    settings = workspace.settings.teacher
    backend = settled_backend(workspace)  # a Failure where auto chose another one before
    why = "teacher.backend in factory.toml"
    if settings.backend == "auto":
        why = "auto, and a GPU is here" if backend == "vllm" else "auto, and no GPU is found here"
    if backend == "rules":
        found = f"rules ({why}): embedded, makes questions by rule; not a language model"
        return (Row("teacher", "ok", found),)
    if backend == "openai":
        return _server(workspace, why)
    if not has_vllm():
        mend = "pip install 'qpt-factory[vllm]', or set teacher.backend to rules or openai"
        return (Row("teacher", "problem", f"vllm ({why}) is not installed", mend),)
    profile, model = settled_profile(workspace), resolved_model(settings)  # a Failure, as above
    folder = model_here(model, workspace.root)
    if folder.startswith("/") and not os.path.isdir(folder):
        return (Row("teacher", "problem", f"there is no such model folder: {model}", "mend teacher.model"),)
    holder = device_holder()
    held = f"{device_name()} is held by {holder}" if holder else f"{device_name()} is free"
    return (Row("teacher", "ok", f"vllm ({why}) with {model}, profile {profile.name}; {held}"),)


def _server(workspace: Workspace, why: str) -> Sequence[Row]:
    """One tiny question to a server, through the client of the run time."""
    import asyncio
    from dataclasses import replace

    from foundation.chat_client import ChatClient
    from foundation.records import ChatReply, ChatRequest, Message, Sampling
    from generator.teachers.make import teacher_from_settings
    from generator.teachers.openai import OpenAITeacher

    schema = {"type": "object", "properties": {"colour": {"type": "string", "enum": list(COLOURS)}}}
    request = ChatRequest(
        id="doctor",
        messages=(Message(role="user", content="What colour is fresh grass? Tell it in a long poem."),),
        schema_=schema | {"required": ["colour"], "additionalProperties": False},
        sampling=Sampling(temperature=0.0, max_tokens=64),
        seed=1,
    )

    async def ask(client: ChatClient) -> ChatReply:
        (reply,) = [reply async for reply in client.complete([request])]
        return reply

    began = time.monotonic()
    with teacher_from_settings(workspace) as ready:
        teacher = ready.teacher
        assert isinstance(teacher, OpenAITeacher)
        reply = asyncio.run(ask(replace(teacher.client, attempts=1, timeout=ANSWER)))
    what = f"openai ({why}): {workspace.settings.teacher.model} at {workspace.settings.teacher.base_url}"
    if reply.finish == "error":
        slow = "Timeout" in reply.detail
        mend = "it may be busy: look at its log" if slow else "read its log; mend [teacher] in factory.toml"
        told = f"did not answer in {ANSWER:g} s" if slow else f"refused a tiny request: {reply.detail}"
        return (Row("teacher", "warning" if slow else "problem", f"{what} {told}", mend),)
    if not _obeys(reply.text):
        mend = "take a server with structured output (response_format json_schema): vLLM, llama.cpp, SGLang have it"
        return (Row("teacher", "problem", f"{what} does not obey a JSON schema: {reply.text[:80]!r}", mend),)
    return (Row("teacher", "ok", f"{what} answers in {time.monotonic() - began:.1f} s, and obeys a JSON schema"),)


def _obeys(text: str) -> bool:
    import orjson

    with contextlib.suppress(orjson.JSONDecodeError):
        row = orjson.loads(text)
        return isinstance(row, dict) and row.keys() == {"colour"} and row["colour"] in COLOURS
    return False


def _plan(workspace: Workspace) -> Sequence[Row]:
    from queue_workers.controls import load_controls
    from queue_workers.glance import glance
    from queue_workers.memory import MemoryQueue
    from queue_workers.plan import load_plan
    from queue_workers.redis_server import redis_connection
    from queue_workers.refill import Refill

    Refill(workspace, MemoryQueue())  # raises what is wrong with the [plan] table
    plan, controls = load_plan(workspace.store), load_controls(workspace.store)
    rows = [Row("plan", "ok", f"{plan.size:,} units planned; every name in [plan] is known")]
    if controls.paused or controls.paused_types:
        what = "everything" if controls.paused else ", ".join(controls.paused_types)
        rows.append(
            Row("plan", "warning", f"paused{_since(workspace)}: {what}", "`factory resume`, if that is long enough")
        )
    failed = 0
    with contextlib.suppress(Failure, UsageError, OSError), redis_connection(workspace):  # the row of Redis says why
        failed = sum(glance(workspace).failed.values())
    if failed:
        mend = "`factory failures` tells why; mended, `factory failures --retry`"
        rows.append(Row("plan", "warning", f"{failed:,} units were set aside after repeated failures", mend))
    return rows


def _since(workspace: Workspace) -> str:
    """When the controls were last changed, which is when the pause was said, or later."""
    from queue_workers.controls import CONTROLS
    from queue_workers.view import moment

    with contextlib.suppress(OSError):
        return f" since {moment((workspace.root / CONTROLS).stat().st_mtime)}"
    return ""
