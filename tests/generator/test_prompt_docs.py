"""docs/prompts.md is what the catalogue, the golden examples and the rules teacher say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from generator.catalogue import load_catalogue
from tests.support.commands import REPOSITORY

PAGE = REPOSITORY / "docs" / "prompts.md"


def _script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "scripts" / "prompt_docs.py"), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env={"PYTHONPATH": "."}, capture_output=True, text=True, timeout=60)


def test_the_page_is_current() -> None:
    done = _script("--check")

    assert done.returncode == 0, done.stderr


def test_a_stale_or_missing_page_is_told_and_can_be_written_anew(tmp_path: Path) -> None:
    # given a page that lacks a line
    page = tmp_path / "prompts.md"
    page.write_text(PAGE.read_text("utf-8").replace("### wh/who\n", "", 1), "utf-8")

    # when it is checked, written, and checked again
    stale = _script("--check", "--page", str(page))
    missing = _script("--check", "--page", str(tmp_path / "none.md"))
    written = _script("--page", str(page))

    # then it is told apart, and made current
    assert (stale.returncode, missing.returncode, written.returncode) == (1, 1, 0)
    assert "stale" in stale.stderr and stale.stdout == ""
    assert page.read_text("utf-8") == PAGE.read_text("utf-8")


def test_the_page_has_a_row_a_section_and_an_example_for_every_type() -> None:
    text = PAGE.read_text("utf-8")
    headings = re.findall(r"^### (\S+)$", text, re.MULTILINE)
    sections = dict(zip(headings, re.split(r"^### \S+$", text, flags=re.MULTILINE)[1:], strict=True))

    assert sorted(headings) == sorted(load_catalogue())
    for id_, prompt_type in load_catalogue().items():
        assert f"| [{id_}](#{id_.replace('/', '')}) | {prompt_type.summary} | {prompt_type.unit} |" in text
        assert re.search(r"^~~~text\nuser:\n  \S.*?^assistant:\n  \S", sections[id_], re.MULTILINE | re.DOTALL), id_
