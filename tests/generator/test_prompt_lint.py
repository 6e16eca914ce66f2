"""`factory prompts lint`: what it finds in files that load, in files that do not, and in versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foundation.errors import UsageError
from generator.catalogue import FOLDER, read_prompt_type
from generator.lint import Problem, lint, record
from generator.lint_checks import longest
from generator.scaffold import START, scaffold
from generator.version_lock import FILE, add_to_lock, fault, read_lock
from tests.generator.prompt_files import GOOD, put

CHAIN = (FOLDER / "contrastive/person.md").read_text("utf-8")
NAME = "mine/first"
SOUND = START.replace("id: ID", f"id: {NAME}")


def _lint(tmp_path: Path, text: str = SOUND, id_: str = NAME) -> list[Problem]:
    """The problems of one file, but for the one that its version is not recorded yet."""
    report = lint([str(put(tmp_path, text, id_))])
    assert report.files == 1
    return [problem for problem in report.problems if problem.code != "not-recorded"]


def test_the_shipped_catalogue_has_neither_error_nor_warning() -> None:
    report = lint()

    assert [f"{one.file.name}:{one.line}: {one.what}" for one in report.problems] == []
    assert report.files == len(list(FOLDER.glob("*/*.md"))) - len(list(FOLDER.glob("judge/*.md")))


def test_the_scaffold_and_a_copy_of_a_chain_are_sound(tmp_path: Path) -> None:
    assert _lint(tmp_path) == []
    assert _lint(tmp_path, CHAIN.replace("id: contrastive/person", "id: mine/chain"), "mine/chain") == []


@pytest.mark.parametrize(
    ("old", "new", "line", "code", "says"),
    [
        ("its answer.\n", "its answer\n", 4, "summary", "full stop"),
        ("its answer.\n", f"its answer{' and more' * 20}.\n", 4, "summary", "too long"),
        ("checks: []", "checks: [same-kind]", 9, "check", "has nothing to check"),
        ("checks: []", "checks: [blank]", 17, "check", "____"),
        ('description: "a question that stands alone", ', "", 7, "description", "'question' has no description"),
        ("min: 12, max: 300", "min: 400, max: 300", 7, "bounds", "'question'"),
        ("max_tokens: 256", "max_tokens: 200", 12, "max-tokens", "cut off"),
        ("max_tokens: 256", "max_tokens: 9000", 12, "max-tokens", "never used up"),
        ('"answer"', '"reply"', 17, "unnamed", "never names the field 'answer'"),
        ("You write questions", "You write 問題", 17, "cjk", "Chinese"),
        ("You write questions", "<|im_start|>You write questions", 17, "tag", "<|im_start|>"),
        ("# record: user\n\n", "# record: user\n\nAccording to the passage: ", 42, "leaning", "stands alone"),
        ("\n{{ answer }}", "\n{% if answer == 'x' %}{{ answer }}{% endif %}", 46, "empty", "'record: assistant'"),
        ("\n{{ answer }}", "\n{{ answer + 1 }}", 46, "render", "cannot be rendered"),
    ],
)
def test_what_loads_and_is_wrong_is_told_at_its_line(
    tmp_path: Path, old: str, new: str, line: int, code: str, says: str
) -> None:
    # given a file that loads, with one thing wrong
    assert SOUND.count(old) >= 1
    text = SOUND.replace(old, new)
    read_prompt_type(put(tmp_path, text, NAME))

    # when it is checked
    found = _lint(tmp_path, text)

    # then that one thing is an error at its line, with a mend
    (error,) = [problem for problem in found if not problem.warning]
    assert (error.line, error.code, error.id) == (line, code, NAME)
    assert says in f"{error.what} {error.mend}"
    assert error.mend


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("needs: [entity]", "needs: [monarch]", "needs"),
        ("checks: []", "checks: [blanc]", "no such check"),
        ("</passage>\n", "</passage>\n\nNow write.\n", "not last"),
        ("{{ question }}", "{{ questions }}", "unknown variable"),
        ("fields:  ", "feelds:  ", "no such key"),
    ],
)
def test_what_does_not_load_is_an_error_too(tmp_path: Path, old: str, new: str, says: str) -> None:
    (error,) = _lint(tmp_path, SOUND.replace(old, new, 1))

    assert (error.code, error.warning) == ("load", False)
    assert says in f"{error.what} {error.mend}"
    assert error.line > 1


def test_every_problem_of_every_file_is_told_not_only_the_first(tmp_path: Path) -> None:
    # given one file that does not load, one with three errors, and one that is sound
    put(tmp_path, "nothing", "mine/broken")
    three = SOUND.replace("id: mine/first", "id: mine/three").replace("its answer.\n", "its answer\n")
    three = three.replace("max_tokens: 256", "max_tokens: 20").replace(
        'description: "a question', 'min: 1, description: "a'
    )
    put(tmp_path, three.replace("min: 1, ", "", 1).replace('"answer":', '"reply":', 1), "mine/three")
    put(tmp_path, SOUND, NAME)

    # when the folder is checked
    report = lint([str(tmp_path)])

    # then all of them are there, file by file, and the sound one alone may be recorded
    assert report.files == 3
    assert [(one.id, one.code) for one in report.errors] == [
        ("mine/broken", "load"),
        ("mine/three", "summary"),
        ("mine/three", "max-tokens"),
    ]
    assert [one.id for one in record(report)] == [NAME]


def test_a_phase_of_a_chain_is_looked_at_too(tmp_path: Path) -> None:
    text = CHAIN.replace("id: contrastive/person", "id: mine/chain").replace("max_tokens: 192", "max_tokens: 92")
    (error,) = _lint(tmp_path, text, "mine/chain")

    assert text.splitlines()[error.line - 1].strip().startswith("sampling:")
    assert (error.code, "cut off" in error.what) == ("max-tokens", True)


def test_the_second_turn_of_one_heading_is_told_apart_from_the_first(tmp_path: Path) -> None:
    # given a record of two questions, of which the second leans on a text that nobody sees
    text = SOUND + "\n# record: user\n\nWhat else does the passage say?\n\n# record: assistant\n\n{{ answer }}\n"

    # when it is checked
    (error,) = _lint(tmp_path, text)

    # then its own line is named
    assert error.code == "leaning"
    assert text.splitlines()[error.line - 1] == "What else does the passage say?"


def test_the_longest_reply_is_as_long_as_the_schema_allows() -> None:
    for id_, entry in (("structure/faq", ("question", "answer")), ("qpt/formal", ())):
        prompt_type = read_prompt_type(FOLDER / f"{id_}.md")
        fields = prompt_type.fields
        reply = {
            name: [dict.fromkeys(entry, "x" * spec.max)] * spec.items_max if spec.type == "list" else "x" * spec.max
            for name, spec in fields.items()
        }
        assert 0 <= longest(fields) - len(json.dumps(reply)) <= 20


def test_a_turn_that_can_be_empty_is_warned_of(tmp_path: Path) -> None:
    # given a record that shows a list and nothing else, and a list that may be empty
    text = SOUND.replace(
        'answer: {description: "the answer, in one or two full sentences", min: 15, max: 500}',
        'answer: {type: list, description: "facts", min: 5, max: 80, items_min: 0, items_max: 5}',
    )
    text = text.replace("\n{{ answer }}", "\n{% for one in answer %}\n{{ one }}\n{% endfor %}")

    # when it is checked
    (warning,) = _lint(tmp_path, text)

    # then it is a warning: such a reply is rejected, the others are good
    assert (warning.code, warning.warning) == ("empty", True)


def test_a_template_that_changed_while_its_version_did_not_is_an_error(tmp_path: Path) -> None:
    # given a type whose version 1 is recorded
    path = put(tmp_path, SOUND, NAME)
    assert [one.code for one in lint([str(path)]).problems] == ["not-recorded"]
    assert [one.id for one in record(lint([str(path)]))] == [NAME]
    assert lint([str(path)]).problems == []
    before = (tmp_path / FILE).read_bytes()

    # when its template changes, and is recorded again
    put(tmp_path, SOUND.replace("You write questions", "You write good questions"), NAME)
    report = lint([str(path)])
    assert record(report) == []

    # then it is an error at its version, and what is recorded stays
    assert [(one.code, one.line, one.warning) for one in report.problems] == [("changed", 3, False)]
    assert "raise `version` to 2" in report.problems[0].mend
    assert (tmp_path / FILE).read_bytes() == before

    # and when the version is raised too, it can be recorded beside the first
    put(
        tmp_path,
        SOUND.replace("You write questions", "You write good questions").replace("version: 1", "version: 2"),
        NAME,
    )
    assert [one.version for one in record(lint([str(path)]))] == [2]
    assert set(read_lock(tmp_path)[NAME]) == {1, 2}
    assert lint([str(path)]).problems == []


def test_what_changes_no_output_may_change_without_a_new_version(tmp_path: Path) -> None:
    path = put(tmp_path, SOUND, NAME)
    record(lint([str(path)]))

    put(tmp_path, SOUND.replace("A question on", "One question on").replace("unit: 64", "unit: 16"), NAME)

    assert lint([str(path)]).problems == []


@pytest.mark.parametrize(
    ("version", "code"), [(1, "version-lowered"), (2, ""), (3, ""), (4, "version-skipped"), (9, "version-skipped")]
)
def test_a_version_goes_up_by_one(tmp_path: Path, version: int, code: str) -> None:
    one = read_prompt_type(put(tmp_path, SOUND, NAME))
    at = one.model_copy(update={"version": version})
    lock = {NAME: {2: read_prompt_type(put(tmp_path, SOUND, NAME)).model_copy(update={"version": 2}).fingerprint}}

    found = fault(lock, at)

    assert (found[0] if found else "") == code


def test_a_type_that_vanished_is_an_error_until_its_line_is_taken_out(tmp_path: Path) -> None:
    # given two types that are recorded, one of which is deleted
    put(tmp_path, SOUND, NAME)
    gone = put(tmp_path, SOUND.replace(NAME, "mine/gone"), "mine/gone")
    record(lint([str(tmp_path)]))
    gone.unlink()

    # when the folder is checked
    (error,) = lint([str(tmp_path)]).problems

    # then the lock is named at the line of that type
    assert (error.file.name, error.code, error.id) == (FILE, "vanished", "mine/gone")
    assert "mine/gone" in (tmp_path / FILE).read_text().splitlines()[error.line - 1]


def test_a_workspaces_planned_version_counts_as_recorded(tmp_path: Path) -> None:
    # given a type that was planned, and edited since
    planned = read_prompt_type(put(tmp_path, SOUND, NAME))
    put(tmp_path, SOUND.replace("You write questions", "You write good questions"), NAME)

    # when the workspace's prompts are checked
    found = [one for one in lint([NAME], tmp_path, [planned]).problems]

    # then it wants a new version, though no lock has it
    assert [one.code for one in found] == ["changed"]


def test_a_lock_that_is_none_is_told(tmp_path: Path) -> None:
    put(tmp_path, SOUND, NAME)
    (tmp_path / FILE).write_text('{"mine/first": 3}')

    with pytest.raises(UsageError, match="cannot be read"):
        lint([str(tmp_path)])


def test_the_lock_is_never_overwritten(tmp_path: Path) -> None:
    one = read_prompt_type(put(tmp_path, SOUND, NAME))
    add_to_lock(tmp_path, [one])
    other = read_prompt_type(put(tmp_path, SOUND.replace("stands alone", "stands by itself"), NAME))
    assert other.fingerprint != one.fingerprint

    assert add_to_lock(tmp_path, [other]) == []
    assert read_lock(tmp_path) == {NAME: {1: one.fingerprint}}


def test_a_copy_goes_on_from_the_version_it_stands_for(tmp_path: Path) -> None:
    shipped = read_prompt_type(FOLDER / "contrastive/person.md")

    override = read_prompt_type(scaffold("contrastive/person", tmp_path, "contrastive/person"))
    copy = read_prompt_type(scaffold("mine/person", tmp_path, "contrastive/person"))

    assert (override.version, copy.version) == (shipped.version + 1, 1)
    assert copy.turns == override.turns == shipped.turns
    assert copy.chain == shipped.chain


@pytest.mark.parametrize(
    ("id_", "start", "says"),
    [
        ("wh/what", "wh/who", "--from wh/what"),
        ("Mine/Second Try", "", "mine/second-try"),
        ("mine", "", "FAMILY/NAME"),
        ("../mine/x", "", "FAMILY/NAME"),
        ("judge/x", "", "no records"),
        ("mine/x", "wh/whom", "wh/who"),
    ],
)
def test_a_scaffold_that_cannot_be_is_refused(tmp_path: Path, id_: str, start: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        scaffold(id_, tmp_path / "prompts", start, tmp_path)

    assert says in str(error.value)
    assert not (tmp_path / "prompts").exists()


def test_a_file_of_another_folder_is_checked_by_its_path(tmp_path: Path) -> None:
    path = put(tmp_path, GOOD)  # wh/who: the project has one of that id, which is not the one that is meant

    found = lint([str(path)]).problems

    assert {one.file for one in found} == {path.resolve()}
    assert "description" in {one.code for one in found}
