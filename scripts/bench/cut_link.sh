#!/usr/bin/env bash
# Tests training under network failure: scripts/bench/cut_link.sh [TIMEOUT=20]
#
# Two network namespaces, each acting as a host with one rank, are connected by a link, which is cut during training
# with comm.timeout_s = TIMEOUT. First it is down for less than that, and training must continue afterwards. Then it is
# down permanently: both ranks must exit within TIMEOUT + 5 seconds and report where they waited. mpirun itself waits
# for the lost host until TCP gives up, a quarter of an hour; so in a second run it gets short keepalives on its
# connections, and everything must exit in that time. Prints what happened; exits with 1 on any deviation.
# Needs root (namespaces), iproute2 and Open MPI, and a machine without other load.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/bench/hosts.sh

timeout=${1:-20}
wrong() {
    echo "cut_link.sh: $1. The ranks and mpirun printed:" >&2
    cat "$work"/rank.* "$work/mpirun" >&2
    exit 1
}
now() { cut -d' ' -f1 /proc/uptime; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }
lines() { cat "$work/run/metrics.jsonl" 2>/dev/null | wc -l; }
# Waits until a command succeeds, for $1 seconds at most, not counting time in which this script is suspended.
await() {
    local tick limit=$1
    shift
    for ((tick = 0; tick < 10 * limit; tick++)); do
        ! "$@" || return 0
        sleep 0.1
    done
    return 1
}
steps_done() { (($(lines) >= $1)); }
gone() { # NODE PROGRAM
    local names
    names=$(on "$1" bash -c 'cat /proc/[0-9]*/comm 2>/dev/null' || true)
    [[ $'\n'$names$'\n' != *$'\n'$2$'\n'* ]]
}

# Output of a rank on the cut-off host no longer reaches mpirun, so each rank writes to its own file.
cat >"$work/rank" <<END
#!/bin/sh
exec "$program" "\$@" 2>"$work/rank.\$OMPI_COMM_WORLD_RANK"
END
chmod +x "$work/rank"
touch "$work/rank.0" "$work/rank.1"

# Starts a training run and waits until it is under way; arguments are mpirun's.
begin() {
    rm -rf "$work/run"
    "${launch[@]}" "$@" "$work/rank" train --config smoke --steps 1000000 --set comm.timeout_s="$timeout" \
        --set run.dir="$work/run" --set train.global_batch=8 --set monitor.log_every=1 --set monitor.sample_every=0 \
        --set checkpoint.every=1000000 >"$work/mpirun" 2>&1 &
    disown
    await 120 steps_done 3 || wrong "the training did not begin"
}
cut_link() {
    on h2 ip link set eth0 down
    cut=$(now)
}
# Both ranks must exit in time.
ended() {
    local host
    for host in h1 h2; do
        await $((timeout + 6)) gone $host ddpm-dist || wrong "a rank is still running $(since "$cut") s after the cut"
    done
    ended=$(since "$cut")
    awk -v t="$ended" -v limit=$((timeout + 5)) 'BEGIN { exit !(t <= limit) }' || wrong "the last rank ended after $ended s"
}

begin
pause=$(awk -v t="$timeout" 'BEGIN { print t / 5 }')
cut_link
sleep "$pause"
on h2 ip link set eth0 up
before=$(lines)
await "$timeout" steps_done $((before + 2)) || wrong "training did not continue after the link was down for $pause s"
echo "the link was down for $pause s: training continued"

cut_link
ended
echo "the link was cut: both ranks had exited after $ended s"
for rank in 0 1; do
    grep "^rank $rank step [0-9]*: waited $timeout s in " "$work/rank.$rank" || wrong "rank $rank did not report where it waited"
done
stop
on h2 ip link set eth0 up

begin --mca oob_tcp_keepalive_time 3 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 3
cut_link
ended
await 5 gone login mpirun || wrong "mpirun is still running $(since "$cut") s after the cut"
echo "the same with keepalives on mpirun's connections: ranks and mpirun had exited after $(since "$cut") s"
