"""`judge run` beside a bare loop that sends the same requests to the same engine, in one run.

One managed engine is started: a tiny random Qwen3 on the CPU, or --model on this machine's GPU. Then, in turns:
(a) a bare loop (asyncio and aiohttp) sends exactly the requests that `judge run` sends (recorded before), with as many in flight,
    and does nothing with the replies but parse their JSON;
(b) `judge run` judges the answers as a user runs it, in a fresh workspace: answers, two more votes on a tenth, the shuffled
    baseline, canaries, replies that are cut off asked for again, every verdict parsed and kept in the cache, the summary.
`ratio` is of the engine's output tokens a second while it had work, by the server's own counters, (b) over (a): wanted 0.95 and
more. `ratio_whole` takes for (b) all seconds of the judging, from the first answer read to the last file written, without
the interpreter's start. The prefix cache is emptied before each.

Then, without an engine, against a server that answers at once: CPU of this process a request, of both, in turns.

The answers are those of --answers FILE (what `trainer answer` wrote); else questions and passages of the example by the `rules`
teacher, with answers made of two references. What it cannot tell: the random model gives no verdict, so that every reply is
cut off and asked for twice, and a request costs it some 20 ms, not the seconds of a model that judges: where clients and
engine share cores, as on a CPU, the overhead stands out a hundred times more than it would beside a GPU.

    .venv/bin/python benchmarks/judge.py [--answers FILE] [--items 150] [--in-flight 32] [--turns 3] [--model M] [--out FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks import _server  # noqa: E402
from benchmarks.teacher import FACTORY, Server, factory  # noqa: E402

JUDGE = (sys.executable, "-c", "from judge.cli import main; main()")
TRAINER = (sys.executable, "-c", "from trainer.cli import main; main()")
MAX_TOKENS, CONTEXT = 64, 8192
VERDICT = "The student gives the date of the reference, and nothing that stands against it.\n\nVERDICT: PASS"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"}
RESULTS = REPOSITORY / "benchmarks" / "results" / "judge.json"


class Instant(_server.Server):
    """The instant server, as a judge: it gives a verdict, or is always cut off, and writes down what it was asked."""

    def __init__(self, finish: str, record: Path | None = None) -> None:
        self.arguments = [finish, str(record or os.devnull)]

    def __enter__(self) -> Instant:
        command = [sys.executable, __file__, "--serve", *self.arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        assert self.process.stdout is not None
        self.root = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.url = f"{self.root}/v1"
        return self


def serve(finish: str, record: str) -> None:
    """The process of `Instant`."""
    import uvloop

    usage = {"prompt_tokens": 900, "completion_tokens": MAX_TOKENS, "total_tokens": 900 + MAX_TOKENS}
    choice = {"index": 0, "message": {"role": "assistant", "content": VERDICT}, "finish_reason": finish}
    reply = orjson.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage})
    file = open(record, "ab", buffering=0)  # noqa: SIM115  # as long as the process

    def answer(body: bytes) -> bytes:
        file.write(body + b"\n")
        return reply

    _server.answer = answer
    uvloop.run(_server._serve())


def made_answers(folder: Path, items: int) -> Path:
    """Answers to the example's held-out questions, each made of the first half of its reference and the second of another."""
    from foundation.records import Answer
    from foundation.workspace import Workspace
    from trainer.evalset import eval_sets

    workspace = folder / "made"
    subprocess.run([*FACTORY, "init", str(workspace)], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    (workspace / "factory.toml").write_text('[teacher]\nbackend = "rules"\n')
    for words in (("ingest", str(REPOSITORY / "examples/wwii/articles")), ("enqueue", "--all"), ("work", "--burst")):
        factory(*words, cwd=workspace)
    subprocess.run([*TRAINER, "shuffle"], cwd=workspace, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    chosen = eval_sets(Workspace(workspace), ["phrasing", "unseen"], items // 2, 1)
    found = [item for drawn, _ in chosen.values() for item in drawn]
    rows = []
    for item, other in zip(found, [*found[1:], found[0]], strict=True):
        one, two = item.reference.split(), other.reference.split()
        text = " ".join([*one[: (len(one) + 1) // 2], *two[len(two) // 2 :]])
        rows.append(Answer(item=item, text=text, stopped="end", tokens=len(one), checkpoint="made"))
    path = folder / "made.jsonl"
    path.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    return path


def workspace_for(folder: Path, url: str, model: str, key: str, in_flight: int) -> Path:
    """A fresh workspace: nothing is in its cache."""
    workspace = Path(tempfile.mkdtemp(dir=folder))
    lines = [f'backend = "openai"\nmodel = "{model}"\nbase_url = "{url}"\napi_key = "{key}"\n']
    lines += [f"concurrency = {in_flight}\nmax_tokens = {MAX_TOKENS}\ncontext = {CONTEXT}\n"]
    (workspace / "factory.toml").write_text("[judge]\n" + "".join(lines))
    return workspace


def judged(answers: Path, workspace: Path) -> dict[str, Any]:
    """The summary that `judge run` prints."""
    command = [*JUDGE, "run", "--answers", str(answers), "--out", "v.jsonl", "--json"]
    done = subprocess.run(command, cwd=workspace, env=ENVIRONMENT, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def bare(url: str, key: str, bodies: Sequence[bytes], in_flight: int) -> None:
    """The loop that anyone would write first."""
    import aiohttp

    waiting, replies = iter(bodies), 0
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connector, timeout = aiohttp.TCPConnector(limit=in_flight), aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:

        async def pull() -> None:
            nonlocal replies
            for body in waiting:
                async with session.post(f"{url}/chat/completions", data=body) as response:
                    assert response.status == 200, await response.text()
                    orjson.loads(await response.read())["choices"][0]["message"]["content"]
                    replies += 1

        await asyncio.gather(*(pull() for _ in range(in_flight)))
    assert replies == len(bodies)


def recorded(answers: Path, folder: Path, model: str, in_flight: int, finish: str) -> list[bytes]:
    """The bodies of all that `judge run` asks, in its order."""
    record = folder / f"asked-{finish}"
    with Instant(finish, record) as server:
        judged(answers, workspace_for(folder, server.url, model, "", in_flight))
    return record.read_bytes().splitlines()


@contextlib.contextmanager
def running(given: argparse.Namespace, folder: Path) -> Iterator[tuple[Server, str]]:
    """The engine, as `judge run` would start it, and its model."""
    from foundation.engine import EngineConfig, engine

    model, own = given.model, given.args
    if not model:
        from tests.support.tiny_qwen import make_tiny_qwen3

        model = str(make_tiny_qwen3(folder / "model"))
        own = ["--enforce-eager", "--max-num-seqs", str(given.in_flight), *own]
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # it has /reset_prefix_cache
    config = EngineConfig(model, "benchmarks/judge.py", context=CONTEXT, arguments=own, table="judge")
    with engine(config, folder / "vllm.log") as found:
        yield Server(found.base_url, found.api_key), model


def engine_turns(given: argparse.Namespace, answers: Path, folder: Path) -> dict[str, Any]:
    """Both on one engine, in turns; the first turn warms it up."""
    turns: list[dict[str, Any]] = []
    with running(given, folder) as (server, model):
        bodies = recorded(answers, folder, model, given.in_flight, "length")
        for turn in range(given.turns + 1):
            found: dict[str, Any] = {}
            for who in ("bare", "judge")[:: -1 if turn % 2 else 1]:
                found[who] = one_turn(who, server, model, bodies, answers, folder, given.in_flight)
            print(f"turn {turn}: {json.dumps(found)}", file=sys.stderr, flush=True)
            turns += [found] if turn else []
    rates = {
        who: sum(turn[who]["output_tokens"] for turn in turns) / sum(turn[who]["seconds"] for turn in turns)
        for who in ("bare", "judge")
    }
    whole = sum(turn["judge"]["output_tokens"] for turn in turns) / sum(turn["judge"]["whole"] for turn in turns)
    return {
        **{"model": given.model or "tiny random Qwen3", "requests": len(bodies), "turns": turns},
        "bare_output_tokens_per_second": round(rates["bare"], 1),
        "judge_output_tokens_per_second": round(rates["judge"], 1),
        "ratio": round(rates["judge"] / rates["bare"], 3),
        "ratio_whole": round(whole / rates["bare"], 3),
        "wanted": 0.95,
    }


def one_turn(
    who: str, server: Server, model: str, bodies: Sequence[bytes], answers: Path, folder: Path, in_flight: int
) -> dict[str, Any]:
    url, key = f"{server.url}/v1", server.api_key
    server.forget()
    with server.watched() as window:
        if who == "bare":
            asyncio.run(bare(url, key, bodies, in_flight))
            more = {}
        else:
            told = judged(answers, workspace_for(folder, url, model, key, in_flight))
            more = {"whole": told["seconds"], "graded": told["graded"], "unscored": told["counts"]["UNSCORED"]}
    return {**window.document(), **more}


def cpu_turns(given: argparse.Namespace, answers: Path, folder: Path) -> dict[str, Any]:
    """Microseconds of CPU a request against a server that answers at once: ours whole, and the bare loop."""
    from foundation.workspace import Workspace
    from judge.llm import make_grader
    from judge.run import judge

    bodies, rows = recorded(answers, folder, "m", given.in_flight, "stop"), []
    with Instant("stop") as server:
        for turn in range(given.turns + 1):
            workspace = Workspace(workspace_for(folder, server.url, "m", "", given.in_flight))
            began = time.process_time()
            told = judge(answers, workspace.root / "v.jsonl", make_grader(workspace), workspace)
            ours = (time.process_time() - began) / len(bodies) * 1e6
            began = time.process_time()
            asyncio.run(bare(server.url, "", bodies, given.in_flight))
            theirs = (time.process_time() - began) / len(bodies) * 1e6
            if turn:
                rows.append((ours, theirs))
    ours, theirs = (min(column) for column in zip(*rows, strict=True))
    return {
        **{"answers": told["answers"]["rows"], "requests": len(bodies)},
        **{"judge_us_a_request": round(ours), "bare_us_a_request": round(theirs), "ratio": round(ours / theirs, 2)},
        "judge_us_an_answer": round(ours * len(bodies) / told["answers"]["rows"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=Path, help="what `trainer answer` wrote; default: made from the example")
    parser.add_argument("--items", type=int, default=150, help="answers to judge, at most")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--model", default="", help="a model for this machine's GPU; default: a tiny random one")
    parser.add_argument("--args", nargs="*", default=[], help="more arguments for the server")
    parser.add_argument("--no-engine", action="store_true", help="the CPU alone")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(*given.serve)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = given.answers or made_answers(folder, given.items)
        answers = folder / "answers.jsonl"
        answers.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: given.items]))
        document: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "in_flight": given.in_flight}
        document["cpu"] = cpu_turns(given, answers, folder)
        if not given.no_engine:
            document["engine"] = engine_turns(given, answers, folder)
        document["load"] = round(os.getloadavg()[0], 1)
    text = json.dumps(document, indent=2)
    print(text)
    if not given.no_engine:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
