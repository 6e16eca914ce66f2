"""`factory prompts list | show | new | lint`, `factory preview` and `factory check`: the prompt types, a look at one, the gates.

Guarantees: standard output has the result alone (with `--json` one document; `check` one a line). Nothing is written but
by `new`, which overwrites nothing, and by `lint --write`. Cost: nothing heavy is imported until a command runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from foundation.prompt_type import Phase, PromptType
    from generator.preview import Look

JSON = typer.Option(False, "--json", help="Print one JSON document.")


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    prompts = typer.Typer(help="The prompt types: the factory's, and a workspace's own.", no_args_is_help=True)
    prompts.command("list")(list_)
    prompts.command("show")(show)
    prompts.command("new")(new)
    prompts.command("lint")(lint)
    app.add_typer(prompts, name="prompts")
    app.command("preview")(preview)
    app.command("check")(check)


def list_(
    names: list[str] = typer.Argument(None, metavar="[ID|FAMILY]...", help="Only these."), as_json: bool = JSON
) -> None:
    """List the prompt types, and say which of them the rules teacher can make."""
    from foundation.console import emit_json, say, table
    from generator.catalogue import load_catalogue, select
    from generator.teachers.rules.teacher import MAKERS

    own = _own()
    types = sorted(select(names, own), key=lambda one: one.id) if names else list(load_catalogue(own=own).values())
    if as_json:
        emit_json([_summary(prompt_type) for prompt_type in types])
        return
    rows = [
        (t.id, t.version, ", ".join(t.fields), ", ".join(t.needs), t.unit, t.id in MAKERS, t.summary) for t in types
    ]
    table(("id", "version", "fields", "needs", "unit", "rules", "summary"), rows)
    without = [one.id for one in types if one.id not in MAKERS]
    tail = f"; a language model is needed for {', '.join(without)}" if without else ""
    say(f"{len(types):,} prompt types; the rules teacher makes {len(types) - len(without):,} of them{tail}")


def show(id_: str = typer.Argument(..., metavar="ID", help="family/name"), as_json: bool = JSON) -> None:
    """Show one prompt type: its fields, its phases, its templates, its fingerprint and its file."""
    from foundation.console import emit_json
    from foundation.errors import UsageError
    from generator.catalogue import select

    found = select([id_], _own())
    if found[0].id != id_:
        names = ", ".join(prompt_type.id for prompt_type in found)
        raise UsageError(f"{id_} is a family", mend=f"name one of {names}")
    prompt_type = found[0]
    summary = _summary(prompt_type)
    if as_json:
        emit_json(summary | prompt_type.model_dump())
        return
    print(f"{prompt_type.id}  version {prompt_type.version}  fingerprint {prompt_type.fingerprint}")
    print(f"{prompt_type.summary}\n")
    about = {name: summary[name] for name in ("file", "needs", "checks", "unit", "weight", "each", "partner")}
    for name, value in {**about, "rules": "yes" if summary["rules"] else "no"}.items():
        print(f"{name:10}{(', '.join(value) if isinstance(value, list) else value) or '-'}")
    if prompt_type.options:
        options = prompt_type.options
        right = f"; the number of the right one in {options.right}" if options.right else "; in their true order"
        print(f"{'options':10}{', '.join(options.fields)}{right}; {options.order}")
    for phase in prompt_type.chain:
        _print_phase(phase, alone=not prompt_type.phases)
    for turn in prompt_type.turns:
        print(f"\n--- record: {turn.role}{'' if turn.trained else ', untrained'}\n{turn.template}")


def new(
    id_: str = typer.Argument(..., metavar="FAMILY/NAME", help="The new type's id."),
    start: str = typer.Option("", "--from", metavar="ID", help="Begin with a copy of that type."),
    folder: Path | None = typer.Option(None, "--folder", metavar="DIR", help="Default: the workspace's prompts/."),
) -> None:
    """Write a prompt file to begin with. `--from` the id of one of the project's own puts yours in its place here."""
    from foundation.console import say
    from foundation.errors import UsageError
    from foundation.workspace import Workspace
    from generator.scaffold import scaffold

    own = _own()
    if folder is None:
        try:
            folder = Workspace.find().prompts
        except UsageError as error:
            mend = f"{error.mend}; or name a folder with `--folder DIR`"
            raise UsageError(error.what, where=error.where, mend=mend) from error
    path = scaffold(id_, folder, start, own)
    print(path)
    if folder.resolve() != own:
        home = own or "the prompts/ of a workspace"
        say(f"next: edit it, then `factory prompts lint {path}`; it can be used once it lies in {home}")
        return
    say(f"next: edit it; `factory prompts lint {id_}`; `factory preview --prompt-type {id_}`;")
    say(f"then `factory prompts lint --write {id_}` records this version, and `factory enqueue --prompt-type {id_}`")


