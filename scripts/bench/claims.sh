#!/usr/bin/env bash
# Measures what the papers claim, for docs/results.md: one table and one figure for each claim, from networks of
# scripts/bench/results.toml on MNIST.
#
#   scripts/bench/claims.sh [CLAIM...]      all of them by default, in this order:
#
#   few-steps    distance against the evaluations of the network: learned and fixed variance, DDIM, DPM-Solver++, Heun
#   objective    hybrid against simple
#   importance   importance-sampled against uniform timesteps, training on the bound
#   schedules    cosine against linear
#   ema          rates of the moving average, at a constant learning rate
#   guidance     scales of classifier-free guidance and of guidance by a classifier
#   corrector    the size of Langevin corrector steps
#
# Needs data/mnist (scripts/datasets.sh mnist). Stop it at any time, and run it again to go on: runs that are complete
# and evaluations that were made are kept in $RUNS, and what several claims need is trained and evaluated once.
#
#   SEEDS=3             runs of each kind; with more than one, tables have mean ± standard deviation
#   MINUTES=20          how long the simple run trains. All runs take as many steps, whatever a step costs them; their
#                       number is measured by the first call, at the speed of that moment, and kept in $RUNS/steps
#   STEPS=N             that number itself, instead of MINUTES
#   FID_SAMPLES=2000    images drawn for each distance from the training images; compare only figures of the same number
#   FEATURES=FILE.pt    features of that distance, as of `eval fid`, or `pixels`; by default those of EfficientNet-Lite0,
#                       which scripts/features.sh makes if it has not yet
#   RUNS=runs/claims    the runs, NAME-SEED; evaluations, CLAIM.jsonl; tables, CLAIM.md
#   IMAGES=docs/images/results      the figures, CLAIM.png, and pictures of guided samples
#   DDPM_DIST=PROGRAM   a program that is built already
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

ALL=(few-steps objective importance schedules ema guidance corrector)
seeds=${SEEDS:-3} minutes=${MINUTES:-20} samples=${FID_SAMPLES:-2000}
RUNS=${RUNS:-runs/claims} IMAGES=${IMAGES:-docs/images/results}

(($# > 0)) || set -- "${ALL[@]}"
for claim; do
    [[ " ${ALL[*]} " == *" $claim "* ]] || die "unknown claim '$claim'. Choose from: ${ALL[*]}"
done
for number in "$seeds" "$minutes" "$samples" "${STEPS:-1}"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] ||
        die "SEEDS, MINUTES, STEPS and FID_SAMPLES are whole numbers above 0, unlike '$number'"
done
[ -n "${DDPM_DIST:-}" ] || build
features=${FEATURES:-$(scripts/features.sh efficientnet-lite0)}
mkdir -p "$RUNS" "$IMAGES"

ours() { launch/local.sh 2 "$@"; }

# count_steps: sets `steps`, the same number for all runs, so that they differ in what is claimed alone.
count_steps() {
    if [ ! -s "$RUNS/steps" ]; then
        if [ -z "${STEPS:-}" ]; then
            echo "claims: measuring how many steps take $minutes minutes" >&2
            STEPS=$(ours bench step --config scripts/bench/results.toml --steps 200 --json | python3 -c '
import json, sys
seconds = 60 * int(sys.argv[1]) / json.load(sys.stdin)["median_step_s"]
print(max(100, int(seconds) // 100 * 100))' "$minutes")
        fi
        echo "$STEPS" >"$RUNS/steps"
    fi
    steps=$(<"$RUNS/steps")
    [ "${STEPS:-$steps}" = "$steps" ] || die "the runs in $RUNS have $steps steps. Give another RUNS, or STEPS=$steps"
    echo "claims: $steps steps in each run, as $RUNS/steps says" >&2
}

# trained RUN: trains the run of this name and the current seed, unless it is complete.
trained() {
    local command=train config=scripts/bench/results.toml keys
    case $1 in
        simple) keys=() ;;
        linear) keys=(diffusion.schedule=linear) ;;
        hybrid) keys=(diffusion.variance=learned_range diffusion.loss=hybrid) ;;
        vlb-uniform) keys=(diffusion.variance=learned_range diffusion.loss=vlb) ;;
        vlb-importance)
            keys=(diffusion.variance=learned_range diffusion.loss=vlb diffusion.timestep_sampler=loss_second_moment)
            ;;
        averages) keys=(train.lr_schedule=constant 'ema.rates=[0.9,0.99,0.999,0.9999]') ;;
        conditional) keys=(model.classes=10 diffusion.label_dropout=0.1) ;;
        classifier) command=train-classifier config=mnist-classifier keys=() ;;
        judge) command=train-classifier config=mnist-classifier keys=('model.channels=[32,64,128]') ;;
    esac
    keys+=(run.dir="$RUNS/$1-$seed" seed="$seed")
    ours "$command" --config "$config" --steps "$steps" "${keys[@]/#/--set=}"
}

