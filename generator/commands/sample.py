"""`factory sample`: some committed records, or rejects, drawn at random, each beside the snippet it was made of.

Guarantees: standard output has the draw alone (with `--json` one document); nothing in a model's text reaches the terminal
but what can be read: control characters are written as escapes. Colours only on a terminal, and not with NO_COLOR.
Cost: see `generator/sample.py`; rich draws a record in some milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.text import Text

    from foundation.records import Snippet
    from foundation.workspace import Workspace
    from generator.sample import Filter, Shown

WIDE = 100  # columns from which on snippet and record stand side by side
SPLITS = ("train", "phrasing", "unseen")
TAKEN = "bold green"
ROLES = {"system": "magenta", "user": "cyan", "assistant": "green"}


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("sample")(sample)


def sample(
    prompt_type: list[str] = typer.Option([], "--prompt-type", metavar="T", help="An id or a family; may be repeated."),
    count: int = typer.Option(
        5, "-n", min=1, max=10_000, metavar="N", help="Of each prompt type named; of all together where none is."
    ),
    rejects: bool = typer.Option(False, "--rejects", help="Rejects instead of records."),
    split: str = typer.Option("", "--split", metavar="train|phrasing|unseen", help="Only of that split."),
    gate: str = typer.Option("", "--gate", metavar="GATE[/CODE]", help="Only what that gate rejected."),
    seed: int | None = typer.Option(
        None, "--seed", metavar="N", help="The same draw again; default: another each time."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Show some committed records, or rejects, drawn at random, each beside the snippet it was made of."""
    import secrets

    from foundation.console import emit_json, say, show
    from foundation.errors import UsageError
    from foundation.workspace import Workspace
    from generator.sample import Filter, document, draw, with_texts

    workspace = Workspace.find()
    if split not in ("", *SPLITS):
        raise UsageError(f"no such split: {split}", mend=f"take one of {', '.join(SPLITS)}")
    first, _, code = gate.partition("/")
    wanted = Filter(rejects or bool(gate), split, first, code)
    groups = _groups(workspace, prompt_type, wanted)
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    shown: list[Shown] = []
    empty: list[str] = []
    broken = 0
    for name, types in groups:
        drawn = draw(workspace, types, count, wanted, f"{seed} {name}")
        shown += with_texts(workspace.store, drawn.outputs)
        broken += drawn.broken
        if not drawn.outputs:
            empty.append(name)
    if as_json:
        emit_json({"seed": seed, "samples": [document(one) for one in shown], "broken_lines": broken})
        return
    for number, one in enumerate(shown, 1):
        show(*_picture(one, f"{number} of {len(shown)}"))
    for name in empty:
        print(_none(workspace, name, wanted))
    if broken:
        say(f"{broken:,} broken lines were met and passed over; `factory report` names the first")
    if shown:
        say(f"the same again: --seed {seed}")


def _groups(workspace: Workspace, asked: list[str], wanted: Filter) -> list[tuple[str, list[str]]]:
    """What to draw from: each prompt type by itself, or all there are at once. Raises `UsageError` for an unknown name."""
    from foundation.errors import UsageError
    from generator.catalogue import select
    from generator.sample import kinds

    here = kinds(workspace, rejects=wanted.rejects)
    if not asked:
        return [("", here)]
    chosen: dict[str, list[str]] = {}
    for name in asked:
        # What is committed may be of a prompt type that the catalogue has no more.
        ids = {one for one in here if name in (one, one.partition("/")[0])}
        if name not in ids:
            try:
                ids |= {one.id for one in select([name], workspace.prompts)}
            except UsageError:
                if not ids:
                    raise
        chosen |= {one: [one] for one in sorted(ids)}
    return list(chosen.items())


def _none(workspace: Workspace, name: str, wanted: Filter) -> str:
    """Why there is nothing to show, and what comes next."""
    from generator.sample import kinds

    committed = kinds(workspace, rejects=False)
    of = f"{name}: " if name else ""
    if name not in committed and (name or not committed):
        next_ = f"factory enqueue{f' --prompt-type {name}' if name else ''}"
        return f"{of}nothing is committed yet; next: {next_}, then factory run"
    asked = f" of split {wanted.split}" if wanted.split else ""
    if wanted.gate:
        asked += f" by {wanted.gate}{'/' if wanted.code else ''}{wanted.code}"
    return f"{of}there is no {'reject' if wanted.rejects else 'record'}{asked}; `factory stats` says what there is"


