"""Partners in the plan: for each planned snippet of a type that compares, the second snippet that stands beside it.

Guarantees: chosen once, when planned, and put into the store before the plan's line that names the set; a worker anywhere
reads what was planned. A partner whose text was withdrawn since is none: its item is rejected, and counted.
Cost: choosing reads the whole corpus (0.14 ms a snippet, see `generator/partners.py`), so a process does it once for a kind,
a round and a state of the corpus, for all blocks at once, and remembers the last of each kind (130 bytes a snippet): a refill
asks for a few blocks at a time. A unit reads its own block's file, and the partners' blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from foundation.corpus import Corpus
from foundation.errors import Failure
from foundation.ids import stable_id
from foundation.reader import TOMBSTONES
from generator.partners import Partner, choose, with_partner
from generator.render import Source

if TYPE_CHECKING:
    from foundation.prompt_type import Partner as Kind
    from foundation.records import Snippet, SplitPolicy, Unit
    from foundation.store import Store

FOLDER = "partners"
_chosen: dict[Kind, tuple[str, dict[str, bytes]]] = {}  # of each kind the last set: its name, and its blocks' files


def put_partners(store: Store, kind: Kind, blocks: Sequence[str], policy: SplitPolicy, round_: int) -> str:
    """Choose and keep the partners of every snippet of `blocks`; the set's name.

    The name is a hash of what the choice depends on, so a set is begun once and filled block by block as they are planned.
    """
    corpus = Corpus(store)
    whole, stones = corpus.blocks(), store.list(TOMBSTONES)
    retired = sorted(
        stone for stone in stones if stone.startswith((f"{TOMBSTONES}/article-", f"{TOMBSTONES}/snippet-"))
    )
    name = stable_id("partners", kind, round_, policy.model_dump_json(), *whole, *retired)
    missing = [block for block in dict.fromkeys(blocks) if not store.exists(f"{FOLDER}/{name}/{block}.json")]
    if not missing:
        return name
    if _chosen.get(kind, ("",))[0] != name:
        found = choose(kind, whole, corpus, policy, round_)
        _chosen[kind] = (
            name,
            {block: orjson.dumps([one.model_dump() if one else None for one in row]) for block, row in found.items()},
        )
    for block in missing:
        store.put_once(f"{FOLDER}/{name}/{block}.json", _chosen[kind][1][block])
    return name


def sources_of(unit: Unit, snippets: Sequence[Snippet], store: Store) -> list[Source]:
    """The unit's snippets (those that stand, in order), each with its partner where the unit has them.

    Raises `Failure` if a block, or the file with the partners, is gone.
    """
    if not unit.partners:
        return [Source(snippet) for snippet in snippets]
    corpus, stones = Corpus(store), set(store.list(TOMBSTONES))
    places = {snippet.id: index for index, snippet in enumerate(corpus.snippets(unit.block))}
    chosen = _planned(unit, [places[snippet.id] for snippet in snippets], store)
    sources = []
    for snippet, partner in zip(snippets, chosen, strict=True):
        source = with_partner(snippet, partner, corpus)
        other = source.partner
        dead = other and any(
            f"{TOMBSTONES}/{kind}-{stable_id(value)}.json" in stones
            for kind, value in (("snippet", other.id), ("article", other.article_id))
        )
        sources.append(Source(snippet) if dead else source)
    return sources


def _planned(unit: Unit, places: Sequence[int], store: Store) -> list[Partner | None]:
    """The partners planned for those places of the unit's block. Raises `Failure` if their file is missing or damaged."""
    name = f"{FOLDER}/{unit.partners}/{unit.block}.json"
    try:
        rows = orjson.loads(store.get(name))
        return [Partner(**rows[place]) if rows[place] else None for place in places]
    except (FileNotFoundError, ValueError, TypeError, LookupError) as error:
        how = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        raise Failure(
            f"the partners that were planned are {how}", where=name, mend="restore partners/ from a copy"
        ) from error
