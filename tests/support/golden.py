"""The golden examples: for each prompt type a reply as a very good teacher would write it, and the records made of it.

`tests/golden/FAMILY/NAME.json` holds the snippet (title and index, of the project's own corpus), the replies, and the records
that the real pipeline makes. `python -m tests.support.golden --write [FAMILY/NAME ...]` makes the records anew;
`--list TITLE` prints an article's snippets.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from foundation.corpus import Corpus
from foundation.prompt_type import PromptType
from foundation.records import ChatReply, Snippet, SplitPolicy, Unit
from foundation.workspace import Workspace
from generator.catalogue import load_catalogue
from generator.gates import Gates
from generator.ingest.run import ingest
from generator.pipeline import Outcome, produce
from generator.render import Source
from generator.teachers.base import TeacherRequest

REPOSITORY = Path(__file__).resolve().parents[2]
ARTICLES = REPOSITORY / "examples/wwii/articles"
GOLDEN = REPOSITORY / "tests/golden"


@functools.cache
def snippets() -> dict[tuple[str, int], Snippet]:
    """Every snippet of the project's own corpus, by title and index."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.init(Path(folder) / "w")
        ingest(workspace, [ARTICLES])
        return {(one.title, one.index): one for one in Corpus(workspace.store).all_snippets()}


def read(id_: str) -> dict[str, Any]:
    """One golden example."""
    found: dict[str, Any] = json.loads((GOLDEN / f"{id_}.json").read_text("utf-8"))
    return found


def source_of(golden: dict[str, Any]) -> Source:
    """What the example is made of."""
    place, other = golden["snippet"], golden.get("partner")
    partner = snippets()[other["title"], other["index"]] if other else None
    return Source(snippets()[place["title"], place["index"]], partner, golden.get("entity", ""))


class GoldenTeacher:
    """Replies as the example has it: to each phase its reply, to each entry of a list its own."""

    name = "golden:1"

    def __init__(self, replies: dict[str, Any]) -> None:
        self.replies = replies

    async def complete(self, requests: Sequence[TeacherRequest]) -> AsyncIterator[ChatReply]:
        for number, request in enumerate(requests):
            found = self.replies[request.phase]
            fields = found[number] if isinstance(found, list) else found
            yield ChatReply(id=request.chat.id, text=json.dumps(fields, ensure_ascii=False), finish="stop")

    async def close(self) -> None:
        pass


def outcome_of(prompt_type: PromptType, golden: dict[str, Any], gates: Gates) -> Outcome:
    """What the pipeline makes of the example. What an answer may name is the snippet's article."""
    source = source_of(golden)
    unit = Unit(
        id="golden",
        block="golden",
        start=0,
        stop=1,
        prompt_type=prompt_type.id,
        fingerprint=prompt_type.id,  # not the real one: a new version alone changes no example
    )
    policy = SplitPolicy(key="golden", unseen=0, phrasing=0)

    async def run() -> Outcome:
        stream = produce(
            GoldenTeacher(golden["replies"]),
            prompt_type,
            [source],
            unit=unit,
            policy=policy,
            attempt="golden",
            gates=gates,
            around=tuple(snippets().values()),
        )
        (outcome,) = [one async for one in stream]
        return outcome

    return asyncio.run(run())


def messages(outcome: Outcome) -> list[list[dict[str, str]]]:
    """The records as the example has them."""
    return [[message.model_dump() for message in record.messages] for record in outcome.records]


def _write(ids: Sequence[str]) -> int:
    gates, failed = Gates(), 0
    for id_ in ids or [str(path.relative_to(GOLDEN).with_suffix("")) for path in sorted(GOLDEN.glob("*/*.json"))]:
        golden = read(id_)
        outcome = outcome_of(load_catalogue()[id_], golden, gates)
        for reject in outcome.rejects:
            failed += 1
            print(f"{id_}: {reject.phase}: {reject.gate}/{reject.code}: {reject.reason} in {reject.field!r}")
        golden["records"] = messages(outcome)
        (GOLDEN / f"{id_}.json").write_text(json.dumps(golden, indent=2, ensure_ascii=False) + "\n", "utf-8")
        for record in outcome.records:
            print(f"=== {id_} {record.ordering}")
            for message in record.messages:
                print(f"{message.role}: {message.content}")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--list"]:
        for (title, index), one in snippets().items():
            if title == sys.argv[2]:
                print(f"--- {title} {index}\n{one.text}")
    elif sys.argv[1:2] == ["--write"]:
        raise SystemExit(_write(sys.argv[2:]))
    else:
        raise SystemExit(__doc__)