def _picture(one: Shown, place: str) -> list[RenderableType]:
    """One output as rich draws it: where it comes from, then both texts."""
    from rich.rule import Rule
    from rich.text import Text

    from foundation.console import plain
    from generator.sample import written

    text = written(one.output)
    passages = _passage("snippet", one.snippet, one.output.snippet_id, text)
    if one.output.partner_id:
        passages += [Text(""), *_passage("second snippet", one.partner, one.output.partner_id, text)]
    sources = "\n".join(snippet.text for snippet in (one.snippet, one.partner) if snippet)
    rule = Rule(Text(plain(f"{one.output.prompt_type}  {place}"), "bold"), align="left", style="dim")
    return [rule, *_provenance(one), Text(""), _Beside(Text("\n").join(passages), _said(one, sources)), Text("")]


class _Beside:
    """Two texts, side by side on a terminal that is wide enough, else one above the other."""

    def __init__(self, left: Text, right: Text) -> None:
        self.left, self.right = left, right

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.table import Table
        from rich.text import Text

        if not console.is_terminal or options.max_width < WIDE:
            yield from (self.left, Text(""), self.right)
            return
        grid = Table.grid(expand=True, padding=(0, 3, 0, 0))
        grid.add_column(ratio=1, overflow="fold")
        grid.add_column(ratio=1, overflow="fold")
        grid.add_row(self.left, self.right)
        yield grid


def _provenance(one: Shown) -> list[Text]:
    from rich.text import Text

    from foundation.console import plain
    from foundation.records import Record

    output, usage = one.output, one.output.usage
    facts = [
        f"id {output.id}",
        f"split {output.split}",
        f"teacher {output.teacher}",
        f"round {output.round}",
        f"tokens {usage.prompt_tokens:,} + {usage.completion_tokens:,}",
        f"unit {output.unit}",
    ]
    if output.phase != "ask":
        facts.append(f"phase {output.phase}")
    if isinstance(output, Record):
        facts += [f"ordering {output.ordering}"] if output.ordering else []
        return [Text(plain("  ".join(facts)), "dim")]
    lines = [Text(plain("  ".join(facts)), "dim")]
    where = f" in {output.field}" if output.field else ""
    code = f"/{output.code}" if output.code else ""
    said = Text(plain(f"rejected by {output.gate}{code}{where}"), "bold red")
    return [*lines, said.append(plain(f": {output.reason}"), "not bold")]


def _passage(heading: str, snippet: Snippet | None, id_: str, text: str) -> list[Text]:
    """A snippet with its heading; what `text` took from it stands out."""
    from rich.text import Text

    from foundation.console import plain

    if snippet is None:
        return [Text(f"{heading} {plain(id_)}", "dim"), Text("its text is not in the corpus", "yellow")]
    title = plain(f"{heading}: {snippet.title}, {snippet.source}, window {snippet.index} ({snippet.id})")
    return [Text(title, "dim"), _marked(snippet.text, text)]


def _said(one: Shown, sources: str) -> Text:
    """The turns of a record, or the raw text of a reject; what they took from the snippets stands out."""
    from rich.text import Text

    from foundation.records import Reject

    if isinstance(one.output, Reject):
        heading = "what the teacher wrote" if one.output.text else "the teacher wrote nothing"
        return Text("\n").join([Text(heading, "dim"), _marked(one.output.text, sources)])
    lines: list[Text] = []
    for index, message in enumerate(one.output.messages):
        trained = index in one.output.supervised
        untrained = "" if trained or message.role != "assistant" else " (not trained on)"
        lines.append(Text(f"{message.role}{untrained}", ROLES[message.role]))
        lines.append(_marked(message.content, sources if trained else ""))
    return Text("\n").join(lines)


def _marked(text: str, other: str) -> Text:
    """`text` as it may be printed, with what it has in common with `other` in bold and green."""
    from rich.text import Text

    from foundation.console import plain
    from generator.sample import taken_from

    marked, at = Text(), 0
    for start, end in taken_from(text, other) if other else ():
        marked.append(plain(text[at:start])).append(plain(text[start:end]), TAKEN)
        at = end
    return marked.append(plain(text[at:]))
