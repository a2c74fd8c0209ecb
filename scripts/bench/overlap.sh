#!/usr/bin/env bash
# Measures how much of gradient averaging over 1 Gbit/s is hidden: scripts/bench/overlap.sh [ALTERNATIONS [STEPS]]
#
# Two network namespaces, each acting as a host with one rank of one thread, are connected by a link that `tc` limits to
# $RATE (default 1gbit) in each direction. The same training alternates between comm.overlap = true and false. Prints
# rank 0's wait for the other rank per step, as medians over the log steps of a run and then over runs, and the share of
# the wait that overlap hides. Needs root (namespaces), iproute2 and Open MPI, and two otherwise idle cores.
#
#   ALTERNATIONS  pairs of runs       (default 5)
#   STEPS         steps of each run   (default 40)
#   SETTINGS      more --set options of both runs, such as "comm.bucket_mb=2 train.global_batch=32"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

. scripts/bench/hosts.sh

alternations=${1:-5} steps=${2:-40} every=4
rate=${RATE:-1gbit}
scripts/netns_hosts.sh links "$net" "$rate"

# 3.7 million parameters, 14.8 MB of gradients.
options=()
for option in 'data.image_size=32' 'model.channels=[32,64,128]' 'model.layers_per_block=2' 'model.norm_groups=32' \
    'train.global_batch=16' 'comm.bucket_mb=2' "checkpoint.every=$steps" 'monitor.sample_every=0' \
    'monitor.tensorboard=false' "monitor.log_every=$every" ${SETTINGS:-}; do
    options+=(--set "$option")
done

# Milliseconds per step, the median over a run's log steps except the first, which includes warm-up.
waits() { # OVERLAP
    local dir=$work/run
    rm -rf "$dir"
    "${launch[@]}" "$program" train --config smoke --steps "$steps" "${options[@]}" \
        --set "comm.overlap=$1" --set "run.dir=$dir" 2>"$work/log" || {
        cat "$work/log" >&2
        fail "training failed"
    }
    grep -o '"comm_wait_s":[0-9.e-]*' "$dir/metrics.jsonl" | cut -d: -f2 | tail -n +2 | median 1000 "$every"
}

# The median of the numbers on stdin, times $1 over $2.
median() {
    sort -g | awk -v factor="$1" -v divisor="$2" \
        '{ v[NR] = $1 } END { printf "%.1f\n", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 * factor / divisor }'
}

for ((turn = 1; turn <= alternations; turn++)); do
    without=$(waits false)
    with=$(waits true)
    echo "$without" >>"$work/without"
    echo "$with" >>"$work/with"
    awk -v a="$without" -v b="$with" -v turn="$turn" \
        'BEGIN { printf "%d: waits %.1f ms per step without overlap, %.1f with: %.0f%% hidden\n", turn, a, b, 100 * (1 - b / a) }'
done
awk -v a="$(median 1 1 <"$work/without")" -v b="$(median 1 1 <"$work/with")" -v rate="$rate" \
    'BEGIN { printf "medians over a link of %s: %.1f ms without overlap, %.1f with: %.0f%% hidden\n", rate, a, b, 100 * (1 - b / a) }'
