"""Prompt files with phases, options and partners: what they may say, and what is refused at its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.errors import UsageError
from generator.catalogue import load_catalogue
from generator.render import shown, supervised
from tests.generator.prompt_files import put

TEXT = """---
id: wh/who
version: 1
summary: A question with two people, once for each person.
phases:
  extract:
    fields:
      people: {type: list, min: 3, max: 80, items_min: 0, items_max: 6}
each: people
partner: same-article
fields:
  stem: {min: 10, max: 240}
  option_1: {max: 80}
  option_2: {max: 80}
  number: {type: choice, values: ["1", "2"]}
  answer: {max: 500}
options: {fields: [option_1, option_2], right: number, order: both}
---

# extract: system

List people.

# extract: user

<passage>
{{ passage }}
</passage>

<second-passage>
{{ partner }}
</second-passage>

# system

Write a question.

# user

Person: {{ each }}

<passage>
{{ passage }}
</passage>

<second-passage>
{{ partner }}
</second-passage>

# record: user

{{ stem }}, {{ first }} or {{ second }}?

# record: assistant, untrained

{{ second }}

# record: user

No.

# record: assistant

{{ answer }}
"""
PARTNER = "\n\n<second-passage>\n{{ partner }}\n</second-passage>"


def test_a_file_with_everything_loads_as_it_is_written(tmp_path: Path) -> None:
    put(tmp_path, TEXT)

    prompt_type = load_catalogue(tmp_path)["wh/who"]

    assert [(phase.name, list(phase.fields)) for phase in prompt_type.chain] == [
        ("extract", ["people"]),
        ("ask", ["stem", "option_1", "option_2", "number", "answer"]),
    ]
    assert (prompt_type.each, prompt_type.partner) == ("people", "same-article")
    assert [(turn.role, turn.trained) for turn in prompt_type.turns] == [
        ("user", True),
        ("assistant", False),
        ("user", True),
        ("assistant", True),
    ]
    assert supervised(prompt_type) == (3,)
    found = shown(prompt_type)
    assert (found.asked, found.answered, found.mistaken) == ({"stem", "first", "second"}, {"answer"}, {"second"})


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("each: people", "each: persons", "no list of strings"),
        ("max: 80, items_min", "max: 80, keys: [name], items_min", "no list of strings"),
        ("Person: {{ each }}", "Person:", "never uses the variable 'each'"),
        ("each: people\n", "", "unknown variable 'each'"),
        ("partner: same-article\n", "", "unknown variable 'partner'"),
        ("partner: same-article", "partner: any", "partner"),
        (f"{{{{ each }}}}\n\n<passage>\n{{{{ passage }}}}\n</passage>{PARTNER}", "{{ each }}", "never uses"),
        ("</second-passage>\n\n# system", "</second-passage>\nGo.\n\n# system", "not last"),
        ("# extract: user", "# extracts: user", "no such section"),
        ("# extract: system\n\nList people.\n\n", "", "no section 'extract: system'"),
        ("  extract:\n", "  Extract:\n", "no such section"),
        ("people: {type: list", "stem: {type: list", "stands in two phases"),
        ('values: ["1", "2"]', 'values: ["1", "2", "3"]', "does not number the options"),
        ('{type: choice, values: ["1", "2"]}', "{type: choice}", "values belong to a choice"),
        ("answer: {max: 500}", 'answer: {max: 500, values: ["a"]}', "values belong to a choice"),
        ("answer: {max: 500}", "answer: {max: 500, keys: [a]}", "keys belong to a list"),
        ("right: number", "right: wrong", "'wrong' is no field"),
        ("  stem: {min", "  title: {min", "has the name of a variable"),
        ("fields: [option_1, option_2]", "fields: [option_1, number]", "is not a string"),
        ("fields: [option_1, option_2]", "fields: [stem, option_1, option_2]", "exactly two"),
        ("{{ stem }}, {{ first }} or {{ second }}?", "{{ stem }}?", "never shows the options"),
        ("# record: assistant\n", "# record: assistant, untrained\n", "does not end with an assistant"),
        ("# record: assistant\n\n{{ answer }}\n", "", "does not end with an assistant"),
        ("{{ answer }}", "Yes.", "'answer' is never used"),
        ("  extract:\n", "  ask:\n", "no such section"),
    ],
)
def test_what_does_not_fit_together_is_refused_where_it_stands(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in TEXT
    path = put(tmp_path, TEXT.replace(old, new, 1))

    with pytest.raises(UsageError) as caught:
        load_catalogue(tmp_path)

    assert says in str(caught.value)
    assert caught.value.where.rpartition(":")[0] == str(path)
    assert int(caught.value.where.rpartition(":")[2]) >= 1
    assert caught.value.mend


@pytest.mark.parametrize("name", ["ask", "record"])
def test_a_phase_cannot_have_the_name_of_something_else(tmp_path: Path, name: str) -> None:
    put(tmp_path, TEXT.replace("  extract:\n", f"  {name}:\n").replace("# extract: ", f"# {name}: "))

    with pytest.raises(UsageError, match=name):
        load_catalogue(tmp_path)
