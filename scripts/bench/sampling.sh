#!/usr/bin/env bash
# Alternates drawing by `ddpm-dist sample` and by diffusers' DDIMPipeline: the same network with the same weights (that of
# compare.sh, 3.69 million), DDIM, one process of as many threads as there are cores, the same libtorch. Prints medians of
# images per second and their ratios.
#
#   scripts/bench/sampling.sh [ROUNDS=5] [IMAGES=64] [STEPS=50]
#
# First each setting of the peer draws once in a tenth of the steps; the fastest one in fp32 and the fastest of all take
# part. COMPILE=0 leaves torch.compile out, which takes minutes. BATCH sets the images per pass of both sides, by default
# 64; THREADS the threads. The first run fetches PyTorch and diffusers: see compare.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

rounds=${1:-5} images=${2:-64} steps=${3:-50} batch=${BATCH:-64}
build
peers

work=$(mktemp -d "$CACHE/bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=${THREADS:-$(env -u OMP_NUM_THREADS nproc)}
"$PYTHON" scripts/bench/peer_sampling.py save "$work/model" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }

# theirs STEPS OPTION...: one JSON object
theirs() {
    local steps=$1
    shift
    "$PYTHON" scripts/bench/peer_sampling.py draw "$work/model" --images "$images" --steps "$steps" --batch "$batch" \
        --threads "$OMP_NUM_THREADS" "$@" 2>"$work/log" || { cat "$work/log" >&2; return 1; }
}
# ours PRECISION: one JSON object
ours() {
    "$TARGET/release/ddpm-dist" sample --model "$work/model" -n "$images" --steps "$steps" --batch "$batch" --json \
        --precision "$1" --out "$work/samples.safetensors" 2>"$work/log" || { cat "$work/log" >&2; return 1; }
}
rate() { "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["images_per_s"])'; }

# fastest OPTION...: the fastest of the peer's settings, each one word of options joined by commas
fastest() {
    local setting best="" most=0 found
    for setting in "$@"; do
        # A setting that a version of PyTorch cannot run is passed over.
        # shellcheck disable=SC2086 # split into options
        found=$(theirs "$(((steps + 9) / 10))" ${setting//,/ } | rate) || { echo "$setting: failed" >&2; continue; }
        printf '%-40s %8.2f images/s in %s steps\n' "peer ${setting:-as it is}" "$found" "$(((steps + 9) / 10))" >&2
        if awk "BEGIN { exit !($found > $most) }"; then most=$found best=$setting; fi
    done
    echo "$best"
}

fp32=("" --channels-last) bf16=(--autocast --autocast,--channels-last --bf16 --bf16,--channels-last)
if [ "${COMPILE:-1}" = 1 ]; then
    fp32+=(--compile --compile,--channels-last)
    bf16+=(--compile,--autocast,--channels-last --compile,--bf16 --compile,--bf16,--channels-last)
fi
best_fp32=$(fastest "${fp32[@]}")
best=$(fastest "$best_fp32" "${bf16[@]}")

for ((round = 1; round <= rounds; round++)); do
    ours fp32 | tee -a "$work/ours.fp32"
    # shellcheck disable=SC2086
    theirs "$steps" ${best_fp32//,/ } | tee -a "$work/theirs.fp32"
    ours bf16 | tee -a "$work/ours.bf16"
    # shellcheck disable=SC2086
    theirs "$steps" ${best//,/ } | tee -a "$work/theirs.best"
done
compare() {
    echo "$1"
    "$PYTHON" scripts/bench/ratios.py "$work/$2" "$work/$3" images_per_s
}
compare "fp32 against the peer's fp32 (${best_fp32:-as it is})" ours.fp32 theirs.fp32
compare "fp32 against the peer's best (${best:-as it is})" ours.fp32 theirs.best
compare "bf16 against the peer's fp32 (${best_fp32:-as it is})" ours.bf16 theirs.fp32
compare "bf16 against the peer's best (${best:-as it is})" ours.bf16 theirs.best
