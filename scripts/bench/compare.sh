#!/usr/bin/env bash
# Alternates training steps of ddpm-dist and PyTorch, on the same number of ranks and threads, with the same libtorch.
# Prints medians and their ratios.
#
#   scripts/bench/compare.sh [RANKS=2] [ROUNDS=5] [PEER OPTIONS: --channels-last --bf16 --compile]
#
# --bf16 sets the precision on both sides.
#
# PEER=ddp, the default, is diffusers' UNet2DModel under DistributedDataParallel: the same network, the same steps.
# PEER=lucidrains is denoising-diffusion-pytorch's trainer with its own Unet of about this size: a different network.
# OURS holds more arguments for `bench step`, such as "--set comm.overlap=false"; STEPS is 30. The first run fetches
# PyTorch with its CUDA libraries, several gigabytes, which its Python package requires even without a GPU;
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu fetches a small build instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

ranks=${1:-2} rounds=${2:-5} steps=${STEPS:-30} script=scripts/bench/peer_${PEER:-ddp}.py
[ -f "$script" ] || die "unknown peer $PEER. Set PEER to ddp or lucidrains"
shift $(($# < 2 ? $# : 2))
read -ra ours <<<"${OURS:-}"
[[ " $* " != *" --bf16 "* ]] || ours=(--set train.precision=bf16 "${ours[@]}")
build
peers

work=$(mktemp -d "$CACHE/bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
cores=$(env -u OMP_NUM_THREADS nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > ranks ? cores / ranks : 1))}
peer=("$PYTHON")
((ranks == 1)) || peer+=(-m torch.distributed.run --standalone --nproc-per-node "$ranks")

for ((round = 1; round <= rounds; round++)); do
    launch/local.sh "$ranks" bench step --config scripts/bench/compare.toml --set train.global_batch=$((32 * ranks)) \
        --steps "$steps" --json "${ours[@]}" 2>"$work/log" >"$work/ours" || { cat "$work/log" >&2; exit 1; }
    "${peer[@]}" "$script" --steps "$steps" --threads "$OMP_NUM_THREADS" "$@" 2>"$work/log" >"$work/theirs" ||
        { cat "$work/log" >&2; exit 1; }
    tee -a "$work/all.ours" <"$work/ours"
    tee -a "$work/all.theirs" <"$work/theirs"
done
"$PYTHON" scripts/bench/ratios.py "$work/all.ours" "$work/all.theirs" params images_per_s median_step_s first_step_s max_rss_mb
