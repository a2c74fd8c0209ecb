#!/usr/bin/env bash
# Kills ranks of short runs, or mpirun, at a random time or a random step of the save protocol. Relaunches each run
# until it is done, and compares the result with an uninterrupted run, bit for bit. The test suite tries 8 seeds; this script
# tries the given range, one line per seed. docs/log.md summarises the last full run.
#
#   scripts/chaos.sh [FIRST-LAST=1-300]      about 5 s per seed on two cores; the output is also kept in runs/
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

seeds=${1:-1-300}
[[ $seeds =~ ^[0-9]+-[0-9]+$ ]] || { echo "chaos: give seeds as FIRST-LAST, such as 1-300" >&2; exit 2; }
scripts/setup.sh --tests
mkdir -p runs
DDPM_CHAOS_SEEDS=$seeds cargo test --release --locked -p ddpm-dist --test program -- --nocapture chaos::randomly_killed_runs |
    grep --line-buffered -o 'seeds\? [0-9].*' | tee "runs/chaos-$seeds.log"