# record SERIES X COMMAND...: one line of the claim, with the JSON that COMMAND prints. If any claim has the same
# command's result, it is not run again.
record() {
    local command="${*:3}" head line
    head="{\"series\": \"$1\", \"x\": $2, \"seed\": $seed, "
    line=$(grep -hsF "\"command\": \"$command\", " "$RUNS"/*.jsonl) || true
    line=${line%%$'\n'*}
    if [ -z "$line" ]; then
        echo "claims: $claim, seed $seed: $command" >&2
        line="\"command\": \"$command\", \"result\": $("${@:3}" | merged)}"
    fi
    line="$head\"command\": ${line#*\"command\": }"
    grep -qsFx "$line" "$RUNS/$claim.jsonl" || echo "$line" >>"$RUNS/$claim.jsonl"
    lines+=$line$'\n'
}

# merged: the JSON objects on stdin as one, without what they say of single images and timesteps.
merged() {
    python3 -c '
import json, sys
found = {}
for line in sys.stdin:
    found |= json.loads(line)
print(json.dumps({key: value for key, value in found.items() if key not in ("terms", "predicted", "labels")}))'
}

# Measurements of a run of the current seed: RUN SERIES X OPTIONS...
nll() { record "$2" "$3" bound --model "$RUNS/$1-$seed" "${@:4}"; }
fid() { record "$2" "$3" distance "$samples" "$features" --model "$RUNS/$1-$seed" "${@:4}"; }
logged() { record "$2" "$3" metric "$RUNS/$1-$seed" "$3" "$4"; } # at step X; the option is the metric

bound() { ours eval nll -n 512 --timesteps 40 --json "$@"; }

# distance COUNT FEATURES OPTIONS...: of samples drawn with these options. judged_distance COUNT FEATURES JUDGE
# OPTIONS...: also how many show the class asked for, by this classifier.
distance() { draw "$1" "${@:3}"; compare "$2"; }
judged_distance() {
    draw "$1" "${@:4}"
    ours eval classes --samples "$RUNS/drawn.safetensors" --classifier "$3" --json
    compare "$2"
}
# Timesteps run from the last to the first, as in the papers' figures, which `eval fid` alone cannot do.
draw() { ours sample -n "$1" --spacing linspace --out "$RUNS/drawn.safetensors" "${@:2}"; }
compare() {
    ours eval fid --samples "$RUNS/drawn.safetensors" --data scripts/bench/results.toml --features "$1" --json
}

# metric FOLDER STEP KEY: its last value up to this step.
metric() {
    python3 -c '
import json, sys
folder, step, key = sys.argv[1:]
lines = map(json.loads, open(folder + "/metrics.jsonl"))
values = [line[key] for line in lines if line["step"] <= int(step) and line[key] is not None]
if not values:
    sys.exit(f"claims: {folder} logged no {key} up to step {step}. Give another RUNS, and more STEPS")
print(json.dumps({key: values[-1]}))' "$@"
}

# The claims, for one seed.

few_steps() {
    local n
    trained simple
    trained hybrid
    for n in 10 25 50 100 250 1000; do
        fid hybrid "ancestral, learned variance" "$n" --sampler ddpm --steps "$n"
        fid simple "ancestral, fixed variance" "$n" --sampler ddpm --steps "$n"
        fid simple "DDIM, eta 1" "$n" --sampler ddim --eta 1 --steps "$n"
        # With less noise, the distance has settled by then.
        ((n <= 100)) || continue
        fid simple "DDIM, eta 0.5" "$n" --sampler ddim --eta 0.5 --steps "$n"
        fid simple "DDIM, eta 0" "$n" --sampler ddim --eta 0 --steps "$n"
        fid simple "DPM-Solver++ 2M" "$n" --sampler dpmpp --steps "$n"
        # Two evaluations in each step but the last, so one less than an even n.
        fid simple "Heun" "$n" --sampler heun --steps $(((n + 1) / 2))
    done
}

objective() {
    local run
    for run in simple hybrid; do
        trained "$run"
        nll "$run" "$run" null
        # Ancestral: the other samplers do not use the variance.
        fid "$run" "$run" null --sampler ddpm --steps 100
    done
}

importance() {
    local run quarter
    for run in vlb-uniform vlb-importance; do
        trained "$run"
        for quarter in 1 2 3 4; do logged "$run" "${run#vlb-}" $((steps * quarter / 4)) grad_variance; done
        nll "$run" "${run#vlb-}" null
    done
}

schedules() {
    local run series n
    for run in linear simple; do
        series=${run/simple/cosine}
        trained "$run"
        for n in 10 25 50 100 250; do fid "$run" "$series" "$n" --sampler ddpm --steps "$n"; done
        nll "$run" "$series" null
    done
}

ema() {
    local average
    trained averages
    for average in 1:raw 10:0.9 100:0.99 1000:0.999 10000:0.9999; do
        averaged averages "constant learning rate" "$average"
    done
    trained simple
    for average in 1:raw 100:0.99; do averaged simple "falling to 0" "$average"; done
}
averaged() { # RUN SERIES X:WEIGHTS
    fid "$1" "$2" "${3%:*}" --weights "${3#*:}" --sampler ddim --steps 50
    nll "$1" "$2" "${3%:*}" --weights "${3#*:}"
}

guidance() {
    local scale judge=$RUNS/judge-100
    trained conditional
    trained classifier
    # The classifier that guides would find its class more often than an independent one.
    seed=100 trained judge
    ((seed > 0)) || record "real test images" null ours eval classes --classifier "$judge" --split test -n 10000 --json
    for scale in 0 1 1.5 3 5; do guided "classifier-free" "$scale" guidance --guidance "$scale"; done
    for scale in 1 3 10; do
        guided "by a classifier" "$scale" classifier-guidance --guidance 0 --classifier "$RUNS/classifier-$seed" \
            --classifier-scale "$scale"
    done
}
guided() { # SERIES SCALE PICTURE OPTIONS...
    local draws=(--model "$RUNS/conditional-$seed" --sampler ddim --steps 25 "${@:4}")
    record "$1" "$2" judged_distance "$samples" "$features" "$judge" "${draws[@]}"
    # Eight samples of each class.
    ((seed > 0)) || ours sample -n 80 --class all --spacing linspace --out "$IMAGES/$3-$2.png" "${draws[@]}"
}

corrector() {
    local sampler ratio
    trained simple
    for sampler in ddpm ddim; do
        fid simple "$sampler, 25 steps" 0 --sampler "$sampler" --steps 25
        for ratio in 0.05 0.1 0.2 0.3; do
            fid simple "$sampler, 25 steps" "$ratio" --sampler "$sampler" --steps 25 \
                --corrector-steps 1 --corrector-snr "$ratio"
        done
        # As many evaluations as with a corrector: each step but the last has one more.
        fid simple "$sampler, 49 steps" null --sampler "$sampler" --steps 49
    done
}

count_steps
for claim; do
    lines=
    for ((seed = 0; seed < seeds; seed++)); do
        "${claim//-/_}"
        # After each seed: a claim that is stopped has a table of the seeds so far.
        python3 scripts/bench/claims_table.py "$claim" "$RUNS" "$IMAGES/$claim.png" <<<"$lines" >"$RUNS/$claim.md"
    done
    cat "$RUNS/$claim.md"
done
