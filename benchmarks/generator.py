"""The factory beside a bare loop, both asking the same instant server for the same items on the same two cores, in one run.

Ours is `factory work --burst` as a user runs it: queue, a fork a unit, every gate, provenance, commit once. The bare loop is one
aiohttp session with as many requests in flight; it parses each reply, checks it for CJK and by lingua, and appends JSON lines:
no queue, no other gate, no plan, nothing to go on from after a crash. The same once more at 200 ms a reply. The articles
are made of the example's, sentences shuffled and figures moved, by a fixed seed. Prints one JSON document; rates "while sending" are
between the first and the last request that the server saw; what the CPU "would allow" is both cores over what ours and the server
used of them, which others' load on the machine hardly moves. Absolute figures are this machine's own.

    .venv/bin/python benchmarks/generator.py [--prompt-type qpt/formal] [--items 16000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks._server import Server  # noqa: E402

CORES = 2
IN_FLIGHT = 256
DELAY_MS = 200
SENTENCES = 180  # of an article: 45 snippets
FACTORY = (sys.executable, "-c", "from generator.cli import main; main()")


def make_articles(folder: Path, items: int) -> None:
    """Articles for at least so many snippets: sentences of the examples, drawn anew for each, with other figures."""
    folder.mkdir()
    texts = [
        path.read_text().split("---", 2)[2] for path in sorted((REPOSITORY / "examples/wwii/articles").glob("*.md"))
    ]
    lines = [line for text in texts for line in text.splitlines() if line and not line.startswith("#")]
    sentences = [sentence for line in lines for sentence in re.split(r"(?<=[a-z0-9]\.) (?=[A-Z])", line)]
    titles = [re.search(r"(?m)^# (.+)$", text) for text in texts]
    for number in range(-(-items * 4 // SENTENCES) + 1):
        rng = random.Random(number)
        move = partial(_moved, rng.randint(1, 20))
        drawn = [re.sub(r"\b\d{2,4}\b", move, one) for one in rng.sample(sentences, SENTENCES)]
        name = titles[number % len(titles)]
        paragraphs = "\n\n".join(" ".join(drawn[start : start + 6]) for start in range(0, SENTENCES, 6))
        title = f"{name[1] if name else 'War'} in account {number}"
        (folder / f"{number:05d}.md").write_text(
            f"---\ntitle: {title}\nlicense: Apache-2.0\n---\n\n# {title}\n\n{paragraphs}\n"
        )


def _moved(by: int, figure: re.Match[str]) -> str:
    return str(int(figure[0]) + by)


def factory(*arguments: str, cwd: Path) -> Any:
    """The document that `factory … --json` prints."""
    done = subprocess.run(
        [*FACTORY, *arguments, "--json"], cwd=cwd, env=_environment(), check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def make_workspace(folder: Path, url: str, items: int, workers: int) -> Path:
    """A workspace with so many snippets, and the server as its teacher."""
    make_articles(folder / "articles", items)
    workspace = folder / "w"
    subprocess.run([*FACTORY, "init", str(workspace)], env=_environment(), check=True, stdout=subprocess.DEVNULL)
    (workspace / "factory.toml").write_text(
        f'[teacher]\nbackend = "openai"\nmodel = "instant"\nbase_url = "{url}"\nconcurrency = {IN_FLIGHT // workers}\n'
        f"[work]\nworkers = {workers}\n"
    )
    factory("ingest", str(folder / "articles"), cwd=workspace)
    return workspace


class Memory:
    """The most that any worker, with the fork that runs its unit, held, in MB: PSS shares what forks share, RSS counts it twice."""

    def __init__(self) -> None:
        self.pss = self.rss = self.single = 0.0

    def look(self, command: int) -> None:
        try:
            workers = [one for one in psutil.Process(command).children() if _is_worker(one)]
            for worker in workers:
                found = [_rollup(one.pid) for one in (worker, *worker.children())]
                self.pss = max(self.pss, sum(pss for pss, _ in found))
                self.rss = max(self.rss, *(rss for _, rss in found))
                self.single = max(self.single, *(pss for pss, _ in found))
        except (psutil.Error, OSError):
            return  # one of them has just ended

    def document(self) -> dict[str, int]:
        told = {"worker_and_its_fork_pss_mb": round(self.pss), "largest_process_pss_mb": round(self.single)}
        return told | {"largest_process_rss_mb": round(self.rss), "wanted_below": 250}


def _is_worker(process: psutil.Process) -> bool:
    return not process.name().startswith("redis")


def _rollup(pid: int) -> tuple[float, float]:
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(rows["Pss"].split()[0]) / 1024, int(rows["Rss"].split()[0]) / 1024


@contextmanager
def watched(workspace: Path, command: int, begun: float, memory: Memory | None) -> Iterator[dict[str, float]]:
    """Look every few moments for the first record, and at the memory of the workers. The seconds to it come with the end."""
    ended, seen = threading.Event(), dict[str, float]()
    before = set(workspace.glob("shards/*/*/*.jsonl"))

    def look() -> None:
        while not ended.wait(0.02 if not seen else 0.25):
            if not seen and any(
                path not in before and path.stat().st_size for path in workspace.glob("shards/*/*/*.jsonl")
            ):
                seen["seconds"] = time.monotonic() - begun
            if memory and seen:
                memory.look(command)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def ours(workspace: Path, server: Server, delay_ms: int, memory: Memory | None = None) -> dict[str, Any]:
    """`factory work --burst` over what is enqueued."""
    server.set(delay_ms)
    cpu, begun = _cpu(), time.monotonic()
    process = subprocess.Popen(
        [*FACTORY, "work", "--burst", "--json"], cwd=workspace, env=_environment(), stdout=subprocess.PIPE
    )
    with watched(workspace, process.pid, begun, memory) as first:
        document = json.loads(process.communicate()[0])
    seconds = time.monotonic() - begun
    assert document["failed"] == 0 == document["left"], document
    told = _rates(document["records"], seconds, server, _cpu() - cpu)
    told |= {"rejected": document["items_rejected"], "first_record_seconds": round(first.get("seconds", seconds), 2)}
    told["repeated_requests"] = told["requests"] - document["items"]
    return told


def bare(workspace: Path, server: Server, delay_ms: int, prompt_types: list[str], items: int) -> dict[str, Any]:
    """The bare loop over the same items, in a process of its own; its imports and its reading of the corpus are not counted."""
    server.set(delay_ms)
    cpu = _cpu()
    argv = [sys.executable, __file__, "--bare", str(workspace), server.url, ",".join(prompt_types), str(items)]
    done = subprocess.run(argv, env=_environment(), check=True, stdout=subprocess.PIPE)
    told = json.loads(done.stdout)
    return _rates(told["records"], told["seconds"], server, _cpu() - cpu)


def _cpu() -> float:
    """Seconds of CPU that ended children have used; the start and the end of a command are in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _rates(records: int, seconds: float, server: Server, cpu: float) -> dict[str, Any]:
    stats = server.stats()
    sending = stats["last"] - stats["first"]
    return {
        "records": records,
        "requests": stats["requests"],
        "seconds": round(seconds, 2),
        "records_per_second": round(records / seconds),
        "while_sending": round(records / sending),
        "most_in_flight": stats["most_in_flight"],
        "cpu_ms_a_record": round(1000 * cpu / records, 3),
        "cpu_would_allow": round(CORES * records / (cpu + stats["cpu_seconds"])),
        "server_cpu_ms_a_request": round(1000 * stats["cpu_seconds"] / stats["requests"], 3),
    }


