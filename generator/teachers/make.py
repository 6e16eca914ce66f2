"""From settings to a teacher that is ready, and away again.

Guarantees: when the context ends, a server it started is gone with all its children. `auto` says what it chose and
why. A setting that cannot work is a `UsageError`; a server that does not answer is a `Failure` before any unit is leased.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from foundation.console import say
from foundation.errors import Failure, UsageError
from foundation.processes import gpu_memory_used

if TYPE_CHECKING:
    from foundation.chat_client import ChatClient
    from foundation.settings import TeacherSettings
    from foundation.workspace import Workspace
    from generator.teachers.base import Teacher

# Qwen3 thinks before it answers unless told not to; structured output wants the answer alone.
NO_THINKING = (("chat_template_kwargs", {"enable_thinking": False}),)


@contextlib.contextmanager
def teacher_from_settings(workspace: Workspace) -> Iterator[Teacher]:
    """The workspace's teacher, ready to be asked."""
    settings = workspace.settings.teacher
    backend = settings.backend
    if backend == "auto":
        backend = "vllm" if gpu_memory_used() else "rules"
        if backend == "rules":
            say("teacher: rules (no GPU found: embedded rules write the questions, not a language model)")
    if backend == "rules":
        from generator.teachers.rules import RulesTeacher

        yield RulesTeacher()
    elif backend == "openai":
        yield _openai(settings)
    else:
        with _vllm(workspace, settings) as teacher:
            yield teacher


def _openai(settings: TeacherSettings) -> Teacher:
    from foundation.chat_client import ChatClient
    from generator.teachers.openai import OpenAITeacher

    if not settings.base_url.startswith(("http://", "https://")):
        raise UsageError(
            "teacher.backend is openai, but teacher.base_url is not a URL",
            where="factory.toml",
            mend='base_url = "http://127.0.0.1:8000/v1"',
        )
    client = ChatClient(
        base_url=settings.base_url.rstrip("/"),
        model=settings.model,
        api_key=settings.api_key.get_secret_value(),
        concurrency=settings.concurrency,
        timeout=settings.timeout,
    )
    _check_reachable(client)
    return OpenAITeacher(client, f"openai:{settings.model}@{settings.revision or 'unnamed'}")


@contextlib.contextmanager
def _vllm(workspace: Workspace, settings: TeacherSettings) -> Iterator[Teacher]:
    from foundation.chat_client import ChatClient
    from foundation.engine import EngineConfig, engine
    from generator.teachers.openai import OpenAITeacher

    config = EngineConfig(
        model=settings.model,
        revision=settings.revision,
        context=settings.context,
        start_timeout=settings.start_timeout,
        arguments=settings.args,
    )
    say(f"teacher: starting vLLM with {settings.model}; its log is logs/vllm.log")
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
        yield OpenAITeacher(client, f"vllm:{settings.model}@{settings.revision or 'main'}")


def _check_reachable(client: ChatClient) -> None:
    """Ask the server for its models; an answer of any kind means it is there."""

    async def ask() -> None:
        import aiohttp

        headers = {"Authorization": f"Bearer {client.api_key}"} if client.api_key else {}
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
                session.get(f"{client.base_url}/models") as response,
            ):
                if response.status in (401, 403):
                    raise Failure(
                        "the teacher refuses the key", where=client.base_url, mend="set FACTORY_TEACHER__API_KEY"
                    )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Failure(
                f"the teacher cannot be reached: {error or type(error).__name__}",
                where=client.base_url,
                mend="start the server, or mend teacher.base_url in factory.toml",
            ) from error

    asyncio.run(ask())
