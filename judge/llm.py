"""The graders that are language models: `openai` asks a server that runs already, `vllm` starts one of its own.

Guarantees: one outcome a request; requests are made as they are sent, so memory does not grow with their number; a reply that
was cut off is asked for once more with twice the room, as far as `judge.context` has it; if the server has less, the first
reply counts. A server that was started is gone, with all its children, when `ready` ends, and holds its device until then. An
engine that dies or hangs ends the run with a message that says so: what was judged is kept, and the next run goes on.
Cost: the engine's start (vllm), then the model's thinking; CPU beside it, see `benchmarks/judge.py`.
Misses: whether the model is any good at judging; the canaries tell.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, overload

from foundation.console import say
from foundation.errors import Failure, Unavailable, UsageError
from foundation.ids import seed_of, stable_id
from foundation.records import Answer, ChatReply, ChatRequest, Sampling
from judge import parse, prompt
from judge.outcome import Grader, Outcome

if TYPE_CHECKING:
    from foundation.chat_client import ChatClient
    from foundation.engine import Engine
    from foundation.tables import JudgeSettings
    from foundation.workspace import Workspace

# Thinking models are made to be sampled: greedy decoding sends them into loops.
TEMPERATURE, TOP_P = 0.6, 0.95
TIMEOUT = 600.0  # seconds for one verdict, thinking included
GROWTH = 2
REPLY_LIMIT = 32768  # tokens, the most that `Sampling` can ask for
LOOK, GOING = (
    10.0,
    15.0,
)  # seconds between two looks at an engine of our own; it gets to end once its engine core has died
ASKED_FOR = 5.0  # seconds that a server gets to name its models
# What of a model's folder can change what it says.
MODEL_FILES = ("*.json", "*.safetensors", "*.bin", "*.gguf", "*.model", "*.txt", "*.jinja", "*.py")


class LlmGrader(abc.ABC):
    """One model behind an OpenAI-compatible URL. Subclasses say how it comes to be there."""

    backend = ""

    def __init__(self, settings: JudgeSettings, workspace: Workspace) -> None:
        self.settings, self.workspace = settings, workspace
        self.prompts = prompt.load(workspace.prompts)
        self.client: ChatClient | None = None
        self._told = False

    @property
    def name(self) -> str:
        return f"{self.backend}:{self.settings.model}"

    @property
    def about(self) -> str:
        return f"the language model {self.settings.model}"

    @property
    def floors(self) -> Mapping[str, float]:
        from judge.canaries import LLM_FLOORS

        return LLM_FLOORS

    @cached_property
    def identity(self) -> str:
        """Of all that can change its word: backend, model, revision, the files of a local model; the server's URL or its
        arguments; context, room, sampling; the prompts and how they are filled in; how replies are read.

        Left out: `concurrency` and `start_timeout` (when, not what), `api_key` (who asks), `canaries` and `answers` (how many
        are asked). vLLM's version, the device and what else is in the batch change a word no more than another vote does.
        What a hub's branch or a server's name stands for cannot be seen from here: pin `judge.revision`.
        """
        settings = self.settings
        return stable_id(
            "llm",
            self.name,
            settings.revision,
            _files(settings.model),
            self._where,
            settings.context,
            settings.max_tokens,
            GROWTH,
            str(TEMPERATURE),
            str(TOP_P),
            self.prompts.text,
            Path(parse.__file__).read_text("utf-8"),
        )

    @property
    @abc.abstractmethod
    def _where(self) -> str:
        """What of the server can change its word."""

    @abc.abstractmethod
    def ready(self) -> contextlib.AbstractContextManager[None]:
        """The model can be asked until the context ends."""

    async def grade(self, requests: Sequence[tuple[Answer, int]]) -> AsyncIterator[tuple[int, Outcome]]:
        assert self.client is not None, "grade() outside ready()"

        def again(reply: ChatReply) -> ChatRequest | None:
            """A reply that was cut off is asked for once more, at once: the slow ones do not wait for each other's end."""
            more, at = self._more(reply), int(reply.id)
            if more <= self.settings.max_tokens or at in cut_off:
                return None
            cut_off[at] = reply
            return self.request(at, *requests[at], more)

        cut_off = dict[int, ChatReply]()  # the first replies of those that are being asked again
        async for reply in self.client.complete(_Requests(self, requests), again):
            first = cut_off.pop(int(reply.id), None)
            # The prompt did fit: only the room was more than the server has.
            yield int(reply.id), self._outcome(first if first and reply.finish == "declined" else reply)

    def request(self, at: int, answer: Answer, vote: int, room: int) -> ChatRequest:
        """What is sent for one answer; the seed is another one for each vote."""
        return ChatRequest(
            id=str(at),
            messages=self.prompts.messages(answer),
            sampling=self._sampling(room),
            seed=seed_of(self.identity, answer.item.id, answer.text, vote),
        )

    def _sampling(self, room: int) -> Sampling:
        if self._last is None or self._last.max_tokens != room:
            self._last = Sampling(temperature=TEMPERATURE, top_p=TOP_P, max_tokens=min(room, REPLY_LIMIT))
        return self._last

    _last: Sampling | None = None

    def _outcome(self, reply: ChatReply) -> Outcome:
        if reply.finish == "declined" and not self._told:
            self._told = True
            say(
                f"warning: a prompt does not fit the judge's context, so its answer is unscored\n  mend:  {self._longer}"
            )
        return parse.outcome(reply)

    def _more(self, reply: ChatReply) -> int:
        """How much room a reply that was cut off gets the second time; 0 if it was not, or cannot have more."""
        if reply.finish != "length" or reply.detail not in ("", "length"):
            return 0
        return min(GROWTH * self.settings.max_tokens, self.settings.context - reply.usage.prompt_tokens, REPLY_LIMIT)

    @property
    def _longer(self) -> str:
        """How a longer prompt comes to fit."""
        return "start the server with a longer context and raise judge.context with it, or lower judge.max_tokens"

    def _connect(self, base_url: str, model: str, api_key: str) -> ChatClient:
        from foundation.chat_client import ChatClient

        return ChatClient(
            base_url=base_url.rstrip("/"),
            model=model,
            api_key=api_key,
            concurrency=self.settings.concurrency,
            timeout=TIMEOUT,
            table="judge",
            thoughts=True,
        )


