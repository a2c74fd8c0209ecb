#!/usr/bin/env bash
# Quality at equal time of training, the start included: ddpm-dist and diffusers, one after the other on the same cores.
# Prints one JSON object per run, and a table of medians: see docs/performance.md. It needs cores that nothing else
# uses: threads that wait for each other lose more than their share on busy ones.
#
#   scripts/bench/quality.sh [MINUTES=20] [SEEDS=1]
#
# WHO     who trains, by default "ours tuned script":
#           ours     the preset of the data set, with its schedule of the learning rate over the steps that fit
#           tuned    the same network, process and recipe in diffusers' parts, in its fastest setting
#           script   diffusers' train_unconditional.py with its defaults: 114 million parameters, of which 2,000 samples
#                    take longer than 20 minutes of training
# DATA    mnist (default), fashion-mnist or emoji64; SAMPLES, by default 2000; RANKS of ddpm-dist, by default 2
# OURS    more arguments of `train`, such as "--set train.precision=auto", which `tuned` follows where it can
# TUNED   more arguments of peer_quality.py train tuned, such as "--lr 2e-3 --ema 0.99"
# COMPILE=1 tries torch.compile too; BF16=1 draws the peers' samples in bf16
# OUT     the folder of the results, by default runs/quality/DATA-MINUTES. A run that is there is not repeated: give
#         another one if you change OURS or TUNED
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/quality_env.sh
. scripts/bench/peers.sh

minutes=${1:-20} seeds=${2:-1}
[[ $minutes =~ ^[1-9][0-9]*$ && $seeds =~ ^[1-9][0-9]*$ ]] || die "give minutes and seeds, such as 20 3"
seconds=$((minutes * 60)) out=${OUT:-runs/quality/$name-$minutes}
cores=$(env -u OMP_NUM_THREADS nproc)
read -ra ours <<<"${OURS:-}"
read -ra tuned <<<"${TUNED:-}"
build
peers
mkdir -p "$out"

# like: the network and process of the preset in diffusers' files, from a run of one step
like() {
    [ ! -f "$out/like/export/model_index.json" ] || return 0
    rm -rf "$out/like"
    mkdir -p "$out/like"
    logged "$out/like" launch/local.sh 1 train --config "$preset" "${ours[@]}" "${bare[@]}" --steps 1 \
        --set run.dir="$out/like/run" >&2
    logged "$out/like" launch/local.sh 1 export "$out/like/run" --out "$out/like/export" --no-variants --no-grid >&2
}

# peer RECIPE RANKS FOLDER OPTION...: trains until the time is over
peer() {
    local threads=$((cores > $2 ? cores / $2 : 1)) launcher=("$PYTHON") like=()
    (($2 == 1)) || launcher+=(-m torch.distributed.run --standalone --nproc-per-node "$2")
    [ "$1" = script ] || like=(--like "$out/like/run" --network "$out/like/export")
    OMP_NUM_THREADS=$threads logged "$out" "${launcher[@]}" scripts/bench/peer_quality.py train "$1" "$3" \
        --data "$data" --threads "$threads" --seconds "$seconds" --deadline $(($(date +%s) + seconds)) \
        "${like[@]}" "${@:4}"
}

# trial RANKS OPTION...: a report of the first steps of `tuned`
trial() { peer tuned "$1" "$out/trial" --steps 12 "${tuned[@]}" "${@:2}"; }

# choose: writes the ranks and options with which `tuned` gets through most images to $out/fastest
choose() {
    [ ! -s "$out/fastest" ] || return 0
    local counts=(1) settings=() count layout precision best
    ((cores == 1)) || counts+=("$cores")
    for count in "${counts[@]}"; do for layout in "" ,--channels-last; do for precision in "" ,--bf16; do
        settings+=("$count$layout$precision")
        [ "${COMPILE:-0}" = 0 ] || settings+=("$count$layout$precision,--compile")
    done; done; done
    read -r _ best < <(fastest trial "${settings[@]}")
    [ -n "$best" ] || die "no setting of the peer works: see $out/log"
    echo "${best//,/ }" >"$out/fastest"
}

# draw_peer FOLDER SEED
draw_peer() {
    local precision=()
    [ "${BF16:-0}" = 0 ] || precision=(--bf16)
    [ -s "$1/samples.safetensors" ] || logged "$out" "$PYTHON" scripts/bench/peer_quality.py draw "$1" --data "$data" \
        --count "$samples" --seed "$2" --threads "$cores" --out "$1/samples.safetensors" "${precision[@]}"
}

run_ours() { # FOLDER SEED
    train_ours "$1" "$seconds" "$2" "${ours[@]}"
    draw_ours "$1" "$2"
    bound "$1" "$1/run"
}
run_tuned() {
    local setting
    if [ ! -s "$1/trained.json" ]; then
        like
        choose
        read -ra setting <"$out/fastest"
        rm -rf "$1"
        peer tuned "${setting[0]}" "$1" --seed "$2" "${setting[@]:1}" "${tuned[@]}" >/dev/null
    fi
    draw_peer "$1" "$2"
    bound "$1" "$1"
}
run_script() {
    [ -s "$1/trained.json" ] || { rm -rf "$1" && peer script 1 "$1" --seed "$2" >/dev/null; }
    draw_peer "$1" "$2"
}

for ((seed = 0; seed < seeds; seed++)); do
    for who in ${WHO:-ours tuned script}; do
        [[ $who =~ ^(ours|tuned|script)$ ]] || die "WHO has $who. Give some of: ours tuned script"
        folder=$out/$who-$seed
        if [ -s "$folder/result.json" ]; then
            cat "$folder/result.json"
        else
            "run_$who" "$folder" "$seed"
            finish "$who" "$seed" "$folder"
        fi
    done
done
[ "$split" != test ] || judged real --reference "$reference" --count "$samples" | tee "$out/real.json"
numbers table ours "$out"/*-*/result.json | tee "$out/table.md"
