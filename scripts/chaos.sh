#!/usr/bin/env bash
# Kills random ranks of short runs at random times, relaunches them until they are done, and compares what is left with an
# undisturbed run, bit for bit. The test suite tries two seeds; this tries as many as asked for.
#
#   scripts/chaos.sh [FIRST-LAST=1-300]      half a minute or less per seed on two cores; the log is kept in runs/
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

seeds=${1:-1-300}
[[ $seeds =~ ^[0-9]+-[0-9]+$ ]] || { echo "chaos: give seeds as FIRST-LAST, such as 1-300" >&2; exit 2; }
scripts/setup.sh --tests
cargo build --release --locked --workspace --examples
mkdir -p runs
log=runs/chaos-$seeds.log
for ((seed = ${seeds%-*}; seed <= ${seeds#*-}; seed++)); do
    printf 'seed %d: ' "$seed"
    if DDPM_CHAOS_SEEDS=$seed-$seed cargo test --release --locked -p ddpm-dist --test checkpoints \
        killed_ranks >"$log.last" 2>&1; then
        echo "equal, bit for bit"
    else
        echo "FAILED, see $log.last"
        exit 1
    fi
done | tee "$log"
