#!/usr/bin/env bash
# The distance of samples against the width of the average they are drawn with (docs/results.md), all from one run on MNIST.
# Needs data/mnist (scripts/datasets.sh) and a file of features (scripts/features.sh efficientnet-lite0). Prints one line
# per width; writes runs/widths/, with the curve as widths.png beside its numbers.
#
#   scripts/bench/widths.sh FEATURES.pt [SAMPLES=1000]      about fifteen minutes on two cores
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/env.sh

features=${1:?widths: give the file that scripts/features.sh efficientnet-lite0 has made}
samples=${2:-1000}
scripts/setup.sh
cargo build --release --locked --workspace --bins

launch/local.sh 2 train --config scripts/bench/results.toml --set run.dir=runs/widths \
    --set ema.widths=[0.05,0.25] --set ema.snapshot_every=25
distance() { # WEIGHTS
    launch/local.sh 2 eval fid --model runs/widths --weights "$1" -n "$samples" --reference-count 10000 --steps 20 \
        --features "$features" --json |
        grep -o '"frechet_distance":[^,]*' | cut -d: -f2
}
for width in 0.05 0.07 0.1 0.13 0.16 0.2 0.25; do echo "$width $(distance width=$width)"; done |
    tee runs/widths/averages.txt
raw=$(distance raw)
echo "raw weights: $raw"
printf '%s %s\n' 0.05 "$raw" 0.25 "$raw" > runs/widths/raw-weights.txt
target/release/ddpm-dist plot points --file runs/widths/averages.txt --file runs/widths/raw-weights.txt \
    --x-label "relative width of the average" --y-label "Fréchet distance" --out runs/widths/widths.png
