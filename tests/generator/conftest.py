"""What the tests of prompts, gates, pipeline and rules share: the project's own corpus, and one set of gates."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.corpus import Corpus
from foundation.records import Snippet
from foundation.workspace import Workspace
from generator.gates import Gates
from generator.ingest.run import ingest

ARTICLES = Path(__file__).resolve().parents[2] / "examples" / "wwii" / "articles"


@pytest.fixture(scope="session")
def wwii_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the project's own corpus, on the rules teacher. Tests only read it."""
    workspace = Workspace.init(tmp_path_factory.mktemp("wwii") / "w")
    ingest(workspace, [ARTICLES])
    return workspace.root


@pytest.fixture(scope="session")
def wwii_snippets(wwii_workspace: Path) -> list[Snippet]:
    return list(Corpus(Workspace(wwii_workspace).store).all_snippets())


@pytest.fixture(scope="session")
def warm_gates() -> Gates:
    gates = Gates()
    gates.warm()
    return gates
