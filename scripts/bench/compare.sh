#!/usr/bin/env bash
# Training steps of ddpm-dist beside PyTorch's, in turn, on the same number of ranks and threads, with the same libtorch.
# Prints medians and their ratios.
#
#   scripts/bench/compare.sh [RANKS=2] [ROUNDS=5] [PEER OPTIONS: --channels-last --bf16 --compile]
#
# --bf16 sets the precision of both.
#
# PEER=ddp, the default, is diffusers' UNet2DModel under DistributedDataParallel: the same network, the same steps.
# PEER=lucidrains is denoising-diffusion-pytorch's trainer with a Unet of its own of about these sizes: another network.
# OURS holds more arguments for `bench step`, such as "--set comm.overlap=false"; STEPS is 30. The first run fetches
# PyTorch with its CUDA libraries, some gigabytes, which its Python half wants even where there is no GPU;
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu fetches a small one instead.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

ranks=${1:-2} rounds=${2:-5} steps=${STEPS:-30} script=scripts/bench/peer_${PEER:-ddp}.py
[ -f "$script" ] || die "there is no peer $PEER. Set PEER to ddp or lucidrains"
shift $(($# < 2 ? $# : 2))
read -ra ours <<<"${OURS:-}"
[[ " $* " != *" --bf16 "* ]] || ours=(--set train.precision=bf16 "${ours[@]}")
build
venv peers torch==2.13.0 diffusers==0.42.1 numpy setuptools denoising-diffusion-pytorch==2.3.4 ema-pytorch==0.8.3

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
