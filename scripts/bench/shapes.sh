#!/usr/bin/env bash
# The comparison of compare.sh for networks that people train: images per second and peak memory of training steps of
# ddpm-dist and of diffusers, on one rank of all cores, in fp32 and in bf16. Prints a Markdown table.
#
#   scripts/bench/shapes.sh [PRESET...]     by default cifar10 celeba64 improved-imagenet64 mnist-small
#
# About half an hour on two cores with COMPILE=0, which leaves torch.compile out; that takes minutes for each network
# and precision.
#
# In each precision every setting of the peer takes a few steps. The fastest one then alternates with ddpm-dist ROUNDS=3
# times, in as many steps as take the peer about EACH=20 seconds. BATCH replaces the images per step of every preset. A
# row is appended to OUT=runs/shapes.jsonl as soon as it is measured, and the table has the latest row of each network
# and precision in that file, so presets can be measured one by one. OURS is as in compare.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/peers.sh

rounds=${ROUNDS:-3} each=${EACH:-20} out=${OUT:-runs/shapes.jsonl}
shapes=("$@")
(($#)) || shapes=(cifar10 celeba64 improved-imagenet64 mnist-small)
settings=("" --channels-last)
[ "${COMPILE:-1}" = 0 ] || settings+=(--compile --compile,--channels-last)
build
peers
mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$CACHE/bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
export OMP_NUM_THREADS

# size PRESET: images per step, and the number of steps that are enough to choose a setting by
size() {
    case $1 in
        cifar10) echo "${BATCH:-16} 2" ;;
        improved-imagenet64) echo "${BATCH:-4} 2" ;;
        mnist-small) echo "${BATCH:-128} 20" ;;
        *) echo "${BATCH:-8} 2" ;;
    esac
}
# check PRESET: prints its size, and refuses what would not fit in memory.
check() {
    "$TARGET/release/ddpm-dist" train --config "$1" --dry-run --json --set run.dir="$work/run" \
        --set data.kind=synthetic --set data.workers=1 --set train.global_batch="$batch" 2>"$work/log" >"$work/plan" ||
        { cat "$work/log" >&2; exit 1; }
    "$PYTHON" scripts/bench/shapes.py size "$1" <"$work/plan"
}
# a_few OPTION...: a report of the peer's first steps
a_few() {
    "$PYTHON" scripts/bench/peer_ddp.py --model "$network" --batch "$batch" --steps "$few" --warmup 2 \
        --threads "$OMP_NUM_THREADS" "${precision[@]}" "$@" 2>"$work/log" || { cat "$work/log" >&2; return 1; }
}
# measure PRESET [--bf16]: appends a row.
measure() {
    local precision=("${@:2}") rate setting steps
    read -r rate setting < <(fastest a_few "${settings[@]}")
    [ "$rate" != 0 ] || die "the peer runs in no setting; its messages are above"
    steps=$(awk "BEGIN { steps = int($each * $rate / $batch + 0.5); print steps < 3 ? 3 : steps }")
    # shellcheck disable=SC2086 # split into options
    CONFIG=$1 BATCH=$batch STEPS=$steps WARMUP=2 NETWORK=$network scripts/bench/compare.sh 1 "$rounds" \
        "${precision[@]}" ${setting//,/ } | tee "$work/rounds"
    "$PYTHON" scripts/bench/shapes.py row "$1" <"$work/rounds" >>"$out"
}

for shape in "${shapes[@]}"; do
    read -r batch few < <(size "$shape")
    check "$shape"
    network=$work/network
    untrained "$shape" "$network"
    measure "$shape"
    measure "$shape" --bf16
    rm -r "$network"
done
"$PYTHON" scripts/bench/shapes.py table <"$out"
