"""The factory beside the engine's own benchmark, over the same prompts on the same engine, in one run.

One managed engine is started: a tiny random Qwen3 on the CPU, or --model with its card's profile. Then, in turns:
(a) vLLM's own serving benchmark (`vllm.benchmarks.serve.benchmark`) sends exactly the requests of the plan: messages, schema, seed,
    sampling and longest answer, with as many in flight;
(b) `factory work --burst` works the plan off as a user runs it: queue, a fork a unit, our client, every gate, provenance, commit.
Both are measured by the server's own counters, from the first token it works on to the last it writes; the engine's
benchmark tells its own figure besides. The prefix cache is emptied before each. Prints one JSON document: output tokens a
second of both, and the ratio of the sums (wanted: 0.9 and more).

What it cannot tell: the random model's answers are gibberish, so nearly all are rejected and few records are written (the gates
judge each all the same): tokens and requests are counted, not records. On a machine whose cores the engine shares with its
clients, (b) pays for its gates with the engine's time, as it would not beside a GPU. vLLM's benchmark streams, ours does not.

With --orders it measures the prefix cache instead: the share of prompt tokens found in it when the same requests come in the
plan's order, snippet by snippet (every type asked of one before the next), and shuffled; the cache is kept as small,
beside the catalogue's prompts, as that of a 16 GB card.

    .venv/bin/python benchmarks/teacher.py [--prompt-type qpt/formal] [--items 256] [--in-flight 48] [--turns 3] [--model M]
    .venv/bin/python benchmarks/teacher.py --orders [--items 16]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

FACTORY = (sys.executable, "-c", "from generator.cli import main; main()")
TYPES = ("qpt/formal", "cloze/entity", "wh/who", "structure/key-facts")  # of one call each, short answers and long
WORKERS = 3
LOOK = 0.1  # seconds between two looks at the counters
BLOCK = 32  # tokens
# A 16 GB card's cache holds 33,000 tokens, 61 prompts of the catalogue; the tiny model's tokens are three times as short.
BLOCKS = 61 * 1600 // BLOCK


@dataclass
class Window:
    """What the server did while something was sent to it, by its own counters."""

    seconds: float = 0.0
    tokens: int = 0
    prompt_tokens: int = 0
    requests: int = 0
    queries: int = 0
    hits: int = 0
    most: int = 0

    def document(self) -> dict[str, Any]:
        ratio = round(self.hits / self.queries, 3) if self.queries else None
        return {
            "output_tokens_per_second": round(self.rate, 1),
            **{"requests": self.requests, "output_tokens": self.tokens, "prompt_tokens": self.prompt_tokens},
            **{"seconds": round(self.seconds, 2), "most_in_flight": self.most, "prefix_cache_hit_ratio": ratio},
        }

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Server:
    """The managed engine's counters, and its cache."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.url, self.api_key = base_url.removesuffix("/v1"), api_key

    def counters(self) -> dict[str, float]:
        from foundation.engine_health import read_metrics

        return read_metrics(self._ask("/metrics", None))

    def forget(self) -> None:
        """Empty the prefix cache, so that nobody gains by what another one asked."""
        self._ask("/reset_prefix_cache", b"")

    def _ask(self, path: str, data: bytes | None) -> str:
        request = urllib.request.Request(self.url + path, data, {"Authorization": f"Bearer {self.api_key}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    @contextlib.contextmanager
    def watched(self) -> Iterator[Window]:
        """Look now and then until the context ends; the window is filled then."""
        window, over = Window(), threading.Event()
        before = self.counters()
        began, ended, last = 0.0, 0.0, before

        def look() -> None:
            nonlocal began, ended, last
            while not over.wait(LOOK):
                now, found = time.perf_counter(), self.counters()
                flying = int(found["num_requests_running"] + found["num_requests_waiting"])
                began = began or (now if flying or found["prompt_tokens_total"] > last["prompt_tokens_total"] else 0.0)
                window.most = max(window.most, flying)
                if found["generation_tokens_total"] > last["generation_tokens_total"]:
                    ended = now
                last = found

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield window
            time.sleep(3 * LOOK)
        finally:
            over.set()
            thread.join()
        moved = {name: int(last[name] - before[name]) for name in last}
        window.seconds = ended - began
        window.tokens, window.prompt_tokens = moved["generation_tokens_total"], moved["prompt_tokens_total"]
        window.requests = moved["request_success_total"]
        window.queries, window.hits = moved["prefix_cache_queries_total"], moved["prefix_cache_hits_total"]


def factory(*arguments: str, cwd: Path) -> Any:
    """The document that `factory … --json` prints."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*FACTORY, *arguments, "--json"], cwd=cwd, env=environment, check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def plan(folder: Path, types: Sequence[str], items: int) -> Path:
    """A workspace with about so many snippets of the example's corpus, planned for each type; nothing is run."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([*FACTORY, "init", str(folder)], env=environment, check=True, stdout=subprocess.DEVNULL)
    articles = sorted((REPOSITORY / "examples/wwii/articles").glob("*.md"))
    factory("ingest", *(str(path) for path in articles[: -(-items // 10)]), cwd=folder)  # ten snippets an article
    factory("enqueue", *(word for name in types for word in ("--prompt-type", name)), cwd=folder)
    return folder


def bodies(workspace: Path) -> dict[str, list[dict[str, Any]]]:
    """The requests of the plan by prompt type, in order, as our client sends them."""
    from foundation.corpus import Corpus
    from foundation.ids import seed_of
    from foundation.records import item_id
    from foundation.workspace import Workspace
    from generator.catalogue import load_catalogue
    from generator.render import Source, chat_request
    from queue_workers.plan import load_plan

    store, types = Workspace(workspace).store, load_catalogue()
    found: dict[str, list[dict[str, Any]]] = {}
    for unit in load_plan(store).units():
        kind = types[unit.prompt_type]
        for snippet in Corpus(store).part(unit.block, unit.start, unit.stop):
            item = item_id(snippet.id, unit.fingerprint, unit.round)
            chat = chat_request(kind, Source(snippet), item, seed_of(item))
            schema = {"name": "output", "schema": chat.schema_, "strict": True}
            found.setdefault(kind.id, []).append(
                {
                    "messages": [message.model_dump(include={"role", "content"}) for message in chat.messages],
                    "max_tokens": chat.sampling.max_tokens,
                    **{"temperature": chat.sampling.temperature, "top_p": chat.sampling.top_p, "seed": chat.seed},
                    "response_format": {"type": "json_schema", "json_schema": schema},
                }
            )
    return found


def engines(server: Server, model: str, requests: Path, in_flight: int) -> dict[str, Any]:
    """vLLM's own benchmark, in a process of its own; its figure, and the server's."""
    argv = [sys.executable, __file__, "--serve", str(requests), "--url", server.url, "--model", model]
    environment = {**os.environ, "OPENAI_API_KEY": server.api_key, "VLLM_LOGGING_LEVEL": "ERROR"}
    with server.watched() as window:
        done = subprocess.run(
            [*argv, "--in-flight", str(in_flight)], env=environment, check=True, capture_output=True, text=True
        )
    told = json.loads(done.stdout.rpartition("\nTOLD ")[2])
    return {**window.document(), "its_own_figure": round(told["output_throughput"], 1), "failed": told["failed"]}


def serve(requests: Path, url: str, model: str, in_flight: int) -> None:
    """The process of `engines`: what `vllm bench serve` does with a data set, but for reading it."""
    from vllm.benchmarks.datasets import SampleRequest
    from vllm.benchmarks.serve import TaskType, benchmark

    rows = [json.loads(line) for line in requests.read_text().splitlines()]
    samples = [
        SampleRequest(
            prompt="",
            prompt_len=0,
            expected_output_len=row["max_tokens"],
            chat_messages=row["messages"],
            request_overrides={key: value for key, value in row.items() if key not in ("messages", "max_tokens")},
        )
        for row in rows
    ]
    told = asyncio.run(
        benchmark(
            task_type=TaskType.GENERATION,
            endpoint_type="openai-chat",
            **{"api_url": f"{url}/v1/chat/completions", "base_url": url, "model_id": model, "model_name": model},
            **{"tokenizer": None, "input_requests": samples, "logprobs": None, "request_rate": float("inf")},
            **{"burstiness": 1.0, "disable_tqdm": True, "num_warmups": 0, "profile": False, "ignore_eos": False},
            **{"selected_percentile_metrics": ["ttft"], "selected_percentiles": [99.0], "goodput_config_dict": {}},
            **{"max_concurrency": in_flight, "lora_modules": None, "extra_headers": None, "extra_body": None},
            ready_check_timeout_sec=0,
        )
    )
    print(
        "\nTOLD " + json.dumps({name: told[name] for name in ("output_throughput", "completed", "failed", "duration")})
    )


def ours(server: Server, model: str, prepared: Path, in_flight: int) -> dict[str, Any]:
    """`factory work --burst` over a copy of the planned workspace; what it counted, and the server's figures."""
    workspace = prepared.with_name("ours")
    shutil.copytree(prepared, workspace)
    (workspace / "factory.toml").write_text(
        f'[teacher]\nbackend = "openai"\nmodel = "{model}"\nbase_url = "{server.url}/v1"\napi_key = "{server.api_key}"\n'
        f"concurrency = {in_flight // WORKERS}\n[work]\nworkers = {WORKERS}\n"
    )
    try:
        with server.watched() as window:
            told = factory("work", "--burst", cwd=workspace)
    finally:
        shutil.rmtree(workspace)
    return {**window.document(), **{name: told[name] for name in ("items", "records", "failed")}}


@contextlib.contextmanager
def running(arguments: argparse.Namespace, folder: Path, *more: str) -> Iterator[tuple[Server, str, str]]:
    """The engine, its model, and the name of its profile."""
    from foundation.engine import EngineConfig, engine
    from foundation.profiles import choose, context_of, server_arguments
    from foundation.tables import TeacherSettings

    model, settings = arguments.model, TeacherSettings(model=arguments.model, args=[*more, *arguments.args])
    if not model:
        from tests.support.tiny_qwen import make_tiny_qwen3

        model = str(make_tiny_qwen3(folder / "model"))
        own = ["--enforce-eager", "--max-num-seqs", str(arguments.in_flight), "--block-size", str(BLOCK)]
        settings = TeacherSettings(profile="cpu", model=model, args=[*own, *more, *arguments.args])
    profile = choose(settings)
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # it has /reset_prefix_cache
    config = EngineConfig(
        model,
        "benchmarks/teacher.py",
        context=context_of(profile, settings),
        arguments=server_arguments(profile, settings),
    )
    with engine(config, folder / "vllm.log") as found:
        yield Server(found.base_url, found.api_key), model, profile.name


def write(folder: Path, asked: Sequence[dict[str, Any]]) -> Path:
    requests = folder / "requests.jsonl"
    requests.write_text("".join(f"{json.dumps(body)}\n" for body in asked))
    return requests


def compare(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both in turns, and the ratio."""
    prepared = plan(folder / "w", arguments.prompt_type or TYPES, arguments.items or 256)
    asked = [body for bodies_of_type in bodies(prepared).values() for body in bodies_of_type]
    requests = write(folder, asked)
    turns: list[dict[str, Any]] = []
    with running(arguments, folder) as (server, model, profile):
        for turn in range(arguments.turns + 1):  # the first warms the engine up, and is not counted
            server.forget()
            theirs = engines(server, model, requests, arguments.in_flight)
            server.forget()
            found = {"engine": theirs, "factory": ours(server, model, prepared, arguments.in_flight)}
            print(f"turn {turn}: {json.dumps(found)}", file=sys.stderr, flush=True)
            turns += [found] if turn else []
    rates = {
        who: sum(turn[who]["output_tokens"] for turn in turns) / sum(turn[who]["seconds"] for turn in turns)
        for who in ("engine", "factory")
    }
    return {
        **{"model": arguments.model or "tiny random Qwen3", "profile": profile, "prompts": len(asked)},
        **{"in_flight": arguments.in_flight, "turns": turns},
        "engine_output_tokens_per_second": round(rates["engine"], 1),
        "factory_output_tokens_per_second": round(rates["factory"], 1),
        "ratio": round(rates["factory"] / rates["engine"], 3),
        "wanted": 0.9,
    }


def orders(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The prefix cache's hit ratio by the order of the same requests, each answered with 8 tokens at most."""
    from generator.catalogue import load_catalogue

    alone = [kind.id for kind in load_catalogue().values() if not kind.phases and not kind.partner]
    by_type = bodies(plan(folder / "w", arguments.prompt_type or alone, 256))
    rows = [[{**body, "max_tokens": 8} for body in found[: arguments.items or 16]] for found in by_type.values()]
    planned = [body for row in rows for body in row]
    by_snippet = [body for column in zip(*rows, strict=True) for body in column]
    shuffled = random.Random(1).sample(planned, len(planned))
    document: dict[str, Any] = {"prompt_types": len(rows), "prompts": len(planned), "cache_tokens": BLOCKS * BLOCK}
    with running(arguments, folder, "--num-gpu-blocks-override", str(BLOCKS)) as (server, model, _):
        for name, asked in (("planned", planned), ("by_snippet", by_snippet), ("shuffled", shuffled)):
            server.forget()
            found = engines(server, model, write(folder, asked), arguments.in_flight)
            document[name] = {key: found[key] for key in ("prefix_cache_hit_ratio", "prompt_tokens", "seconds")}
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-type", action="append", help="of one call without a partner; may be repeated")
    parser.add_argument("--items", type=int, default=0, help="snippets, about, of the 256 that there are")
    parser.add_argument("--orders", action="store_true", help="measure the prefix cache by the order of the requests")
    parser.add_argument("--in-flight", type=int, default=48, help="requests at once, of both")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", default="", help="a model for this machine's GPU; default: a tiny random one")
    parser.add_argument("--args", nargs="*", default=[], help="more arguments for the server")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.url, arguments.model, arguments.in_flight)
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps((orders if arguments.orders else compare)(arguments, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
