"""The wheel, installed in a bare environment outside the repository, runs the commands there.

The plain test installs, beside the wheel, only what `factory prompts list` really imports, and checks that the wheel asks for
each of those. The slow one lets pip install everything the wheel asks for (over a minute even from pip's cache).
"""

import json
import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"foundation", "generator", "trainer", "judge", "queue_workers", "prompts"}
IMPORTED = """
import sys
from generator.cli import main
try:
    main()
finally:
    print("\\n".join({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def call(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `command` as a stranger would, without this environment's variables for Python."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from the working tree."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def bare_environment(folder: Path) -> Path:
    """Make a virtual environment in `folder` with pip alone and return its bin folder."""
    call(sys.executable, "-m", "venv", folder / "env", cwd=folder)
    return folder / "env/bin"


def listed_prompts(bin_folder: Path, cwd: Path) -> set[str]:
    listing = json.loads(call(bin_folder / "factory", "prompts", "list", "--json", cwd=cwd).stdout)
    types = listing if isinstance(listing, list) else listing["prompts"]
    return {prompt["id"] for prompt in types}


def prompts_of_the_repository() -> set[str]:
    return {f"{path.parent.name}/{path.stem}" for path in ROOT.glob("prompts/*/*.md") if path.parent.name != "judge"}


def wanted_by(wheel_file: Path) -> set[str]:
    """The canonical names of all that the wheel asks for, directly or through another."""
    with zipfile.ZipFile(wheel_file) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    todo = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    names: set[str] = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in names or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        names.add(name)
        try:
            todo += [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:  # one that this platform does not need
            continue
    return names


def test_it_ships_the_rooms_and_the_prompts_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    assert {t for t in top if not t.endswith(".dist-info")} == PACKAGES
    assert "prompts/cloze/entity.md" in names
    assert any(re.fullmatch(r"qpt_factory-.*\.dist-info/licenses/LICENSE", name) for name in names)


def test_it_lists_its_prompts_in_a_bare_environment(wheel: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPORTED, "prompts", "list", "--json"]
    modules = call(*command, cwd=ROOT).stderr.split()
    owners = packages_distributions()
    needed = {canonicalize_name(name) for module in modules for name in owners.get(module, [])} - {"qpt-factory"}
    # What this environment loads by itself at start (an editable install's hooks) is not the project's.
    at_start = call(sys.executable, "-c", "import sys; print(*{m.partition('.')[0] for m in sys.modules})", cwd=ROOT)
    needed -= {canonicalize_name(name) for module in at_start.stdout.split() for name in owners.get(module, [])}
    assert needed <= wanted_by(wheel), "imported, but not asked for in pyproject.toml"

    bin_folder = bare_environment(tmp_path)
    pip = [bin_folder / "python", "-m", "pip", "install", "--quiet"]
    call(*pip, "--constraint", ROOT / "constraints.txt", *sorted(needed), cwd=tmp_path)
    call(*pip, "--no-deps", wheel, cwd=tmp_path)
    found = listed_prompts(bin_folder, tmp_path)
    assert "cloze/entity" in found
    assert found == prompts_of_the_repository()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_it_asks_for_installs_and_every_command_answers(wheel: Path, tmp_path: Path) -> None:
    bin_folder = bare_environment(tmp_path)
    pip = [bin_folder / "python", "-m", "pip"]
    index = os.environ.get("TORCH_CPU_INDEX")
    options = ["--extra-index-url", index] if index else []
    torch = f"torch=={version('torch')}"  # the build chosen at set-up, not several GB of another
    call(*pip, "install", "--quiet", "--constraint", ROOT / "constraints.txt", *options, torch, wheel, cwd=tmp_path)
    call(*pip, "check", cwd=tmp_path)
    assert "cloze/entity" in listed_prompts(bin_folder, tmp_path)
    for name in ("factory", "trainer", "judge"):
        assert "Usage" in call(bin_folder / name, "--help", cwd=tmp_path).stdout
