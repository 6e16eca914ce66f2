"""A real orchestrated run takes the device from a real `factory run`, keeps it over all its stages, and gives it back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation.devices import device_holder
from foundation.workspace import Workspace
from tests.queue_workers.test_supervisor import DRAIN, HOLD
from tests.support.faults import assert_all_is_there, committed, ended, event_names, factory, wait_for
from tests.trainer.orchestrated import packed, start

pytestmark = pytest.mark.timeout(600)


@pytest.mark.slow
def test_an_orchestrated_run_takes_the_device_from_the_factory_and_gives_it_back(
    make: Callable[..., Workspace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QPT_DEVICES", str(tmp_path / "devices"))
    student = Workspace(packed(tmp_path / "student"))
    settings = student.root / "factory.toml"
    settings.write_text(settings.read_text().replace("rounds = 2", "rounds = 1"))
    workspace = make(blocks=200)
    with factory(workspace, *DRAIN, prelude=HOLD) as process:
        wait_for(lambda: committed(workspace), what="the first commit")
        trainer = start(student)
        holders: list[str] = []
        made: set[int] = set()
        while trainer.poll() is None:
            holder = device_holder("cpu")
            if not holders or holders[-1] != holder:
                holders.append(holder)
            if "orchestrate" in holder:
                made.add(len(committed(workspace)))
            time.sleep(0.05)
        out, err = trainer.communicate(timeout=10)
        assert trainer.returncode == 0, err
        # it asked once, and no stage of its round let go of the device; meanwhile the factory made nothing
        assert "asked it to hand over" in err
        assert [one.partition(",")[0] for one in holders if one][:2] == [
            "factory run",
            f"trainer run --orchestrate in {student.root}",
        ]
        assert sum("orchestrate" in one for one in holders) == 1
        assert len(made) == 1
        assert json.loads(out)["rounds_trained"] == 1
        # and then the factory goes on to its end
        ended(process, workspace)
    assert {"handed_over", "device_free"} <= set(event_names(workspace))
    assert_all_is_there(workspace)
