# Sourced by quality.sh and quality_search.sh: trains a preset for a given time, and judges samples.
#
# DATA     mnist (default), fashion-mnist or emoji64: the data set and its preset
# SAMPLES  number of judged samples (2000)
# RANKS    ranks of ddpm-dist (2)
. scripts/bench/env.sh
name=${DATA:-mnist} samples=${SAMPLES:-2000} ranks=${RANKS:-2}
preset=configs/$name.toml reference=10000 split=test
case $name in
    mnist | fashion-mnist) data=data/$name ;;
    emoji64) data=data/emoji reference=3786 split=train ;; # all there are
    *) die "unknown data set $name. Set DATA to mnist, fashion-mnist or emoji64" ;;
esac
[ -d "$data" ] || die "$data is missing. Run scripts/datasets.sh $(basename "$data")"
judge=$CACHE/judge/$name.pt

numbers() { "$PYTHON" scripts/bench/quality_results.py "$@"; }
judged() { "$PYTHON" scripts/bench/judge.py --judge "$judge" --data "$data" "$@"; }

# logged FOLDER COMMAND...: its stderr goes to FOLDER/log, the end of which is shown if it failed.
logged() {
    local code=0
    "${@:2}" 2>>"$1/log" || code=$?
    ((code == 0)) || tail -n 20 "$1/log" >&2
    return "$code"
}

# Grids, TensorBoard and all saves but the last would take time that the peers do not spend.
bare=(--set monitor.sample_every=0 --set monitor.tensorboard=false --set checkpoint.every=1000000)

# train_ours FOLDER SECONDS SEED OPTION...: trains for so long, the start included. The steps that fit are estimated
# before, outside of that time. If the machine has become slower since, the learning rate is above 0 at the end.
train_ours() {
    local folder=$1 seconds=$2 seed=$3 options=("${@:4}") steps started code=0
    [ ! -s "$folder/trained.json" ] || return 0
    rm -rf "$folder"
    mkdir -p "$folder"
    logged "$folder" launch/local.sh "$ranks" bench step --config "$preset" "${options[@]}" --steps 20 --json \
        >"$folder/bench.json"
    steps=$(numbers steps "$seconds" "$folder/bench.json")
    started=$SECONDS
    # When the time is over, SIGTERM makes it finish the step, save it and exit with 75.
    timeout --foreground --preserve-status "$seconds" launch/local.sh "$ranks" train --config "$preset" \
        "${options[@]}" "${bare[@]}" --set run.dir="$folder/run" --set seed="$seed" --steps "$steps" \
        >>"$folder/log" 2>&1 || code=$?
    ((code == 0 || code == 75)) || { tail -n 20 "$folder/log" >&2; return "$code"; }
    numbers trained "$folder/run" $((SECONDS - started)) "$folder/bench.json" "${options[@]}" \
        >"$folder/trained.json.part"
    mv "$folder/trained.json.part" "$folder/trained.json"
}

# draw_ours FOLDER SEED
draw_ours() {
    [ -s "$1/samples.safetensors" ] || logged "$1" launch/local.sh "$ranks" sample --model "$1/run" -n "$samples" \
        --sampler ddim --steps 50 --seed "$2" --out "$1/samples.safetensors" >&2
}

# bound FOLDER MODEL: writes FOLDER/nll.json, the bits per dimension of held-out images, if there are any
bound() {
    logged "$1" launch/local.sh "$ranks" eval nll --model "$2" --data "$preset" --split "$split" -n 512 --timesteps 40 \
        --json >"$1/nll.json"
}

# finish WHO SEED FOLDER: judges FOLDER/samples.safetensors, writes FOLDER/result.json and prints it
finish() {
    judged distance --reference "$reference" "$3/samples.safetensors" >"$3/distance.json"
    logged "$3" launch/local.sh "$ranks" eval fid --samples "$3/samples.safetensors" --data "$preset" \
        --reference-count "$reference" --features "$judge" --json >"$3/fid.json"
    numbers result "$1" "$2" "$3" >"$3/result.json.part"
    mv "$3/result.json.part" "$3/result.json"
    cat "$3/result.json"
}
