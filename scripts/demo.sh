#!/usr/bin/env bash
# The whole line at a small size, from text to a judged model, in demo/. What an earlier demo left there is replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"
unset FACTORY_WORKSPACE

if [ -e demo ]; then
    [ -f demo/.made-by-make-demo ] || { echo "error: demo/ is not of this script's making; move it away" >&2; exit 2; }
    (cd demo && factory stop) || true
    rm -rf demo
fi

step() { printf '\n\033[1m%s\033[0m  (%ds)\n' "$*" "$SECONDS"; "$@"; }

factory init demo
touch demo/.made-by-make-demo
cp examples/wwii/factory.toml demo/factory.toml
cd demo

step factory ingest ../examples/wwii/articles
# A prompt type for each kind of question; `factory enqueue --all` would take all of them, and the demo far longer.
step factory enqueue $(printf -- '--prompt-type %s ' \
    choice/four-options cloze/entity contrastive/person contrastive/date qpt/formal qpt/student-before-an-exam \
    qpt/tell-me-about structure/key-facts truth/true-statement truth/false-with-correction wh/who wh/when)
step factory work --burst
step factory status
step trainer shuffle
step trainer tokenizer
step trainer pack
step trainer run --orchestrate
step trainer chat -p "Who commanded the German Sixth Army at Stalingrad?"
step factory report
printf '\nThe demo took %d s.\nThe student, judged: demo/train/runs/main/judged.html. The whole line: demo/report.html.\nTalk to the model with: cd demo && trainer chat\n' "$SECONDS"
