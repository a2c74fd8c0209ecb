#!/usr/bin/env bash
# From a fresh clone to a trained model and its samples, in some minutes and with nothing to download but libraries:
# installs what is missing, builds, and trains configs/digits.toml on two ranks with data made by the program itself.
#
#   scripts/quickstart.sh           run again after a stop, it goes on where it was
#   scripts/quickstart.sh --help    this text
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

config=configs/digits.toml
dir=runs/digits
# Nobody may be left to read it: a Ctrl-C also ends the `tee` behind a pipe.
trap : PIPE
say() { printf '%s\n' "$*" >&2 || true; }

case ${1:-} in
    '') ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    *) say "quickstart: unknown option '$1'; there is only --help"; exit 2 ;;
esac

say "== 1/3 what it needs"
scripts/setup.sh
say "== 2/3 build (the first takes some minutes)"
cargo build --release --locked -p ddpm-dist

# The last step's manifest is what makes a run finished: see docs/architecture.md, invariants.
steps=$(sed -n '/^\[train\]/,/^\[[^t]/s/^steps *= *\([0-9_]*\).*/\1/p' "$config" | tr -d _)
if [ -n "$steps" ] && [ -e "$dir/checkpoints/manifest/$(printf %012d "$steps").json" ]; then
    say "== 3/3 $dir is trained already, all $steps steps of it; delete the folder to train it afresh"
else
    say "== 3/3 train on two ranks (Ctrl-C saves and stops; run this again to go on)"
    launch/local.sh 2 train --config "$config" &
    run=$!
    # A command in the background hears no Ctrl-C, so that is passed on, as what is sent to this script alone.
    trap 'kill -TERM "$run" 2>/dev/null || true' INT TERM HUP
    status=0
    wait "$run" || status=$?
    while kill -0 "$run" 2>/dev/null; do # a signal ended the wait
        status=0
        wait "$run" || status=$?
    done
    trap - INT TERM HUP
    case $status in
        0) ;;
        75) say "Stopped on request, saved in $dir. Run scripts/quickstart.sh again to go on."; exit 75 ;;
        *) say "Training ended with status $status; its last lines above say why."; exit "$status" ;;
    esac
fi

program=${CARGO_TARGET_DIR:-target}/release/ddpm-dist
grid=$(find "$dir/samples" -name 'step-*.png' 2>/dev/null | sort | tail -n 1 || true)
cat >&2 <<EOF

Samples       ${grid:-none yet in $dir/samples}
Metrics       $dir/metrics.jsonl, one line of JSON per logged step
Curves        tensorboard --logdir $dir/tb      (to install it: pipx install tensorboard)
Checkpoints   $dir/checkpoints

More samples from what was trained:
    $program sample --model $dir --out more.png
Next, real handwriting:
    scripts/datasets.sh mnist
    launch/local.sh 2 train --config configs/mnist.toml
EOF
