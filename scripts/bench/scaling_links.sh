#!/usr/bin/env bash
# Compares the cost model of docs/scaling.md with measured steps: scripts/bench/scaling_links.sh [STEPS=5 [OUT]]
#
# 1, 2, 4 and 8 ranks of one thread, each in a network namespace as on a host of its own, first on links without a limit
# and then on links of 0.1, 1 and 10 Gbit/s. The speed of a rank at each number of ranks is that without a limit, because
# here ranks share the processors; `ddpm-dist plan` predicts from it what a limited link adds. Prints a table of measured
# and predicted seconds per step, and of the all-reduce alone, with their ratios; exits with 1 if a step's ratio is off by
# more than 15%. Needs root, two otherwise idle cores, and what scripts/setup.sh --tests installs; takes some five minutes.
#
#   STEPS  measured steps of each run, after two others
#   OUT    a file for the rows as JSON, one object a line
#   RANKS, RATES, SETTINGS   others than "2 4 8", "100mbit 1gbit 10gbit", and more --set options of all runs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

ranks=${RANKS:-2 4 8} rates=${RATES:-100mbit 1gbit 10gbit}
HOSTS=$(tr ' ' '\n' <<<"$ranks" | sort -n | tail -1)
. scripts/bench/hosts.sh

steps=${1:-5} out=${2:-$work/rows}
# 0.9 million parameters, 3.7 MB of gradients; 32 images of 16x16.
options=()
for option in 'model.channels=[16,32,64]' 'model.attention=[false,true,false]' 'model.layers_per_block=2' \
    'model.norm_groups=8' 'train.global_batch=32' ${SETTINGS:-}; do
    options+=(--set "$option")
done

# The report of a benchmark on N ranks, one on each host.
measure() { # N BENCHMARK OPTIONS...
    launch_on "$1"
    timeout 300 "${launch[@]}" "$program" bench "${@:2}" --config smoke "${options[@]}" --json 2>"$work/log" ||
        { cat "$work/log" >&2; fail "bench ${*:2} failed on $1 rank(s)"; }
}
cell() { # KEY REPORT
    python3 -c 'import json, sys; print(json.loads(sys.argv[2])[sys.argv[1]])' "$@"
}
mean_step() { # REPORT
    awk -v rate="$(cell images_per_s "$1")" -v images="$(cell batch_per_rank "$1")" -v ranks="$(cell world "$1")" \
        'BEGIN { print images * ranks / rate }'
}

printf '%-8s %5s %10s %10s %6s   %10s %10s %6s\n' link ranks 'step, s' predicted ratio 'reduce, s' predicted ratio
row() { # LINK RANKS STEP PREDICTED REDUCE PREDICTED
    python3 - "$@" >>"$out" <<'END'
import json
import sys

link, ranks, *seconds = sys.argv[1:]
step, step_predicted, reduce, reduce_predicted = (float(number) for number in seconds)
print(json.dumps({"link": link, "ranks": int(ranks), "step_s": step, "predicted_step_s": step_predicted,
                  "allreduce_s": reduce, "predicted_allreduce_s": reduce_predicted}))
print(f"{link:<8} {ranks:>5} {step:>10.4f} {step_predicted:>10.4f} {step_predicted / step:>6.2f}   "
      f"{reduce:>10.4f} {reduce_predicted:>10.4f} {reduce_predicted / reduce if reduce else float('nan'):>6.2f}",
      file=sys.stderr)
END
}

: >"$out"
declare -A speed
for n in 1 $ranks; do
    report=$(measure "$n" step --steps "$((2 * steps))" --warmup 2)
    speed[$n]=$(cell tflops "$report")
    printf '%-8s %5d %10.4f\n' 'no limit' "$n" "$(mean_step "$report")"
done
for rate in $rates; do
    case $rate in
        *gbit) gbit=${rate%gbit} ;;
        *mbit) gbit=$(awk "BEGIN { print ${rate%mbit} / 1000 }") ;;
        *) fail "the rate '$rate' is neither in gbit nor in mbit" ;;
    esac
    # A burst passes at once, as on no cable, so it is small beside a bucket of 1 MiB; but the kernel must not be late for
    # the next one: a quarter of a millisecond.
    burst=$(awk "BEGIN { size = 33 * $gbit; print int(size > 32 ? size : 32) }")kb
    BURST=$burst scripts/netns_hosts.sh links "$net" "$rate"
    for n in $ranks; do
        report=$(measure "$n" step --steps "$steps" --warmup 2)
        step=$(mean_step "$report")
        report=$(measure "$n" allreduce --repeat 3)
        reduce=$(cell median_s "$report")
        # Latency and jitter are in the measured speed.
        plan=$("$program" plan --config smoke "${options[@]}" --gpus "$n" --gpu cpu --tflops "${speed[$n]}" \
            --gpus-per-node 1 --network-gbit "$gbit" --latency-us 0 --jitter 0 --images 512 --json)
        row "$rate" "$n" "$step" "$(cell step_s "$plan")" "$reduce" "$(cell allreduce_s "$plan")" 2>&1
    done
done
python3 - "$out" <<'END'
import json
import sys

rows = [json.loads(line) for line in open(sys.argv[1])]
ratios = [row["predicted_step_s"] / row["step_s"] for row in rows]
worst = max(ratios, key=lambda ratio: abs(ratio - 1))
within = sum(abs(ratio - 1) <= 0.15 for ratio in ratios)
print(f"{within} of {len(ratios)} steps predicted within 15%; the worst ratio is {worst:.2f}")
sys.exit(within < len(ratios))
END
