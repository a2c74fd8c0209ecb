#!/usr/bin/env bash
# Measures how the cost of a step scales with image size, channels, images per rank and ranks:
#
#   scripts/bench/scaling.sh [STEPS=10] [OPTIONS FOR bench step, such as --set train.precision=bf16]
#
# Each line changes one setting of scripts/bench/compare.toml; the machine's cores are divided among the ranks.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

steps=${1:-10}
shift $(($# < 1 ? $# : 1))
options=("$@")
build
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cores=$(env -u OMP_NUM_THREADS nproc)
cell() { sed -n "s/.*\"$1\":\([0-9.]*\).*/\1/p" <<<"$report"; }

printf '%-34s %6s %10s %10s %12s %9s\n' 'what' ranks parameters 'ms/step' 'images/s' 'MB/rank'
line() { # WHAT RANKS SETTINGS...
    local what=$1 ranks=$2
    shift 2
    export OMP_NUM_THREADS=$((cores > ranks ? cores / ranks : 1))
    report=$(launch/local.sh "$ranks" bench step --config scripts/bench/compare.toml --steps "$steps" --json "$@" \
        "${options[@]}" 2>"$log") || { cat "$log" >&2; exit 1; }
    printf '%-34s %6d %10d %10.0f %12.1f %9.0f\n' "$what" "$ranks" "$(cell params)" \
        "$(awk "BEGIN { print 1000 * $(cell median_step_s) }")" "$(cell images_per_s)" "$(cell max_rss_mb)"
}
line '32x32, channels 32, 64, 128' 1
line '16x16' 1 --set data.image_size=16
line '64x64' 1 --set data.image_size=64
line 'channels 64, 128, 256' 1 --set model.channels=[64,128,256]
line '8 images' 1 --set train.global_batch=8
line '128 images' 1 --set train.global_batch=128
line '32 images in total' 2
line '32 images per rank' 2 --set train.global_batch=64
line '32 images per rank' 4 --set train.global_batch=128
