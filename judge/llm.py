"""The graders that are language models: `openai` asks a server that runs already, `vllm` starts one of its own.

Guarantees: one outcome an answer; a reply that was cut off is asked for once more with twice the room; a server that was
started is gone, with all its children, when `ready` ends, and holds its device until then. Cost: the engine's start (vllm), then the model's thinking.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from foundation.console import say
from foundation.errors import UsageError
from foundation.ids import seed_of, stable_id
from foundation.records import Answer, ChatReply, ChatRequest, Sampling
from judge.outcome import Grader, Outcome
from judge.parse import outcome
from judge.prompt import messages, prompt_text

if TYPE_CHECKING:
    from foundation.chat_client import ChatClient
    from foundation.tables import JudgeSettings
    from foundation.workspace import Workspace

# Thinking models are made to be sampled: greedy decoding sends them into loops.
TEMPERATURE, TOP_P = 0.6, 0.95
TIMEOUT = 600.0  # seconds for one verdict, thinking included
GROWTH = 2
REPLY_LIMIT = 32768  # tokens, the most that `Sampling` can ask for


class LlmGrader(abc.ABC):
    """One model behind an OpenAI-compatible URL. Subclasses say how it comes to be there."""

    backend = ""
    floors: Mapping[str, float] = MappingProxyType({})

    def __init__(self, settings: JudgeSettings) -> None:
        self.settings = settings
        self.client: ChatClient | None = None

    @property
    def name(self) -> str:
        return f"{self.backend}:{self.settings.model}"

    @property
    def about(self) -> str:
        return f"the language model {self.settings.model}"

    @cached_property
    def identity(self) -> str:
        return stable_id("llm", self.name, self.settings.max_tokens, str(TEMPERATURE), str(TOP_P), prompt_text())

    @abc.abstractmethod
    def ready(self) -> contextlib.AbstractContextManager[None]:
        """The model can be asked until the context ends."""

    async def grade(self, answers: Sequence[Answer]) -> AsyncIterator[tuple[int, Outcome]]:
        assert self.client is not None, "grade() outside ready()"
        room = self.settings.max_tokens
        cut: dict[int, int] = {}
        async for reply in self.client.complete([self._request(at, answer, room) for at, answer in enumerate(answers)]):
            more = self._more(reply)
            if more > room:
                cut[int(reply.id)] = more
            else:
                yield int(reply.id), outcome(reply)
        async for reply in self.client.complete([self._request(at, answers[at], more) for at, more in cut.items()]):
            yield int(reply.id), outcome(reply)

    def _request(self, at: int, answer: Answer, room: int) -> ChatRequest:
        return ChatRequest(
            id=str(at),
            messages=messages(answer),
            sampling=Sampling(temperature=TEMPERATURE, top_p=TOP_P, max_tokens=room),
            seed=seed_of(self.identity, answer.item.id, answer.text),
        )

    def _more(self, reply: ChatReply) -> int:
        """How much room a reply that was cut off gets the second time; 0 if it was not, or cannot have more."""
        if reply.finish != "length" or reply.detail not in ("", "length"):
            return 0
        return min(GROWTH * self.settings.max_tokens, self._longest - reply.usage.prompt_tokens)

    @property
    def _longest(self) -> int:
        """The longest prompt and reply together, in tokens, as far as it is known."""
        return REPLY_LIMIT

    def _connect(self, base_url: str, model: str, api_key: str) -> ChatClient:
        from foundation.chat_client import ChatClient

        return ChatClient(
            base_url=base_url.rstrip("/"),
            model=model,
            api_key=api_key,
            concurrency=self.settings.concurrency,
            timeout=TIMEOUT,
            table="judge",
        )


class OpenAIGrader(LlmGrader):
    """Any OpenAI-compatible server. Raises `UsageError` if its URL is none."""

    backend = "openai"

    def __init__(self, settings: JudgeSettings) -> None:
        super().__init__(settings)
        if not settings.base_url.startswith(("http://", "https://")):
            raise UsageError(
                "the judge's backend is openai, but judge.base_url is not a URL",
                where="factory.toml",
                mend='base_url = "http://127.0.0.1:8000/v1"',
            )

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        settings = self.settings
        self.client = self._connect(settings.base_url, settings.model, settings.api_key.get_secret_value())
        yield


class VllmGrader(LlmGrader):
    """A managed engine of its own."""

    backend = "vllm"

    def __init__(self, settings: JudgeSettings, workspace: Workspace) -> None:
        super().__init__(settings)
        self.workspace = workspace

    @property
    def _longest(self) -> int:
        return self.settings.context

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        from foundation.engine import EngineConfig, engine

        settings = self.settings
        config = EngineConfig(
            model=settings.model,
            purpose=f"judge run in {self.workspace.root}",
            context=settings.context,
            start_timeout=settings.start_timeout,
            arguments=settings.args,
            table="judge",
        )
        log = self.workspace.logs / "judge-vllm.log"
        say(f"judge: starting vLLM with {settings.model}; its log is {log.relative_to(self.workspace.root)}")
        with engine(config, log) as server:
            self.client = self._connect(server.base_url, server.model, server.api_key)
            say("judge: vLLM is ready")
            yield


def make_grader(workspace: Workspace, backend: str = "") -> Grader:
    """The grader of the workspace's settings, or of another `backend`. Nothing is started yet."""
    settings = workspace.settings.judge
    backend = backend or settings.backend
    if backend == "vllm":
        return VllmGrader(settings, workspace)
    if backend == "openai":
        return OpenAIGrader(settings)
    from judge.rules import RulesGrader

    return RulesGrader()
