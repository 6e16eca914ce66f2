"""Write docs/prompts.md: every prompt type of the catalogue, with one real record from its golden example.

    python scripts/prompt_docs.py            writes the page
    python scripts/prompt_docs.py --check    exit 1 if the page is not what the catalogue says

Guarantees: the page is a function of prompts/, tests/golden/ and what the rules teacher knows. Cost: under a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from pathlib import Path

from foundation.prompt_type import FieldSpec, Phase, PromptType
from generator.catalogue import load_catalogue
from generator.teachers.rules.teacher import MAKERS

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "prompts.md"
GOLDEN = REPOSITORY / "tests" / "golden"
PARAGRAPH = {"user": 260, "assistant": 420}  # characters of a paragraph that are shown
LINES = 14  # lines of a message that are shown
WIDTH = 108
CUT = "[…]"
FAMILIES = {
    "qpt": "The passage itself, unchanged, is the answer; the teacher writes only the question, each type in its own voice.",
    "wh": "A question with one question word, and its answer.",
    "truth": "Statements that are true or false, and questions that rest on a mistake or cannot be answered.",
    "choice": "Options under letters, or things to be put in order. Where the right one stands is drawn by code for each item.",
    "cloze": "A sentence with one blank.",
    "rewrite": "The passage is shown, and written anew in another form.",
    "structure": "What is known of one subject, in a form with a structure of its own.",
    "dialogue": "Several turns. What the user corrects is not trained on.",
    "contrastive": "This one or that one: two records for each thing, one for either order of its two options.",
    "cross": "Two passages at once; the second is chosen when the work is planned.",
}
PARTNERS = {"same-article": "of the same article", "other-article": "of another article that names the same entity"}


def page() -> str:
    """The whole page."""
    catalogue = load_catalogue()
    families: dict[str, list[PromptType]] = {name: [] for name in FAMILIES}
    for one in catalogue.values():
        families.setdefault(one.family, []).append(one)
    made = sum(id_ in MAKERS for id_ in catalogue)
    parts = [
        "# The prompt types\n",
        "<!-- Written by scripts/prompt_docs.py from prompts/ and tests/golden/: do not edit. -->\n",
        textwrap.fill(
            f"{len(catalogue)} prompt types in {len(families)} families. Each is one file, `prompts/FAMILY/NAME.md`; "
            "`factory prompts new FAMILY/NAME` writes one into a workspace, `factory prompts lint` checks them, and "
            "`factory preview --prompt-type FAMILY/NAME` tries one; [prompt-format.md](prompt-format.md) says how. The `rules` teacher, which is no language model, makes "
            f"{made} of them. The examples are real records, with long paragraphs cut ({CUT}).",
            120,
        ),
        "\n| type | what it makes | unit | rules |\n| --- | --- | ---: | --- |",
        *(
            f"| [{one.id}](#{anchor(one)}) | {one.summary} | {one.unit} | {yes(one)} |"
            for types in families.values()
            for one in types
        ),
    ]
    for family, types in families.items():
        parts += [f"\n## {family} ({len(types)})\n", FAMILIES.get(family, "")]
        parts += [section(one) for one in types]
    return "\n".join(parts) + "\n"


def anchor(prompt_type: PromptType) -> str:
    """What its heading is called in a link."""
    return prompt_type.id.replace("/", "")


def yes(prompt_type: PromptType) -> str:
    return "yes" if prompt_type.id in MAKERS else "no"


def section(prompt_type: PromptType) -> str:
    """One type: what it is, and an example."""
    golden = json.loads((GOLDEN / f"{prompt_type.id}.json").read_text("utf-8"))
    needs = ", ".join(prompt_type.needs).replace("_", " ") or "nothing"
    facts = [
        f"needs {needs}",
        f"checks {', '.join(prompt_type.checks)}" if prompt_type.checks else "no checks of its own",
        f"unit {prompt_type.unit}",
        f"version {prompt_type.version}",
        f"rules: {yes(prompt_type)}",
    ]
    lines = [f"\n### {prompt_type.id}\n", prompt_type.summary + "\n", f"- {'; '.join(facts)}"]
    lines += [f"- {line}" for line in calls(prompt_type)]
    turns = [turn.role + ("" if turn.trained else " (not trained on)") for turn in prompt_type.turns]
    lines.append(f"- the record: {', '.join(turns)}{copies(prompt_type)}")
    if prompt_type.partner:
        lines.append(f"- a second passage {PARTNERS[prompt_type.partner]}")
    place = f"from *{golden['snippet']['title']}*"
    if golden.get("partner") and golden["partner"]["title"] != golden["snippet"]["title"]:
        place += f" and *{golden['partner']['title']}*"
    shown = "\n".join(message(one["role"], one["content"]) for one in golden["records"][0])
    fence = "~~~~" if "~~~" in shown else "~~~"
    return "\n".join([*lines, f"\nExample, {place}:\n", f"{fence}text", shown, fence])


def copies(prompt_type: PromptType) -> str:
    options = prompt_type.options
    if options is None:
        return ""
    if options.order == "both":
        return "; two of them, one for either order of the options (the first is shown)"
    return "; the options in an order drawn for each item"


def calls(prompt_type: PromptType) -> list[str]:
    """What the teacher writes, call by call."""
    if not prompt_type.phases:
        return [f"the teacher writes {fields(prompt_type.chain[0])}"]
    each = f", once for each of `{prompt_type.each}`" if prompt_type.each else ""
    last = len(prompt_type.chain) - 1
    return [
        f"phase `{phase.name}`{each if number == last else ''}: {fields(phase)}"
        for number, phase in enumerate(prompt_type.chain)
    ]


def fields(phase: Phase) -> str:
    return ", ".join(f"`{name}`{kind(spec)}" for name, spec in phase.fields.items())


def kind(spec: FieldSpec) -> str:
    if spec.type == "list":
        return f" ({spec.items_min} to {spec.items_max}{' of ' + ' and '.join(spec.keys) if spec.keys else ''})"
    return f" ({' or '.join(spec.values)})" if spec.type == "choice" else ""


def message(role: str, text: str) -> str:
    """One message of a record, wrapped; what is long is cut."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        lines += textwrap.wrap(cut(paragraph, PARAGRAPH[role]), WIDTH, break_long_words=False) or [""]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], CUT]
    shown = "\n".join(lines)
    return f"{role}:\n{textwrap.indent(shown, '  ')}"


def cut(text: str, limit: int) -> str:
    """A paragraph up to a word's end before `limit`."""
    return text if len(text) <= limit else f"{text[: limit - len(CUT)].rpartition(' ')[0]} {CUT}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="exit 1 if the page is stale")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: docs/prompts.md")
    arguments = parser.parse_args()
    text = page()
    if not arguments.check:
        arguments.page.write_text(text, "utf-8")
        return 0
    if arguments.page.is_file() and arguments.page.read_text("utf-8") == text:
        return 0
    print(f"{arguments.page} is stale: run python scripts/prompt_docs.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
