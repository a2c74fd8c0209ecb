#!/usr/bin/env bash
# What becomes of a training whose network fails: scripts/bench/cut_link.sh [TIMEOUT=20]
#
# Two network name spaces, each a host of its own with one rank, are joined by a link. In the middle of a training with
# comm.timeout_s = TIMEOUT the link is first down for a while that is shorter, which the training must outlive, and then
# for good: both ranks must end within TIMEOUT + 5 seconds, say where they waited, and mpirun must end too. Prints what
# happened; exits with 1 where it was something else. Needs root (name spaces), iproute2 and Open MPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/bench/hosts.sh

timeout=${1:-20}
wrong() {
    echo "cut_link.sh: $1. The ranks and mpirun said:" >&2
    cat "$work"/rank.* "$work/mpirun" >&2
    exit 1
}
now() { cut -d' ' -f1 /proc/uptime; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }
lines() { cat "$work/run/metrics.jsonl" 2>/dev/null | wc -l; }
# Waits until a command succeeds, for $1 seconds at most.
await() {
    local started limit=$1
    started=$(now)
    shift
    until "$@"; do
        awk -v t="$(since "$started")" -v limit="$limit" 'BEGIN { exit !(t <= limit) }' || return 1
        sleep 0.1
    done
}
steps_done() { (($(lines) >= $1)); }
gone() { # NAME SPACE, PROGRAM
    local pid
    for pid in $(ip netns pids "$1"); do
        [[ $(cat "/proc/$pid/comm" 2>/dev/null) != "$2" ]] || return 1
    done
}

# What a rank on the cut-off host says does not reach mpirun any more, so each writes to a file of its own.
cat >"$work/rank" <<END
#!/bin/sh
exec "$program" "\$@" 2>"$work/rank.\$OMPI_COMM_WORLD_RANK"
END
chmod +x "$work/rank"
touch "$work/rank.0" "$work/rank.1"

"${launch[@]}" "$work/rank" train --config smoke --steps 1000000 --set comm.timeout_s="$timeout" --set run.dir="$work/run" \
    --set train.global_batch=128 --set monitor.log_every=1 --set monitor.sample_every=0 --set checkpoint.every=1000000 \
    >"$work/mpirun" 2>&1 &
mpirun=$!
await 120 steps_done 5 || wrong "the training did not begin"

pause=$(awk -v t="$timeout" 'BEGIN { print t / 5 }')
ip -n "$b" link set ddpm0 down
sleep "$pause"
ip -n "$b" link set ddpm0 up
before=$(lines)
await "$timeout" steps_done $((before + 5)) || wrong "the training did not go on after the link was down for $pause s"
echo "the link was down for $pause s: the training went on"

ip -n "$b" link set ddpm0 down
cut=$(now)
limit=$((timeout + 5))
await "$limit" gone "$a" ddpm-dist || wrong "rank 0 still runs $limit s after the cut"
echo "the link was cut for good: rank 0 ended after $(since "$cut") s"
await "$limit" gone "$b" ddpm-dist || wrong "rank 1 still runs"
ended=$(since "$cut")
awk -v t="$ended" -v limit="$limit" 'BEGIN { exit !(t <= limit) }' || wrong "rank 1 ended $ended s after the cut"
echo "all ranks had ended after $ended s"
for rank in 0 1; do
    grep "^rank $rank step [0-9]*: waited $timeout s in " "$work/rank.$rank" || wrong "rank $rank did not say where it waited"
done
await 60 gone "$a" mpirun || wrong "mpirun still runs $(since "$cut") s after the cut"
code=0
wait "$mpirun" || code=$?
echo "mpirun ended after $(since "$cut") s with exit code $code"
