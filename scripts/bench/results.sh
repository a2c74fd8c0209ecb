#!/usr/bin/env bash
# Reproduces comparisons of docs/results.md: objectives by their bits/dim, timestep samplers by their gradient noise.
# Needs data/mnist (scripts/datasets.sh mnist). Prints one line per run and writes runs/results/.
#
#   scripts/bench/results.sh [SEEDS=3]      about five minutes per run on two cores, four runs per seed
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/env.sh

seeds=${1:-3}
[[ $seeds =~ ^[1-9][0-9]*$ ]] || { echo "results: give the number of seeds, such as 3" >&2; exit 2; }
scripts/setup.sh
cargo build --release --locked --workspace --bins

learned=(--set diffusion.variance=learned_range)
run() { # NAME SEED OPTIONS...
    local dir=runs/results/$1-$2
    launch/local.sh 2 train --config scripts/bench/results.toml --set run.dir="$dir" --set seed="$2" "${@:3}"
    launch/local.sh 2 eval nll --model "$dir" -n 512 --timesteps 40 --json >"$dir/nll.json"
    echo "$1, seed $2: $(grep -o '"bits_per_dim":[^,]*' "$dir/nll.json")"
}
for ((seed = 0; seed < seeds; seed++)); do
    run simple "$seed" --set diffusion.variance=fixed_small
    run hybrid "$seed" "${learned[@]}" --set diffusion.loss=hybrid
    run vlb-uniform "$seed" "${learned[@]}" --set diffusion.loss=vlb
    run vlb-importance "$seed" "${learned[@]}" --set diffusion.loss=vlb --set diffusion.timestep_sampler=loss_second_moment
done
target/release/ddpm-dist plot loss --metric grad_variance --out runs/results/grad_variance.png \
    --run runs/results/vlb-uniform-0 --run runs/results/vlb-importance-0
target/release/ddpm-dist plot loss --metric vlb_smoothed --out runs/results/vlb_smoothed.png \
    --run runs/results/simple-0 --run runs/results/hybrid-0 --run runs/results/vlb-uniform-0 --run runs/results/vlb-importance-0
