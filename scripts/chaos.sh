#!/usr/bin/env bash
# Kills ranks of short runs, or mpirun, at random: at a random time or a random step of the save protocol. Relaunches them
# until they are done, and compares what is left with an undisturbed run, bit for bit. The test suite tries 20 seeds; this
# tries as many as asked for, one line each. docs/chaos.txt is what it said of the seeds tried last.
#
#   scripts/chaos.sh [FIRST-LAST=1-300]      some 5 s per seed on two cores; the lines are kept in runs/, too
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

seeds=${1:-1-300}
[[ $seeds =~ ^[0-9]+-[0-9]+$ ]] || { echo "chaos: give seeds as FIRST-LAST, such as 1-300" >&2; exit 2; }
scripts/setup.sh --tests
mkdir -p runs
DDPM_CHAOS_SEEDS=$seeds cargo test --release --locked -p ddpm-dist --test chaos -- --nocapture killed_at_random |
    grep --line-buffered -o 'seeds\? [0-9].*' | tee "runs/chaos-$seeds.log"