async def bare_loop(workspace: Path, url: str, prompt_types: list[str], items: int) -> dict[str, Any]:
    """Records written by one hand-written loop, and its seconds."""
    import aiohttp
    import orjson
    from lingua import Language, LanguageDetectorBuilder

    from foundation.corpus import Corpus
    from foundation.store import LocalStore
    from generator.catalogue import load_catalogue
    from generator.gates.cjk import CJK
    from generator.render import Source, chat_request

    detector = LanguageDetectorBuilder.from_languages(Language.ENGLISH, Language.CHINESE).build()
    detector.compute_language_confidence("Ready.", Language.ENGLISH)
    snippets = list(Corpus(LocalStore(workspace)).all_snippets())[:items]
    catalogue = load_catalogue()
    asked = []
    for name in prompt_types:
        request = chat_request(catalogue[name], Source(snippets[0]), "", 1)
        schema = {"name": "output", "schema": request.schema_, "strict": True}
        fixed = {"model": "instant", **request.sampling.model_dump(), "seed": 1}
        fixed["response_format"] = {"type": "json_schema", "json_schema": schema}
        asked += [(fixed, request.messages[0].content, snippet) for snippet in snippets]
    waiting, written, headers = iter(asked), 0, {"Content-Type": "application/json"}

    async def pull(session: aiohttp.ClientSession, file: Any) -> None:
        nonlocal written
        for fixed, system, snippet in waiting:
            user = f"Subject: {snippet.title}\n\n<passage>\n{snippet.text}\n</passage>"
            messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
            body = orjson.dumps({**fixed, "messages": messages})
            async with session.post(f"{url}/chat/completions", data=body, headers=headers) as response:
                reply = orjson.loads(await response.read())
            fields = orjson.loads(reply["choices"][0]["message"]["content"])
            text = "\n".join(fields.values())
            if CJK.search(text) or detector.compute_language_confidence(text, Language.ENGLISH) != 1.0:
                continue
            turns = [{"role": "user", "content": fields["question"]}]
            turns.append({"role": "assistant", "content": fields.get("answer", snippet.text)})
            file.write(orjson.dumps({"id": snippet.id, "messages": turns, "usage": reply["usage"]}) + b"\n")
            written += 1

    begun = time.monotonic()
    with tempfile.TemporaryFile() as file:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
            await asyncio.gather(*(pull(session, file) for _ in range(IN_FLIGHT)))
    return {"records": written, "seconds": time.monotonic() - begun}


