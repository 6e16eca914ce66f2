"""What a running command says of its teacher: counters that outlive a server, and the heartbeat's own share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foundation.engine_health import Look
from foundation.log import EventLog, last_events
from foundation.workspace import Workspace
from queue_workers import pulse as pulses
from queue_workers import snapshot
from queue_workers.pulse import Pulse


@pytest.fixture
def pulse(workspace: Workspace) -> Pulse:
    return Pulse(workspace, EventLog(workspace.logs, "run"), "run", speak=False)


def _beats(folder: Path) -> list[dict[str, Any]]:
    return [event for event in last_events(folder) if event["event"] == "heartbeat"]


def test_the_cache_is_counted_over_all_servers_of_a_command(pulse: Pulse) -> None:
    # given a server that told its counters, and died: then it says nothing any more
    for queries, hits in ((100, 0), (1000, 600)):
        pulse.saw(Look("well", queries=queries, hits=hits), "vllm:m")
    pulse.saw(Look("dead", "it ended"), "vllm:m")
    assert (pulse.teacher.queries, pulse.teacher.hits) == (1000, 600)
    # when another one counts from 0 again
    for queries, hits in ((0, 0), (400, 100), (1000, 200)):
        pulse.saw(Look("well", queries=queries, hits=hits), "vllm:m")
    # then both are in the sum, which never went back
    assert (pulse.teacher.queries, pulse.teacher.hits) == (2000, 800)
    assert pulse.teacher.hit_ratio == 0.4


def test_a_teacher_without_a_cache_has_no_share(pulse: Pulse) -> None:
    pulse.saw(Look("well"), "openai:m")
    assert pulse.teacher.hit_ratio is None


def test_the_snapshot_has_the_limit_and_the_cache(pulse: Pulse, workspace: Workspace) -> None:
    with pulse.beating():
        pulse.saw(Look("well", running=3, waiting=1, queries=10, hits=4, limit=17), "vllm:m")
        pulse.tick(now=True)
        (seen,) = snapshot.read(workspace)
    assert (seen.teacher.limit, seen.teacher.hits, seen.teacher.queries) == (17, 4, 10)


def test_each_heartbeat_tells_the_share_since_the_last_one(
    pulse: Pulse, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulses, "HEARTBEAT", 0.0)
    with pulse.beating():
        for queries, hits in ((1000, 900), (2000, 1000), (2000, 1000)):
            pulse.saw(Look("well", queries=queries, hits=hits, limit=8), "vllm:m")
            pulse.tick(now=True)
    beats = _beats(workspace.logs)
    # the first one came before any look
    assert [beat["prefix_cache_hit_ratio"] for beat in beats] == [None, 0.9, 0.1, None]
    assert [beat["requests_per_worker"] for beat in beats] == [None, 8, 8, 8]
