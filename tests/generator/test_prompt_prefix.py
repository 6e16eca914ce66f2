"""What the teacher is asked, as a server's prefix cache sees it: fixed text first, the passage next, what varies last."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import pytest

from foundation.prompt_type import ASK, FieldSpec, Phase, PromptType
from foundation.records import Snippet
from generator.catalogue import load_catalogue
from generator.render import Source, chat_request

LABELS = 120  # characters of labels and delimiters around what varies: "Subject:", "<passage>"
EACH_BEFORE_PASSAGE = {f"contrastive/{kind}" for kind in ("date", "event", "number", "person", "place")}
"""Here an entry stands before the passage, so that entries of one passage do not share it (some 200 tokens an entry). To
exchange the two is an edit of the prompts, which makes new versions; it waits for the next that their texts need."""

CALLS = [(kind, phase) for kind in load_catalogue().values() for phase in kind.chain]


def _snippet(mark: str) -> Snippet:
    text = f"{mark} commanded the {mark} front."
    return Snippet(id=mark, article_id="a", title=f"{mark} title", source="s", index=0, sentences=(text,), text=text)


def _value(spec: FieldSpec, mark: str) -> Any:
    if spec.type == "choice":
        return spec.values[0]
    if spec.type == "list":
        return [dict.fromkeys(spec.keys, mark) if spec.keys else mark] * 2
    return mark


def _values(kind: PromptType, phase: Phase, mark: str) -> dict[str, Any]:
    """What the calls before gave, and the entry that this one is about."""
    earlier = kind.chain[: [one.name for one in kind.chain].index(phase.name)]
    values = {name: _value(spec, f"{mark}-{name}") for one in earlier for name, spec in one.fields.items()}
    return values | ({"each": f"{mark}-each"} if kind.each and phase.name == ASK else {})


def _asked(kind: PromptType, phase: Phase, snippet: str, entry: str = "E") -> str:
    """All that a request says, in the order that a chat template writes it."""
    partner = _snippet(f"{snippet}2") if kind.partner else None
    source = Source(_snippet(snippet), partner, f"{snippet} entity" if partner else "")
    chat = chat_request(kind, source, "id", 1, phase=phase.name, values=_values(kind, phase, entry))
    return "\0".join(message.content for message in chat.messages)


def _shared(one: str, other: str) -> str:
    """What both begin with."""
    return one[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))]


def _variables(kind: PromptType, phase: Phase, snippet: str) -> Iterator[str]:
    for mark in (snippet, f"{snippet}2"):
        yield from (_snippet(mark).text, _snippet(mark).title)
    yield f"{snippet} entity"
    yield "E-each"
    yield from (str(value) for value in _values(kind, phase, "E").values())


@pytest.mark.parametrize(("kind", "phase"), CALLS, ids=[f"{kind.id}-{phase.name}" for kind, phase in CALLS])
def test_two_items_share_all_the_fixed_text(kind: PromptType, phase: Phase) -> None:
    # given two items of one type that have nothing in common
    one, other = _asked(kind, phase, "Xenia", "E"), _asked(kind, phase, "Quint", "F")
    shared = _shared(one, other)
    # then the system's text is in what they share, and behind it there is nothing fixed but labels
    assert shared.startswith(f"{phase.system.strip()}\0")
    rest = one[len(shared) :]
    for value in sorted(_variables(kind, phase, "Xenia"), key=len, reverse=True):
        rest = rest.replace(value, "")
    assert len(rest) <= LABELS, f"fixed text behind what varies: {rest!r}"
    assert "Xenia" not in rest


CHAINS = [(kind, phase) for kind, phase in CALLS if kind.each and phase.name == ASK]


@pytest.mark.parametrize(("kind", "phase"), CHAINS, ids=[kind.id for kind, _ in CHAINS])
def test_calls_about_one_passage_share_it_where_what_varies_comes_last(kind: PromptType, phase: Phase) -> None:
    one, other = _asked(kind, phase, "Xenia", "E"), _asked(kind, phase, "Xenia", "F")
    shared = _shared(one, other)
    assert _snippet("Xenia").title in shared
    assert (_snippet("Xenia").text not in shared) == (kind.id in EACH_BEFORE_PASSAGE)


def test_the_seed_and_the_item_are_not_in_the_text() -> None:
    kind = load_catalogue()["wh/who"]
    source = Source(_snippet("Xenia"))
    texts = {chat_request(kind, source, id_, seed).messages for id_, seed in (("a", 1), ("b", 2))}
    assert len(texts) == 1
