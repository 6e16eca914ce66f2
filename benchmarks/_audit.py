"""Whether a store holds what a plan asked for: every item once, and nothing else.

Guarantees: it trusts no count and no index: it derives the plan's items and looks for each in the committed shard of its
unit, or in the rejects that complement that shard. Cost: about 15 µs a record, and 24 bytes of memory.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from foundation.corpus import Corpus
from foundation.reader import REJECTS, SHARDS, committed_rejects
from foundation.records import Unit, item_id
from foundation.store import Store
from queue_workers.plan import Plan

ID = 24  # characters of a record's id


@dataclass
class Audit:
    """`foreign_shards` belong to no unit of the plan. `items_miscounted` were (they, or a part of them that was asked about by
    itself) both accepted and rejected, rejected twice, or have another number of records than one (two for a pair). `superseded_rejects` are files of tries not committed."""

    units: int = 0
    items: int = 0
    records: int = 0
    rejects: int = 0
    lost_units: int = 0
    foreign_shards: int = 0
    doubled_records: int = 0
    items_unaccounted: int = 0
    items_miscounted: int = 0
    superseded_rejects: int = 0

    @property
    def well(self) -> bool:
        """Nothing lost and nothing doubled. (Superseded rejects are no fault: nobody counts them.)"""
        lost = self.lost_units + self.items_unaccounted
        return lost + self.foreign_shards + self.doubled_records + self.items_miscounted == 0


def audit(store: Store, plan: Plan) -> Audit:
    """Look for every item of `plan` in `store`. No text may have been retired meanwhile."""
    found, corpus, ids = Audit(), Corpus(store), bytearray()
    shards, rejects = set(store.list(SHARDS)), _by_unit(store)
    for unit in plan.units():
        found.units += 1
        if unit.shard not in shards:
            found.lost_units += 1
            continue
        shards.remove(unit.shard)
        records = [orjson.loads(line) for line in store.get(unit.shard).splitlines()]
        for record in records:
            ids += record["id"].encode()
        files = rejects.get(unit.id, [])
        refused = _rejects(store, unit, {record["attempt"] for record in records}, files)
        found.superseded_rejects += len(files) - bool(refused)
        _unit(found, unit, corpus, records, refused)
    found.foreign_shards = len(shards)
    found.doubled_records = len(ids) // ID - np.unique(np.frombuffer(ids, f"S{ID}")).size
    return found


def _by_unit(store: Store) -> dict[str, list[str]]:
    """Files of rejects by unit."""
    files: dict[str, list[str]] = {}
    for name in store.list(REJECTS):
        files.setdefault(name.rpartition("/")[2].partition(".")[0], []).append(name)
    return files


def _rejects(store: Store, unit: Unit, attempts: set[str], files: list[str]) -> list[dict[str, Any]]:
    """Those that complement the unit's shard."""
    return [orjson.loads(line) for line in committed_rejects(store, unit.shard, attempts, lambda: files)]


def _unit(
    found: Audit, unit: Unit, corpus: Corpus, records: list[dict[str, Any]], rejects: list[dict[str, Any]]
) -> None:
    """Count one unit: its records and the rejects of the try that was committed against its items."""
    snippets = corpus.snippets(unit.block)[unit.start : unit.stop]
    wanted = {item_id(snippet.id, unit.fingerprint, unit.round) for snippet in snippets}
    made, refused = Counter(map(_part, records)), Counter(map(_part, rejects))
    orders = {_part(row): 2 if row["pair_id"] else 1 for row in records}
    found.items += len(wanted)
    found.records += len(records)
    found.rejects += len(rejects)
    found.items_unaccounted += len(wanted ^ {item for item, _ in (*made, *refused)})
    wrong = {part[0] for part, count in made.items() if count != orders[part]}
    wrong |= {part[0] for part, count in refused.items() if count > 1 or part in made}
    # An item that was asked about once was accepted or rejected once; one that was asked about in parts may be both.
    words = Counter(item for item, _ in (*made, *refused))
    wrong |= {item for item, phase in (*made, *refused) if "." not in phase and words[item] > 1}
    found.items_miscounted += len(wrong)


def _part(row: dict[str, Any]) -> tuple[str, str]:
    """What one record or reject is about: an item, or the part of it that its phase names ("ask.2")."""
    return row["item"], row["phase"]
