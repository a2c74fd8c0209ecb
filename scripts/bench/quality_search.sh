#!/usr/bin/env bash
# Variants of a preset, each trained for the same time and judged as in quality.sh: which recipe is best here?
# Prints one JSON object per run, and a table, best first. A run that is there is not repeated.
#
#   scripts/bench/quality_search.sh [MINUTES=5] [VARIANT...]        all variants below, or these
#
# DATA, SAMPLES and RANKS as in quality.sh; SEED, by default 0; OURS holds arguments of `train` for all variants; OUT is
# the folder of the results, by default runs/quality/search-DATA-MINUTES. Differences between seeds are not seen in one
# run: repeat the best with other seeds.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/quality_env.sh

# VARIANT OPTION...
variants() {
    cat <<'END'
preset
eps --set diffusion.predict=eps
zero-snr --set diffusion.zero_terminal_snr=true
stratified --set diffusion.timestep_sampler=stratified
min-snr --set diffusion.weighting=min_snr
ema-0.99 --set ema.rates=[0.99]
ema-0.998 --set ema.rates=[0.998]
lr-5e-4 --set train.lr=5e-4
lr-2e-3 --set train.lr=2e-3
beta2-0.99 --set train.betas=[0.9,0.99]
batch-32 --set train.global_batch=32
batch-128 --set train.global_batch=128
bf16 --set train.precision=bf16
END
    if [ "$name" = emoji64 ]; then
        echo cosine --set diffusion.schedule=cosine
        return
    fi
    cat <<'END'
linear --set diffusion.schedule=linear
narrow --set model.channels=[16,32,64] --set model.norm_groups=16
wide --set model.channels=[32,64,128]
deep --set model.layers_per_block=2
no-attention --set model.attention=[false,false,false]
END
}

minutes=${1:-5} seed=${SEED:-0}
[[ $minutes =~ ^[1-9][0-9]*$ ]] || die "give minutes, such as 5"
mapfile -t all < <(variants)
names=$(variants | cut -d' ' -f1 | paste -sd' ')
for variant in "${@:2}"; do
    [[ " $names " = *" $variant "* ]] || die "unknown variant $variant. Give some of: $names"
done
out=${OUT:-runs/quality/search-$name-$minutes}
read -ra ours <<<"${OURS:-}"
build
peers

for line in "${all[@]}"; do
    read -ra words <<<"$line"
    [[ $# -lt 2 || " ${*:2} " = *" ${words[0]} "* ]] || continue
    folder=$out/${words[0]}-$seed
    if [ -s "$folder/result.json" ]; then
        cat "$folder/result.json"
        continue
    fi
    train_ours "$folder" $((minutes * 60)) "$seed" "${ours[@]}" "${words[@]:1}"
    draw_ours "$folder" "$seed"
    bound "$folder" "$folder/run"
    finish "${words[0]}" "$seed" "$folder"
done
numbers table preset "$out"/*/result.json | tee "$out/table.md"
