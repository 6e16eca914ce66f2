"""Workspace and settings: found upwards, closed, commented, overridden by the environment."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from foundation.errors import Failure, UsageError
from foundation.settings import Settings, load, template
from foundation.workspace import FILE, Workspace


def test_init_then_find_from_below(tmp_path: Path) -> None:
    made = Workspace.init(tmp_path / "w")
    below = tmp_path / "w" / "a" / "b"
    below.mkdir(parents=True)
    assert Workspace.find(below).root == made.root


def test_init_never_overwrites(tmp_path: Path) -> None:
    Workspace.init(tmp_path)
    (tmp_path / FILE).write_text("version = 1\n# mine\n")
    with pytest.raises(UsageError, match="already"):
        Workspace.init(tmp_path)
    assert "# mine" in (tmp_path / FILE).read_text()


def test_no_workspace_names_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FACTORY_WORKSPACE", raising=False)
    with pytest.raises(UsageError, match="factory init"):
        Workspace.find(tmp_path)


def test_template_is_the_defaults_and_every_key_has_a_comment(tmp_path: Path) -> None:
    text = template()
    (tmp_path / FILE).write_text(text)
    assert load(tmp_path / FILE) == Settings()
    lines = text.splitlines()
    keys = [number for number, line in enumerate(lines) if "=" in line and not line.startswith("#")]
    assert len(keys) > 40
    assert all(lines[number - 1].startswith("# ") for number in keys)
    assert tomllib.loads(text)["version"] == 1


def test_unknown_key_names_line_and_nearest(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('version = 1\n\n[teacher]\nbackend = "rules"\nmodle = "x"\n')
    with pytest.raises(UsageError) as caught:
        load(tmp_path / FILE)
    assert caught.value.where.endswith(f"{FILE}:5")
    assert "model" in caught.value.mend
    assert "teacher.modle" in caught.value.what


def test_unknown_table_and_bad_value(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[teachers]\nbackend = 1\n")
    with pytest.raises(UsageError, match="no such setting: teachers"):
        load(tmp_path / FILE)
    (tmp_path / FILE).write_text('[teacher]\nbackend = "gpt"\n')
    with pytest.raises(UsageError, match=r"teacher\.backend"):
        load(tmp_path / FILE)
    (tmp_path / FILE).write_text("[teacher\n")
    with pytest.raises(UsageError, match="line 1"):
        load(tmp_path / FILE)


def test_environment_overrides_one_key_and_keeps_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_text('[teacher]\nbackend = "rules"\nconcurrency = 7\n')
    monkeypatch.setenv("FACTORY_TEACHER__BACKEND", "openai")
    settings = load(tmp_path / FILE)
    assert (settings.teacher.backend, settings.teacher.concurrency) == ("openai", 7)


@pytest.mark.parametrize("name", ["FACTORY_QUEU__LEASE", "FACTORY_QUEUE__LEAS", "FACTORY_SPEED"])
def test_a_variable_that_names_no_setting_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / FILE).write_text("version = 1\n")
    monkeypatch.setenv(name, "4")
    with pytest.raises(UsageError, match="no such setting") as caught:
        load(tmp_path / FILE)
    assert caught.value.where == name


def test_a_bad_value_from_the_environment_names_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FILE).write_text("version = 1\n")
    monkeypatch.setenv("FACTORY_QUEUE__LEASE", "abc")
    with pytest.raises(UsageError, match=r"queue\.lease") as caught:
        load(tmp_path / FILE)
    assert caught.value.where == "FACTORY_QUEUE__LEASE"


def test_a_stride_that_would_lose_sentences_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[corpus]\nwindow = 4\nstride = 5\n")
    with pytest.raises(UsageError, match="longer than window"):
        load(tmp_path / FILE)


def test_a_wrong_setting_stops_every_command_that_finds_the_workspace(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("[corpus]\nwindw = 8\n")
    with pytest.raises(UsageError, match="did you mean window"):
        Workspace.find(tmp_path)


def test_secrets_do_not_print(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_TEACHER__API_KEY", "sk-very-secret")
    settings = Settings()
    assert "very-secret" not in repr(settings)
    assert settings.teacher.api_key.get_secret_value() == "sk-very-secret"


def test_lock_is_exclusive_and_names_the_holder(tmp_path: Path) -> None:
    workspace = Workspace.init(tmp_path)
    with workspace.lock("ingest"), pytest.raises(Failure, match="held by pid"), workspace.lock("ingest", wait=False):
        pytest.fail("locked twice")
    with workspace.lock("ingest", wait=False):
        pass


def test_a_long_path_gets_a_short_private_socket(tmp_path: Path) -> None:
    workspace = Workspace.init(tmp_path / ("x" * 100) / "w")
    socket = workspace.socket("redis.sock")
    assert len(str(socket)) <= 107
    assert socket.parent.stat().st_mode & 0o077 == 0
