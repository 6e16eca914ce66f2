"""`factory prompts list | show`, `factory preview` and `factory check`: the prompt types, a look at one, the gates.

Guarantees: standard output has the result alone (with `--json` one document; `check` one a line). Nothing is written to
the workspace. Cost: nothing heavy is imported until a command runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from foundation.prompt_type import PromptType
    from generator.preview import Look

JSON = typer.Option(False, "--json", help="Print one JSON document.")


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    prompts = typer.Typer(help="The prompt types that come with the factory.", no_args_is_help=True)
    prompts.command("list")(list_)
    prompts.command("show")(show)
    app.add_typer(prompts, name="prompts")
    app.command("preview")(preview)
    app.command("check")(check)


def list_(as_json: bool = JSON) -> None:
    """List every prompt type."""
    from foundation.console import emit_json, table
    from generator.catalogue import load_catalogue

    types = load_catalogue(own=_own()).values()
    if as_json:
        emit_json([_summary(prompt_type) for prompt_type in types])
        return
    rows = [(t.id, t.version, ", ".join(t.fields), ", ".join(t.needs), t.unit, t.summary) for t in types]
    table(("id", "version", "fields", "needs", "unit", "summary"), rows)


def show(id_: str = typer.Argument(..., metavar="ID", help="family/name"), as_json: bool = JSON) -> None:
    """Show one prompt type: its fields, its templates and its fingerprint."""
    from foundation.console import emit_json
    from foundation.errors import UsageError
    from generator.catalogue import select

    found = select([id_], _own())
    if found[0].id != id_:
        names = ", ".join(prompt_type.id for prompt_type in found)
        raise UsageError(f"{id_} is a family", mend=f"name one of {names}")
    prompt_type = found[0]
    if as_json:
        emit_json(_summary(prompt_type) | prompt_type.model_dump())
        return
    print(
        f"{prompt_type.id}  version {prompt_type.version}  fingerprint {prompt_type.fingerprint}\n{prompt_type.summary}\n"
    )
    for name, spec in prompt_type.fields.items():
        print(f"  {name}: {spec.type}, {spec.min} to {spec.max} characters. {spec.description}")
    for heading, text in (("system", prompt_type.system), ("user", prompt_type.user)):
        print(f"\n--- {heading}\n{text}")
    for turn in prompt_type.turns:
        print(f"\n--- record: {turn.role}\n{turn.template}")


def preview(
    prompt_type: list[str] = typer.Option(
        ..., "--prompt-type", metavar="T", help="An id or a family; may be repeated."
    ),
    count: int = typer.Option(3, "-n", min=1, max=1000, metavar="N", help="How many snippets, spread over the corpus."),
    round_: int = typer.Option(0, "--round", min=0, help="As in that round."),
    as_json: bool = JSON,
) -> None:
    """Ask the teacher about a few snippets and show prompt, record or reject; writes nothing."""
    import asyncio

    from foundation.console import emit_json
    from foundation.corpus import Corpus
    from foundation.records import SplitPolicy
    from foundation.workspace import Workspace
    from generator.catalogue import select
    from generator.preview import look, sample
    from generator.teachers.make import teacher_from_settings

    workspace = Workspace.find()
    split = workspace.settings.split
    types = select(prompt_type, workspace.prompts)
    corpus = Corpus(workspace.store)
    places = sample(corpus, count)
    policy = SplitPolicy(key=split.key, unseen=split.unseen, phrasing=split.phrasing)
    with teacher_from_settings(workspace, purpose="factory preview", settle=False) as ready:
        looks = asyncio.run(look(ready.teacher, types, places, corpus, policy, round_))
    if as_json:
        emit_json([one.document() for one in looks])
        return
    for one in looks:
        _print(one)


def check(
    file: Path | None = typer.Argument(
        None, metavar="[FILE]", help="JSON lines or plain lines; default: standard input."
    ),
    as_json: bool = typer.Option(False, "--json", help='Print {"ok": ..., "gate": ..., "reason": ...} for each line.'),
) -> None:
    """Run the gates over a file of records, JSON lines or plain lines. Exit 1 if any line is rejected."""
    from contextlib import nullcontext

    from foundation.console import say
    from foundation.errors import UsageError
    from generator.catalogue import load_catalogue
    from generator.gates import Gates
    from generator.gates.files import check_lines

    if file is not None and str(file) != "-" and not file.is_file():
        raise UsageError("no such file", where=str(file), mend="name a file, or give the lines on standard input")
    name = "standard input" if file is None or str(file) == "-" else str(file)
    total = rejected = 0
    with nullcontext(sys.stdin.buffer) if name == "standard input" else open(name, "rb") as lines:
        for number, result in enumerate(check_lines(lines, name, Gates(), load_catalogue(own=_own())), 1):
            total += 1
            rejected += not result.ok
            if as_json:
                print(result.model_dump_json())
            elif not result.ok:
                print(f"{number}: {result.gate}: {result.reason}{f' in {result.field}' if result.field else ''}")
    if not total:
        raise UsageError("there is no line to check", where=name, mend="give it JSON lines or plain lines")
    say(f"{total:,} lines, {total - rejected:,} accepted, {rejected:,} rejected")
    if rejected:
        raise typer.Exit(1)


def _own() -> Path | None:
    """The prompt types of the workspace one stands in, if one does."""
    from foundation.errors import UsageError
    from foundation.workspace import Workspace

    try:
        return Workspace.find().prompts
    except UsageError:
        return None


def _summary(prompt_type: PromptType) -> dict[str, object]:
    return {
        "id": prompt_type.id,
        "family": prompt_type.family,
        "version": prompt_type.version,
        "fingerprint": prompt_type.fingerprint,
        "summary": prompt_type.summary,
        "fields": list(prompt_type.fields),
        "needs": list(prompt_type.needs),
        "checks": list(prompt_type.checks),
        "unit": prompt_type.unit,
        "weight": prompt_type.weight,
    }


def _print(one: Look) -> None:
    print(f"=== {one.prompt_type}  {one.snippet.title}, snippet {one.snippet.index} ({one.snippet.id})")
    for request in one.requests:
        for message in request.messages:
            print(f"\n--- prompt: {message.role}\n{message.content}")
    for record in one.outcome.records:
        ordering = f", {record.ordering}" if record.ordering else ""
        print(f"\n--- record {record.id} ({record.split}{ordering}) by {record.teacher}")
        for message in record.messages:
            print(f"{message.role}: {message.content}")
    for reject in one.outcome.rejects:
        print(
            f"\n--- rejected by {reject.gate}: {reject.reason}{f' in {reject.field}' if reject.field else ''}\n{reject.text}"
        )
    print()