def lint(
    names: list[str] = typer.Argument(None, metavar="[ID|FAMILY|FILE]...", help="Default: all there are."),
    write: bool = typer.Option(False, "--write", help="Record new types and raised versions in versions.json."),
    as_json: bool = JSON,
) -> None:
    """Check prompt files, the project's and the workspace's own. Exit 1 if any has an error."""
    from foundation.console import emit_json, say
    from generator import lint as linting

    report = linting.lint(names or (), _own(), _planned())
    recorded = linting.record(report) if write else []
    marks = {(one.id, one.version) for one in recorded}
    if recorded:  # what is recorded now is no longer to be warned of
        report = linting.lint(names or (), _own(), _planned())
    if as_json:
        document = {
            "ok": not report.errors,
            "files": report.files,
            "errors": len(report.errors),
            "warnings": len(report.problems) - len(report.errors),
            "problems": [problem.document() for problem in report.problems],
            "recorded": [{"id": id_, "version": version} for id_, version in sorted(marks)],
        }
        emit_json(document)
    else:
        for problem in report.problems:
            level = "warning" if problem.warning else "error"
            print(f"{_here(problem.file)}:{problem.line}: {level}: {problem.what}\n  mend: {problem.mend}")
        for id_, version in sorted(marks):
            say(f"recorded {id_}, version {version}")
        warnings = len(report.problems) - len(report.errors)
        say(f"{report.files:,} prompt files, {len(report.errors):,} errors, {warnings:,} warnings")
    if report.errors:
        raise typer.Exit(1)


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

    from foundation.console import emit_json, say
    from foundation.corpus import Corpus
    from foundation.records import SplitPolicy
    from foundation.workspace import Workspace
    from generator.catalogue import select
    from generator.preview import look, sample, spent
    from generator.teachers.make import teacher_from_settings

    workspace = Workspace.find()
    split = workspace.settings.split
    types = select(prompt_type, workspace.prompts)
    corpus = Corpus(workspace.store)
    places = sample(corpus, count)
    policy = SplitPolicy(key=split.key, unseen=split.unseen, phrasing=split.phrasing)
    named = f"{len(types):,} prompt types" if len(types) > 1 else types[0].id
    say(
        f"about to ask the teacher about {len(places):,} snippet{'s' if len(places) != 1 else ''} x {named}; nothing is written"
    )
    with teacher_from_settings(workspace, purpose="factory preview", settle=False) as ready:
        looks = asyncio.run(look(ready.teacher, types, places, corpus, policy, round_))
    if as_json:
        emit_json([one.document() for one in looks])
        return
    for one in looks:
        _print(one)
    whole = spent(looks)
    say(
        f"{whole['items']:,} items, {whole['accepted']:,} accepted, {whole['records']:,} records; {whole['calls']:,} calls, "
        f"{whole['prompt_tokens']:,} tokens read and {whole['completion_tokens']:,} written, {whole['seconds']:,.1f} s of the teacher's"
    )


