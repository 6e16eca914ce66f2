"""Partners in the plan: for each planned snippet of a type that compares, the second snippet that stands beside it.

Guarantees: chosen once, when planned, and put into the store before the plan's line that names the set; a worker anywhere
reads what was planned. A partner whose text was withdrawn since is none: its item is rejected, and counted.
Cost: a set of a block's partners takes some 80 bytes a snippet; a unit reads its own block's, and the partners' blocks.
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


def put_partners(store: Store, kind: Kind, blocks: Sequence[str], policy: SplitPolicy, round_: int) -> str:
    """Choose and keep the partners of every snippet of `blocks`; the set's name."""
    files = {
        block: orjson.dumps([one.model_dump() if one else None for one in chosen])
        for block, chosen in choose(kind, blocks, Corpus(store), policy, round_).items()
    }
    name = stable_id("partners", *(part for block, data in files.items() for part in (block, data.decode())))
    for block, data in files.items():
        store.put_once(f"{FOLDER}/{name}/{block}.json", data)
    return name


def sources_of(unit: Unit, snippets: Sequence[Snippet], store: Store) -> list[Source]:
    """The unit's snippets (those that stand, in order), each with its partner where the unit has them."""
    if not unit.partners:
        return [Source(snippet) for snippet in snippets]
    name = f"{FOLDER}/{unit.partners}/{unit.block}.json"
    try:
        rows = orjson.loads(store.get(name))
    except FileNotFoundError as error:
        raise Failure(
            "the partners that were planned are missing", where=name, mend="restore partners/ from a copy"
        ) from error
    corpus, stones = Corpus(store), set(store.list(TOMBSTONES))
    places = {snippet.id: index for index, snippet in enumerate(corpus.snippets(unit.block))}
    sources = []
    for snippet in snippets:
        row = rows[places[snippet.id]]
        source = with_partner(snippet, Partner(**row) if row else None, corpus)
        other = source.partner
        dead = other and any(
            f"{TOMBSTONES}/{kind}-{stable_id(value)}.json" in stones
            for kind, value in (("snippet", other.id), ("article", other.article_id))
        )
        sources.append(Source(snippet) if dead else source)
    return sources
