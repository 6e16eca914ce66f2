"""What a stage switch of `trainer run --orchestrate` costs beyond the processes' own start; wanted: under 2 s.

Three pairs, each in turns and in changing order, so that other work on the machine disturbs both alike:
(a) `trainer.stages.run_stage` with a bare interpreter that ends at once, beside `subprocess.run` of the very same command;
(b) the same with a process that imports what a training stage imports (torch and the trainer), then ends;
(c) a whole orchestrated run over a tiny workspace, every stage real, beside the same commands run bare one after another
    over the same files. The orchestrator's own start and end are the same command over the finished run, and are taken
    off: what is left, by stage, is the switch with all that goes with it (state kept, rounds recorded, pictures drawn).
Prints one JSON document and writes it to benchmarks/results/stage_switch.json: seconds of the clock (medians, and the
quickest of each, since other work disturbs in one direction only) and seconds spent on a core by all processes together,
which other work hardly touches. Absolute figures are this machine's own. Without a GPU nothing waits for its memory.

    .venv/bin/python benchmarks/stage_switch.py [--repeat 30] [--rounds-repeat 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from trainer.stages import Lane, Signals, run_stage  # noqa: E402

RESULT = REPOSITORY / "benchmarks" / "results" / "stage_switch.json"
GOAL = 2.0  # seconds a switch may cost
WARM = 2  # repetitions before those that count: the files come into the page cache
MODULES = {
    "bare_interpreter": "",
    "training_imports": "import trainer.cli, trainer.commands.run, trainer.loop, trainer.setup, torch\n",
}
# Runs the orchestrator with stages that note their command lines and then become the very interpreter they are.
NOTED = "import sys; sys.executable = sys.argv.pop(1); from trainer.cli import main; main()"
NOTING = '#!/bin/sh\nprintf "%s\\0" "$@" >> {list}; printf "\\n\\0" >> {list}\nexec {python} "$@"\n'


def as_stage(module: str, folder: Path) -> None:
    """The orchestrator's way."""
    lane = Lane(mark=folder.name, folder=folder, signals=Signals())
    ended = run_stage(lane, module, [], name="a stage", log=folder / "stage.log")
    assert ended.code == 0, ended.complaint


def bare(argv: Sequence[str], folder: Path) -> None:
    """The same process and no more: its output goes to a file as well."""
    environment = {**os.environ, "FACTORY_WORKSPACE": str(folder), "PYTHONPATH": _path()}
    with open(folder / "bare.log", "wb") as log:
        subprocess.run(argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)


def _path() -> str:
    return os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds of the clock, and of all cores: this process and those it ended."""
    spent, began = _on_cores(), time.perf_counter()
    work()
    return time.perf_counter() - began, _on_cores() - spent


def _on_cores() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def in_turns(one: Callable[[], None], other: Callable[[], None], repeat: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of both, the first of them first every second time."""
    seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
    for turn in range(repeat + WARM):
        pair = [("ours", one), ("bare", other)]
        for name, work in pair if turn % 2 else reversed(pair):
            taken = timed(work)
            if turn >= WARM:
                seconds[name].append(taken)
    return seconds


def one_stage(text: str, repeat: int) -> dict[str, Any]:
    """(a) and (b): a stage that is the module `text`."""
    with tempfile.TemporaryDirectory(prefix="stage-switch-") as temporary:
        folder = Path(temporary)
        (folder / "modules").mkdir()
        (folder / "modules" / "a_stage.py").write_text(text)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = str(folder / "modules")
        try:
            argv = [sys.executable, "-P", "-m", "a_stage"]
            found = in_turns(lambda: as_stage("a_stage", folder), lambda: bare(argv, folder), repeat)
        finally:
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before
    return {"repetitions": repeat, **compared(found["ours"], found["bare"])}


def compared(
    ours: Sequence[tuple[float, float]], alone: Sequence[tuple[float, float]], stages: int = 1
) -> dict[str, Any]:
    """What both took, and what one of the `stages` took more with us; a minus is other work's."""
    clock, cores = ([[one[at] for one in side] for side in (ours, alone)] for at in (0, 1))
    gaps = [one - other for one, other in zip(*clock, strict=True)]
    return {
        "seconds": round(median(clock[0]), 3),
        "bare_seconds": round(median(clock[1]), 3),
        "ratio": round(median(clock[0]) / median(clock[1]), 3),
        "switch_seconds": {
            "median": round(median(gaps) / stages, 3),
            "of_the_quickest": round((min(clock[0]) - min(clock[1])) / stages, 3),
            "on_a_core": round((median(cores[0]) - median(cores[1])) / stages, 3),
        },
    }


def whole_rounds(repeat: int) -> dict[str, Any]:
    """(c): two rounds of real stages on a workspace of a few hundred records."""
    from tests.trainer.small_run import packed_workspace

    stages, ours, alone = 0, [], []
    with tempfile.TemporaryDirectory(prefix="stage-switch-") as temporary:
        fresh, work = Path(temporary) / "fresh", Path(temporary) / "w"
        packed_workspace(fresh, 2, epochs=1.0, evaluate_every=4, checkpoint_every=2)
        with open(fresh / "factory.toml", "a", encoding="utf-8") as file:
            file.write("\n[orchestrate]\nrounds = 2\n\n[judge]\nanswers = 3\n")
        for _ in range(repeat):
            listed = Path(temporary) / "commands"
            listed.unlink(missing_ok=True)
            python = Path(temporary) / "python"
            python.write_text(NOTING.format(list=listed, python=sys.executable))
            python.chmod(0o755)
            argv = [sys.executable, "-c", NOTED, str(python), "run", "--orchestrate", "--json"]
            _copy(fresh, work)
            whole = timed(lambda argv=argv: bare(argv, work))
            nothing = timed(lambda argv=argv: bare(argv, work))  # all is done: its own start and end
            lines = [line.split("\0")[:-1] for line in listed.read_text().split("\n\0") if line]
            _copy(fresh, work)
            parts = [timed(lambda line=line: bare([sys.executable, *line], work)) for line in lines]
            stages = len(lines)
            ours.append((whole[0] - nothing[0], whole[1] - nothing[1]))
            alone.append((sum(part[0] for part in parts), sum(part[1] for part in parts)))
    return {"repetitions": repeat, "stages": stages, **compared(ours, alone, stages)}


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)  # as links, where the packs are links


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=30, help="of single stages")
    parser.add_argument("--rounds-repeat", type=int, default=3, help="of whole orchestrated runs; 0: none")
    parser.add_argument("--json", type=Path, default=RESULT, help="write the document to this file")
    chosen = parser.parse_args()
    document: dict[str, Any] = {name: one_stage(text, chosen.repeat) for name, text in MODULES.items()}
    if chosen.rounds_repeat:
        document["whole_rounds"] = whole_rounds(chosen.rounds_repeat)
    document |= {
        "goal_switch_seconds": GOAL,
        "reached": all(document[name]["switch_seconds"]["median"] < GOAL for name in list(document)),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(document, indent=2))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