def check(
    file: Path | None = typer.Argument(
        None, metavar="[FILE]", help="JSON lines or plain lines; default: standard input."
    ),
    as_json: bool = typer.Option(False, "--json", help='Print {"ok": ..., "gate": ..., "reason": ...} for each line.'),
) -> None:
    """Run the gates over a file. Exit 1 if any line is rejected.

    A record is judged by shape, standing alone, languages and duplicates in its unit; any other line by shape and languages. What needs the passage (grounded answers, options) is judged when a record is made.
    """
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


def _planned() -> list[PromptType]:
    """The prompt types as the workspace one stands in planned them; what another version of the factory planned is passed over."""
    from foundation.errors import FactoryError, UsageError
    from foundation.parse import parse
    from foundation.prompt_type import PromptType
    from foundation.workspace import Workspace

    try:
        store = Workspace.find().store
    except UsageError:
        return []
    found = []
    for name in store.list("prompt_types"):
        try:
            found.append(parse(PromptType, store.get(name), name))
        except FactoryError:
            continue
    return found


def _here(path: Path) -> Path:
    """A path as one would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _print_phase(phase: Phase, *, alone: bool) -> None:
    """Fields and templates of one call to the teacher."""
    name = "" if alone else f"{phase.name}: "
    sampling = phase.sampling
    print(f"\n{name}temperature {sampling.temperature}, top_p {sampling.top_p}, max_tokens {sampling.max_tokens}")
    for field, spec in phase.fields.items():
        lengths = f"{spec.min} to {spec.max} characters"
        if spec.type == "choice":
            lengths = f"one of {', '.join(spec.values)}"
        elif spec.type == "list":
            each = f" (each: {', '.join(spec.keys)})" if spec.keys else ""
            lengths = f"{spec.items_min} to {spec.items_max} entries{each} of {lengths}"
        print(f"  {field}: {spec.type}, {lengths}. {spec.description}")
    for heading, text in (("system", phase.system), ("user", phase.user)):
        print(f"\n--- {name}{heading}\n{text}")


def _summary(prompt_type: PromptType) -> dict[str, object]:
    from generator.scaffold import file_of
    from generator.teachers.rules.teacher import MAKERS

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
        "phases": [phase.name for phase in prompt_type.chain],
        "each": prompt_type.each,
        "partner": prompt_type.partner or "",
        "rules": prompt_type.id in MAKERS,
        "file": str(file_of(prompt_type.id, _own())),
    }


def _print(one: Look) -> None:
    from rich.text import Text

    from foundation.console import plain, show

    def heading(text: str, style: str = "cyan") -> None:
        show(Text(plain(text), style, no_wrap=True, overflow="ignore"))

    heading(f"=== {one.prompt_type}  {one.snippet.title}, snippet {one.snippet.index} ({one.snippet.id})", "bold")
    for call in one.calls:
        for message in call.request.messages:
            heading(f"\n--- prompt: {message.role}")
            print(plain(message.content))
        told = call.document()
        cost = f"{told['prompt_tokens']:,} tokens read, {told['completion_tokens']:,} written, {told['seconds']:,.2f} s"
        heading(f"\n--- answer to {told['call']}: {told['finish'] or told['detail']}; {cost}", "magenta")
        if told["text"]:
            print(plain(told["text"]))
    for record in one.outcome.records:
        ordering = f", {record.ordering}" if record.ordering else ""
        heading(f"\n--- record {record.id} ({record.split}{ordering}) by {record.teacher}", "green")
        for message in record.messages:
            print(f"{message.role}: {plain(message.content)}")
    for reject in one.outcome.rejects:
        where = f" in {reject.field}" if reject.field else ""
        heading(f"\n--- rejected by {reject.gate}: {reject.reason}{where}", "red")
        if not one.calls or reject.text not in {call.reply.text for call in one.calls if call.reply}:
            print(plain(reject.text))
    print()