class _Requests(Sequence[ChatRequest]):
    """What is asked, each made when it is sent."""

    def __init__(self, grader: LlmGrader, asked: Sequence[tuple[Answer, int]]) -> None:
        self.grader, self.asked = grader, asked

    def __len__(self) -> int:
        return len(self.asked)

    @overload
    def __getitem__(self, at: int) -> ChatRequest: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[ChatRequest]: ...
    def __getitem__(self, at: int | slice) -> ChatRequest | Sequence[ChatRequest]:
        if isinstance(at, slice):
            return _Requests(self.grader, self.asked[at])
        return self.grader.request(at, *self.asked[at], self.grader.settings.max_tokens)


class OpenAIGrader(LlmGrader):
    """Any OpenAI-compatible server. Raises `UsageError` if its URL is none."""

    backend = "openai"

    def __init__(self, settings: JudgeSettings, workspace: Workspace) -> None:
        super().__init__(settings, workspace)
        if not settings.base_url.startswith(("http://", "https://")):
            raise UsageError(
                "the judge's backend is openai, but judge.base_url is not a URL",
                where="factory.toml",
                mend='base_url = "http://127.0.0.1:8000/v1"',
            )

    @property
    def _where(self) -> str:
        before, _, rest = self.settings.base_url.rstrip("/").partition("://")
        host, slash, path = rest.partition("/")
        return f"{before}://{host.rpartition('@')[2]}{slash}{path}"  # a password in it says who asks, not what

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        settings = self.settings
        self.client = self._connect(settings.base_url, settings.model, settings.api_key.get_secret_value())
        # A server that is away says so at once, and not after the tries of a first request.
        status, models = asyncio.run(self._models(self.client))
        if status in (401, 403):
            raise self.client.refused(status, f"HTTP {status}")
        if models and settings.model not in models:
            say(
                f"warning: {self._where} does not name the model {settings.model} among its own: {', '.join(models[:8])}"
            )
        yield

    @staticmethod
    async def _models(client: ChatClient) -> tuple[int, list[str]]:
        """Status and models, as far as it tells; a server that is only slow to tell will be asked all the same."""
        try:
            return await client.models(ASKED_FOR)
        except Unavailable as error:
            if isinstance(error.__cause__, TimeoutError):
                return 0, []
            raise


