"""What the factory adds to the teacher: `factory work` on one core beside a bare loop over the same items, in one run.

The bare loop asks the same `rules` teacher for the same snippets, parses each reply, checks it for CJK and by lingua,
and appends JSON lines to one file: no queue, no plan, no fork, no commit, no provenance. What the teacher takes is in both, but
in one process it remembers a snippet from one prompt type to the next. The articles are those of `benchmarks/generator.py`. Also
the time of `factory --help` beside an interpreter that imports typer and stops. Prints one JSON document; the ratio of CPU
hardly moves with others' load on the machine, absolute figures are this machine's own.

    .venv/bin/python benchmarks/factory.py
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.generator import make_articles  # noqa: E402

SNIPPETS = 1000  # so many that starting up is a small part
# Of one call each, so that the loop beside it can stay bare.
TYPES = (
    *("choice/four-options", "cloze/entity", "qpt/formal", "qpt/student-before-an-exam", "qpt/tell-me-about"),
    *("structure/key-facts", "truth/false-with-correction", "truth/true-statement", "wh/when", "wh/who"),
)


def command(*arguments: str, cwd: Path) -> str:
    """Run `factory …` on this process's cores and return its standard output."""
    argv = [sys.executable, "-c", "from generator.cli import main; main()", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(argv, cwd=cwd, env=environment, check=True, capture_output=True, text=True).stdout


def _cpu(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def factory_work(folder: Path) -> tuple[int, float, float]:
    """Records committed by `factory work --burst`, start-up included, its seconds, and those of CPU."""
    workspace = folder / "w"
    command("init", str(workspace), cwd=folder)
    (workspace / "factory.toml").write_text('[teacher]\nbackend = "rules"\n')
    make_articles(folder / "articles", SNIPPETS)
    command("ingest", str(folder / "articles"), cwd=workspace)
    command("enqueue", *(word for name in TYPES for word in ("--prompt-type", name)), cwd=workspace)
    cpu, begun = _cpu(resource.RUSAGE_CHILDREN), time.perf_counter()
    command("work", "--burst", cwd=workspace)
    seconds, cpu = time.perf_counter() - begun, _cpu(resource.RUSAGE_CHILDREN) - cpu
    return int(json.loads(command("status", "--json", cwd=workspace))["records"]), seconds, cpu


def bare_loop(folder: Path) -> tuple[int, float, float]:
    """Records written by a loop without a factory around it, its seconds, and those of CPU; imports left out."""
    from lingua import Language, LanguageDetectorBuilder

    from foundation.corpus import Corpus
    from foundation.store import LocalStore
    from generator.catalogue import load_catalogue
    from generator.gates.cjk import CJK
    from generator.render import Source, chat_request, render_records
    from generator.teachers.base import TeacherRequest
    from generator.teachers.rules import RulesTeacher

    detector = LanguageDetectorBuilder.from_languages(Language.ENGLISH, Language.CHINESE).build()
    detector.compute_language_confidence("Ready.", Language.ENGLISH)
    snippets = list(Corpus(LocalStore(folder / "w")).all_snippets())

    async def loop() -> int:
        written, teacher = 0, RulesTeacher()
        with open(folder / "bare.jsonl", "wb") as file:
            for prompt_type in map(load_catalogue().__getitem__, TYPES):
                requests = [
                    TeacherRequest(chat_request(prompt_type, source, source.snippet.id, 1), prompt_type, source, 0)
                    for source in map(Source, snippets)
                ]
                by_id = {request.chat.id: request.source for request in requests}
                async for reply in teacher.complete(requests):
                    if reply.finish != "stop":
                        continue
                    fields = orjson.loads(reply.text)
                    text = "\n".join(value if isinstance(value, str) else "\n".join(value) for value in fields.values())
                    if CJK.search(text) or detector.compute_language_confidence(text, Language.ENGLISH) != 1.0:
                        continue
                    for record in render_records(prompt_type, by_id[reply.id], fields, reply.id):
                        file.write(orjson.dumps([message.model_dump() for message in record.messages]) + b"\n")
                        written += 1
        return written

    cpu, begun = _cpu(resource.RUSAGE_SELF), time.perf_counter()
    return asyncio.run(loop()), time.perf_counter() - begun, _cpu(resource.RUSAGE_SELF) - cpu


def best_of(count: int, argv: list[str]) -> float:
    """Shortest wall time of `count` runs, in seconds."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        subprocess.run(argv, check=True, capture_output=True, cwd=REPOSITORY)
        times.append(time.perf_counter() - begun)
    return min(times)


def _told(records: int, seconds: float, cpu: float) -> dict[str, float]:
    told = {"records": records, "seconds": round(seconds, 2), "records_per_second": round(records / seconds)}
    return told | {"cpu_ms_a_record": round(1000 * cpu / records, 3)}


def main() -> None:
    """Measure and print."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, for children too
    with tempfile.TemporaryDirectory() as name:
        ours = factory_work(Path(name))
        beside = bare_loop(Path(name))
    help_ = best_of(
        5,
        [sys.executable, "-c", "import sys; sys.argv = ['factory', '--help']; from generator.cli import main; main()"],
    )
    typer = best_of(5, [sys.executable, "-c", "import typer"])
    print(
        json.dumps(
            {
                "factory_work": _told(*ours),
                "bare_loop": _told(*beside),
                "ratio": round(ours[0] / ours[1] / (beside[0] / beside[1]), 2),
                "ratio_of_cpu": round(ours[0] / ours[2] / (beside[0] / beside[2]), 2),
                "help_seconds": round(help_, 3),
                "import_typer_seconds": round(typer, 3),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
