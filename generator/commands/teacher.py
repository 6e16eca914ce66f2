"""`factory teacher profiles | tune`: the settings of the managed engine by size of card, and the best ones for these prompts.

Guarantees: standard output has the result alone, with `--json` one document. `tune` says what it will try, and for how long,
before it does; factory.toml changes once, at its end, whole or not at all. Cost: `tune` takes the minutes asked for.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from foundation.prompt_type import PromptType
    from foundation.tables import TeacherSettings
    from foundation.workspace import Workspace
    from generator.tune import Candidate, Dimension, Verdict

JSON = typer.Option(False, "--json", help="Print one JSON document.")
TRIALS = 2  # of a dimension, as a guess
START = 60.0  # seconds until an engine is ready, as a guess
BRIEF = 10.0  # seconds of a trial below which an engine's rate is chance


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    teacher = typer.Typer(
        help="The teacher: settings by size of card, and the best for your prompts.", no_args_is_help=True
    )
    teacher.command("profiles")(profiles)
    teacher.command("tune")(tune)
    app.add_typer(teacher, name="teacher")


def profiles(as_json: bool = JSON) -> None:
    """List the profiles of the managed vLLM server, and mark the one that is chosen here."""
    from dataclasses import asdict

    from foundation.console import emit_json, say, table
    from foundation.errors import UsageError
    from foundation.profiles import PROFILES, choose
    from foundation.tables import TeacherSettings
    from foundation.workspace import Workspace

    trouble = ""
    try:
        settings = Workspace.find().settings.teacher
    except UsageError:  # outside a workspace: as a new one would have it
        settings = TeacherSettings()
    try:
        chosen = choose(settings).name
    except UsageError as error:
        chosen, trouble = "", error.what
    if as_json:
        emit_json([asdict(one) | {"chosen": one.name == chosen} for one in PROFILES.values()])
        return
    rows = [
        (
            "*" if one.name == chosen else "",
            *(one.name, one.card, one.model, one.quantization or "none", one.context, one.concurrency),
        )
        for one in PROFILES.values()
    ]
    table(("", "profile", "card", "model", "quantised", "context", "sequences"), rows)
    for one in PROFILES.values():
        print(f"\n{one.name}: {one.why}\n  {' '.join(one.arguments)}")
    say(trouble or f"* is what teacher.profile = {settings.profile} stands for here: {chosen}")


def tune(
    minutes: float = typer.Option(10.0, "--minutes", min=0.02, max=600, help="How long it may take."),
    prompt_type: list[str] = typer.Option(
        [], "--prompt-type", metavar="T", help="An id or a family; may be repeated. Default: what is planned, else all."
    ),
    seed: int = typer.Option(0, "--seed", help="Another seed asks about other units."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be tried; ask nothing, write nothing."),
    as_json: bool = JSON,
) -> None:
    """Try a few settings of the teacher on your own prompts, and write the best into factory.toml."""
    from foundation.console import emit_json
    from foundation.corpus import Corpus
    from foundation.errors import UsageError
    from foundation.records import SplitPolicy
    from foundation.workspace import Workspace
    from generator import tune as tuning
    from generator import tune_steps as steps
    from generator.teachers.make import settled_backend

    workspace = Workspace.find()
    settings, split = workspace.settings.teacher, workspace.settings.split
    backend = settled_backend(workspace)
    if backend == "rules":
        raise UsageError(
            "the teacher is `rules`: it computes in the workers, and has nothing to tune",
            where="teacher.backend in factory.toml",
            mend="set teacher.backend to vllm or openai",
        )
    types = _types(workspace, prompt_type)
    profile = _profile(workspace) if backend == "vllm" else None
    found = steps.dimensions(backend, settings, profile, steps.most_at_once(types))
    base = tuning.Candidate("as it is", settings.concurrency, tuple(settings.args))
    trial = _seconds(60 * minutes, found, managed=backend == "vllm")
    planned = steps.first_steps(base, found)
    _announce(backend, types, planned, minutes, trial)
    policy = SplitPolicy(key=split.key, unseen=split.unseen, phrasing=split.phrasing)
    units = tuning.Units(types, Corpus(workspace.store), policy, seed)
    if dry_run:
        document = {
            "backend": backend,
            "candidates": ["as it is", *planned],
            "minutes": minutes,
            "trial_seconds": trial,
        }
        emit_json(document | {"dry_run": True}) if as_json else print("\n".join(["as it is", *planned]))
        return
    workers = workspace.settings.work.workers_for(rules=False)
    tuner = tuning.Tuner(workspace, units, policy, workers=workers, seconds=60 * minutes, trial=trial)
    file = workspace.root / "factory.toml"
    steps.check_writable(file)  # not after ten minutes
    verdict = tuner.run(found)
    kept = _write(file, verdict.best, settings) if verdict.best else None
    hidden = steps.hidden_by(os.environ, verdict.best, settings) if verdict.best else []
    enough = _enough(minutes, verdict, found, managed=backend == "vllm") if verdict.skipped else None
    if as_json:
        emit_json(
            _document(verdict, verdict.best or base, enough)
            | {"hidden_by": hidden, "before": str(kept) if kept else None}
        )
        return
    _print(verdict, base, hidden, str(kept.name) if kept else "", enough)


def _write(file: Path, best: Candidate, settings: TeacherSettings) -> Path:
    """Put it into factory.toml. Returns where the text before is kept."""
    from foundation.errors import Failure
    from generator import tune_steps as steps

    try:
        return steps.write(file, best, settings)
    except OSError as error:
        raise Failure(
            f"what was found best could not be written: {error.strerror or error}",
            where=str(file),
            mend=f"write it there yourself: {steps.told(best)}",
        ) from error


def _document(verdict: Verdict, best: Candidate, enough: int | None) -> dict[str, Any]:
    return {
        "trials": [one.document() for one in verdict.trials],
        "skipped": verdict.skipped,
        "minutes_for_all": enough,
        "undone": verdict.undone,
        "too_busy": verdict.busy,
        "gain": round(verdict.gain, 4),
        "noise": round(verdict.noise, 4),
        "changed": bool(verdict.best),
        "concurrency": best.concurrency,
        "args": list(best.args),
    }


def _profile(workspace: Workspace) -> Any:
    from foundation.profiles import choose

    return choose(workspace.settings.teacher)


def _types(workspace: Workspace, names: list[str]) -> list[PromptType]:
    """Those named; else those planned, as far as they are in the catalogue; else all of it."""
    from generator.catalogue import load_catalogue, select

    if names:
        return select(names, workspace.prompts)
    catalogue = load_catalogue(own=workspace.prompts)
    planned = {name.rpartition("/")[2].removesuffix(".json") for name in workspace.store.list("prompt_types")}
    return [one for one in catalogue.values() if one.fingerprint in planned] or list(catalogue.values())


def _seconds(whole: float, found: list[Dimension], *, managed: bool) -> float:
    """How long one trial may take, if all are to fit: thrice the settings in force, and a few of each dimension."""
    from generator.tune import LONGEST

    each = (whole - START * _starts(found, managed=managed)) / (3 + TRIALS * len(found))
    return min(LONGEST, max(each, min(BRIEF, whole / 8)))


def _starts(found: list[Dimension], *, managed: bool) -> int:
    """Of an engine: as it is, for all but concurrency a few, and as it is again."""
    return 2 + TRIALS * (len(found) - 1) if managed else 0


def _enough(minutes: float, verdict: Verdict, found: list[Dimension], *, managed: bool) -> int:
    """Whole minutes in which all that is planned fits, with an engine that starts as slowly as this one did."""
    starts, trials = _starts(found, managed=managed) * max(START, verdict.start), 3 + TRIALS * len(found)
    wanted = int(minutes) + 1
    while starts + trials * _seconds(60.0 * wanted, found, managed=managed) > 60.0 * wanted + 1:
        wanted += 1
    return wanted


def _announce(backend: str, types: list[PromptType], planned: list[str], minutes: float, trial: float) -> None:
    """What is about to be tried."""
    from foundation.console import say

    named = ", ".join(one.id for one in types[:6]) + (f" and {len(types) - 6:,} more" if len(types) > 6 else "")
    of_types = f"{len(types):,} prompt type{'s' if len(types) > 1 else ''} ({named})"
    say(f"tuning {backend} on {of_types}, for up to {minutes:g} minutes, {trial:,.1f} s a trial")
    say(
        f"first as it is, twice; then, one after the other and keeping what is better: {'; '.join(planned) or 'nothing'}"
    )
    say("the teacher is asked about your own text; no record is kept; Ctrl-C ends it and changes nothing")


def _print(verdict: Verdict, base: Candidate, hidden: list[str], kept: str, enough: int | None) -> None:
    from foundation.console import say, table

    rows = [
        (
            one.candidate.why,
            "-" if one.error else f"{one.tokens / one.seconds:,.0f}",
            "-" if one.error else f"{one.calls / one.seconds:,.1f}",
            f"{one.accepted / one.items:.0%}" if one.items else "-",
            one.error,
        )
        for one in verdict.trials
    ]
    table(("candidate", "tokens/s", "calls/s", "accepted", ""), rows)
    if verdict.skipped and verdict.others:
        print(f"\nno time for: {', '.join(verdict.skipped)}; --minutes {enough} would do for all")
    if verdict.undone and not verdict.busy:
        print(f"\nundone, as noise may explain it: {', '.join(verdict.undone)}")
    best = verdict.best
    if best is None:
        print(f"\n{_nothing(verdict, enough)}; factory.toml was not changed")
        return
    print(f"\n{verdict.gain:+.1%} against {verdict.noise:.1%} of noise; in factory.toml, [teacher]:")
    if best.concurrency != base.concurrency:
        print(f"- concurrency = {base.concurrency}\n+ concurrency = {best.concurrency}")
    if best.args != base.args:
        print(f"- args = {list(base.args)}\n+ args = {list(best.args)}")
    print(f"what stood there is in {kept}")
    if hidden:
        say(f"warning: {', '.join(hidden)} in the environment overrules what was written; unset it")


def _nothing(verdict: Verdict, enough: int | None) -> str:
    """Why nothing changes."""
    if verdict.busy:
        return (
            f"the machine is too busy to tell: as it is, its rates lie {verdict.noise:.0%} apart; try again when nothing else "
            "runs on it, with more --minutes"
        )
    if not verdict.others:
        if enough is None:
            return "there was nothing else to try"
        return f"nothing else was tried: there was no time for {', '.join(verdict.skipped)}; --minutes {enough} would do for all"
    best = f"the best: {verdict.gain:+.1%}; " if verdict.gain else ""
    return f"nothing is better than it is by more than noise ({best}noise: {verdict.noise:.1%})"