class VllmGrader(LlmGrader):
    """A managed engine of its own."""

    backend = "vllm"

    def __init__(self, settings: JudgeSettings, workspace: Workspace) -> None:
        super().__init__(settings, workspace)
        self._engine: Engine | None = None
        self._ill, self._hung_after = "", workspace.settings.work.hung_after
        if settings.context <= settings.max_tokens:
            raise UsageError(
                f"judge.context ({settings.context:,} tokens) holds the prompt and the reply, and judge.max_tokens "
                f"({settings.max_tokens:,}) leaves none of it for the prompt",
                where="factory.toml",
                mend="raise judge.context, or lower judge.max_tokens",
            )

    @property
    def _where(self) -> str:
        return "\0".join(self.settings.args)

    @property
    def _longer(self) -> str:
        return f"raise judge.context ({self.settings.context:,} tokens), as far as the model and the memory go"

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        from foundation.engine import EngineConfig, engine

        settings = self.settings
        _check_folder(settings.model, settings.args)
        config = EngineConfig(
            model=settings.model,
            purpose=f"judge run in {self.workspace.root}",
            revision=settings.revision,
            context=settings.context,
            start_timeout=settings.start_timeout,
            arguments=settings.args,
            table="judge",
        )
        log = self.workspace.logs / "judge-vllm.log"
        say(f"judge: starting vLLM with {settings.model}; its log is {log.relative_to(self.workspace.root)}")
        with engine(config, log) as server:
            self.client, self._engine = self._connect(server.base_url, server.model, server.api_key), server
            say("judge: vLLM is ready")
            yield

    async def grade(self, requests: Sequence[tuple[Answer, int]]) -> AsyncIterator[tuple[int, Outcome]]:
        watch = asyncio.create_task(self._watch())
        try:
            async for entry in super().grade(requests):
                yield entry
        except Unavailable as error:
            raise self._gone(error) from error
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        """End an engine that hangs: its clients hear of it at once then, and not after all their time is up."""
        assert self._engine is not None
        while not self._ill:
            await asyncio.sleep(LOOK)
            look = await asyncio.to_thread(self._engine.look, self._hung_after)
            if look.state == "hung":
                self._ill = f"the vLLM server hangs: {look.detail}"
                await asyncio.to_thread(self._engine.group.end)

    def _gone(self, error: Unavailable) -> Failure:
        """The same of an engine of our own, which nobody else can start."""
        assert self._engine is not None
        until = time.monotonic() + GOING
        while not self._ill and time.monotonic() < until and self._engine.group.alive:
            time.sleep(0.2)  # a server whose engine core died is on its way out
        look = self._engine.look(self._hung_after)
        return Failure(
            self._ill or (look.detail if look.state == "dead" else "the vLLM server does not answer any more"),
            where=str(self._engine.group.log),
            mend="run the same command again: what was judged is kept, and it goes on from there",
        )


def _check_folder(model: str, args: Sequence[str]) -> None:
    """Raise `UsageError` for a model's folder that lacks what no engine can do without: sooner than an engine would."""
    folder = Path(os.path.expanduser(model))
    if not folder.is_dir():
        return
    needed = {
        "configuration (config.json)": ("config.json", "params.json"),
        "weights (*.safetensors)": ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf"),
        "tokenizer (tokenizer.json)": ("tokenizer*", "vocab.*", "*.model", "*.tiktoken", "tekken.json"),
    }
    if "--load-format" in args:
        del needed["weights (*.safetensors)"]
    if "--tokenizer" in args:
        del needed["tokenizer (tokenizer.json)"]
    for what, names in needed.items():
        if not any(path.stat().st_size for name in names for path in folder.glob(name)):
            raise UsageError(
                f"the folder of the judge's model holds no {what}",
                where=str(folder),
                mend="mend judge.model, or copy what is missing beside the rest",
            )


def _files(model: str) -> str:
    """Names, sizes and dates of what a model's folder holds; empty for a name on a hub."""
    folder = Path(os.path.expanduser(model))
    if not folder.is_dir():
        return ""
    found = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    stats = [(path.name, path.stat()) for path in found]
    return "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def make_grader(workspace: Workspace, backend: str = "") -> Grader:
    """The grader of the workspace's settings, or of another `backend`. Nothing is started yet."""
    settings = workspace.settings.judge
    backend = backend or settings.backend
    if backend == "vllm":
        return VllmGrader(settings, workspace)
    if backend == "openai":
        return OpenAIGrader(settings, workspace)
    from judge.rules import RulesGrader

    return RulesGrader()