def measure(folder: Path, prompt_types: list[str], items: int, workers: int) -> dict[str, Any]:
    """Both loops against both servers."""
    with Server() as server:
        workspace = make_workspace(folder, server.url, items // len(prompt_types), workers)
        chosen = [word for name in prompt_types for word in ("--prompt-type", name)]
        count = items // len(prompt_types)

        def both(round_: int, limit: int, delay_ms: int, memory: Memory | None = None) -> dict[str, Any]:
            told = factory("enqueue", *chosen, "--limit", str(limit), "--round", str(round_), cwd=workspace)
            beside = bare(workspace, server, delay_ms, prompt_types, told["items"] // len(prompt_types))
            return {"bare_loop": beside, "ours": ours(workspace, server, delay_ms, memory)}

        memory = Memory()
        instant = both(0, count, 0)
        slow = both(1, count, DELAY_MS, memory)
        subprocess.run([*FACTORY, "stop"], cwd=workspace, env=_environment(), check=True, stdout=subprocess.DEVNULL)
    return {
        "prompt_types": prompt_types,
        "in_flight": IN_FLIGHT,
        "workers": workers,
        "instant": instant | {"ratio_while_sending": _ratio(instant, "while_sending"), "wanted_at_least": 1500},
        "ratio": _ratio(instant, "records_per_second"),
        f"at_{DELAY_MS}_ms": slow | {"possible": IN_FLIGHT * 1000 // DELAY_MS, "wanted_while_sending": 1200},
        "memory": memory.document(),
    }


def _ratio(rows: dict[str, Any], what: str) -> float:
    return round(rows["ours"][what] / rows["bare_loop"][what], 2)


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--bare"]:
        import uvloop

        workspace, url, names, items = sys.argv[2:6]
        print(json.dumps(uvloop.run(bare_loop(Path(workspace), url, names.split(","), int(items)))))
        return
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--prompt-type", action="append", help="may be repeated; default: qpt/formal")
    options.add_argument("--items", type=int, default=16000)
    options.add_argument("--workers", type=int, default=8, help="share the requests in flight")
    chosen = options.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])  # for all that it starts too
    with tempfile.TemporaryDirectory() as name:
        print(
            json.dumps(
                measure(Path(name), chosen.prompt_type or ["qpt/formal"], chosen.items, chosen.workers), indent=2
            )
        )


if __name__ == "__main__":
    main()
