"""A prompt type whose text changed while its version did not is told of when it is enqueued."""

from __future__ import annotations

from foundation.store_memory import MemoryStore
from generator.catalogue import load_catalogue
from queue_workers.plan import same_version


def test_another_text_of_the_same_version_is_named() -> None:
    # given a type that was planned
    planned, store = load_catalogue()["wh/who"], MemoryStore()
    store.put_once(planned.file, planned.model_dump_json().encode())
    assert same_version(store, [planned]) == []

    # when its text changes, then it is named; with its version raised it is not
    edited = type(planned)(**{**planned.model_dump(), "system": "Write another question."})
    assert same_version(store, [edited]) == ["wh/who"]
    raised = type(planned)(**{**edited.model_dump(), "version": planned.version + 1})
    assert same_version(store, [raised]) == []
