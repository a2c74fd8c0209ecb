#!/usr/bin/env bash
# Runs `ddpm-dist ARGS...` on the hosts of a file, over ssh: launch/hosts.sh [-n RANKS] [-i NETWORK] HOSTFILE ARGS...
#
# HOSTFILE has a line `HOST slots=N` for each host, which is to run N ranks. Every host must let this one in by ssh
# without a question, and have the same program at the same path, and the current folder: this is checked first.
#
#   -n RANKS     fewer ranks than slots; the first hosts are filled first
#   -i NETWORK   the network over which ranks communicate: an interface (eth1) or an address range (10.0.0.0/24)
#
# Requests to stop are those of launch/local.sh, and so is the choice of the program. See docs/launching/hosts.md.
set -euo pipefail
launch=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
. "$launch/ranks.sh"
. "$launch/check_hosts.sh"

usage="Usage: hosts.sh [-n RANKS] [-i NETWORK] HOSTFILE ARGS..."
# Fails rather than ask a question, and when the network does.
ssh=(ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3)

# Sets `hosts`, `slots` and `before`, the number of ranks on earlier hosts, of hosts that get ranks; `ranks`, `rank0`.
read_hosts() {
    hosts=() slots=() before=()
    local line words total=0 number=0
    [[ -r $file ]] || fail "$file cannot be read. Give a file with a line 'HOST slots=N' for each host"
    while read -r line || [[ $line ]]; do
        ((number += 1))
        read -ra words <<<"${line%%#*}"
        ((${#words[@]} > 0)) || continue
        [[ ${#words[@]} = 2 && ${words[0]} =~ ^[A-Za-z0-9][A-Za-z0-9._:-]*$ && ${words[1]} =~ ^slots=[1-9][0-9]*$ ]] ||
            fail "line $number of $file is '$line'. Write 'HOST slots=N', with N the number of ranks that it is to run"
        [[ " ${hosts[*]:-} " != *" ${words[0]} "* ]] ||
            fail "$file names ${words[0]} twice. Keep one line, with all its slots"
        hosts+=("${words[0]}") slots+=("${words[1]#slots=}") before+=("$total")
        ((total += slots[-1]))
    done <"$file"
    ((total > 0)) || fail "$file names no hosts. Give each a line 'HOST slots=N'"
    : "${ranks:=$total}"
    ((ranks <= total)) || fail "-n asks for $ranks ranks, and $file has $total slots. Lower -n, or add hosts or slots"
    while ((before[-1] >= ranks)); do unset 'hosts[-1]' 'slots[-1]' 'before[-1]'; done
    ((slots[-1] = ranks - before[-1]))
    rank0=${hosts[0]}
}

# Such as `h2, with ranks 2 and 3`.
with_ranks() { # HOST
    local i last
    for i in "${!hosts[@]}"; do
        [[ ${hosts[i]} = "$1" ]] || continue
        last=$((before[i] + slots[i] - 1))
        case ${slots[i]} in
            1) echo "$1, with rank $last" ;;
            2) echo "$1, with ranks ${before[i]} and $last" ;;
            *) echo "$1, with ranks ${before[i]} to $last" ;;
        esac
        return
    done
    echo "$1" # it calls itself something else
}

# For ranks that train, one would suffice, because all stop at the same step. A rank that waits for a store, before it
# trains, does not hear of the others.
ask_elsewhere() {
    local host ask
    printf -v ask ': >%q' "$DDPM_STOP_FILE"
    for host in "${hosts[@]}"; do
        { ignore_requests; "${ssh[@]}" -n "$host" "$ask"; } >/dev/null 2>&1 &
    done
}

# Nothing waits for it.
tidy_elsewhere() {
    local host tidy
    [[ ${checked:-} ]] || return 0
    # The token may be relative to this folder.
    printf -v tidy 'cd %q && rm -f %q; rm -rf %q' "$PWD" "${token:-}" "$folder"
    for host in "${hosts[@]}"; do
        setsid "${ssh[@]}" -n "$host" "$tidy" >/dev/null 2>&1 </dev/null &
    done
}

# mpirun prints each of its messages between two lines of dashes.
translate() {
    local line message= inside=
    while IFS= read -r line || [[ $line ]]; do
        if [[ $line =~ ^-{70,}$ ]]; then
            [[ ! $inside ]] || reword "$message"
            message= inside=$([[ $inside ]] || echo yes)
        elif [[ $inside ]]; then
            message+=$line$'\n'
        elif [[ $line != *" sent help message help-"* && $line != *'"orte_base_help_aggregate"'* ]]; then
            printf '%s\n' "$line"
        fi
    done
    printf %s "$message"
}

reword() { # MESSAGE
    if [[ $1 =~ "lost communication with a remote daemon".*"Remote daemon:"[^$'\n']*" on node "([^$'\n']+) ]]; then
        echo "$self: lost $(with_ranks "${BASH_REMATCH[1]}"): the host or its network failed. Take it out of $file," \
            "and run this again to resume from the last checkpoint"
    elif [[ $1 =~ "process rank "([0-9]+)" with PID "[0-9]+" on node "([^ ]+)" exited on signal "([0-9]+) ]]; then
        echo "$self: rank ${BASH_REMATCH[1]} on ${BASH_REMATCH[2]} was killed by signal" \
            "$(kill -l "${BASH_REMATCH[3]}"). Out of memory? See dmesg there"
    else
        case $1 in
            # Consequences of what has been reported, here or by a rank.
            *"exited with non-zero status"* | "Primary job  terminated normally"* | *"unexpectedly disconnected"*) ;;
            *) printf %s "$1" ;;
        esac
    fi
}

network= interface= ranks= option=
while [[ $option != wrong ]] && getopts :n:i: option; do
    case $option in
        n) ranks=$OPTARG ;;
        i) network=$OPTARG ;;
        *) option=wrong ;;
    esac
done
[[ $option != wrong ]] || fail "-$OPTARG is no option, or its value is missing. $usage"
shift $((OPTIND - 1))
listen "${@:2}"
[[ $ranks =~ ^([1-9][0-9]*)?$ ]] || fail "-n takes the number of ranks, and not '$ranks'. $usage"
(($# > 1)) || fail "a file of hosts and a command are needed. $usage"
file=$1
read_hosts
[[ $network = */* ]] || interface=$network
[[ ! $interface || -e /sys/class/net/$interface ]] ||
    fail "this machine has no network interface $interface. Give -i the address range of the network instead"
for tool in mpirun ssh; do
    command -v $tool >/dev/null || fail "$tool is missing. Install it (Debian: openmpi-bin, openssh-client)"
done
find_program
program=$(realpath -s "$program")
[[ ! $interface ]] || export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interface}

take_config "${@:2}"
prepare_stop
# It is read twice: for the checks, and by rank 0.
config=$(cat <&"$stdin")
exec {stdin}< <(printf %s "$config")
checked=yes
check_hosts

for i in "${!hosts[@]}"; do echo "${hosts[i]} slots=${slots[i]}"; done >"$folder/hosts"
# mpirun gives up on a host that has been silent for that many seconds: before the ranks, which cannot tell which it is.
limit=$((timeout * 3 / 4 < 120 ? timeout * 3 / 4 : 120))
idle=$((limit > 1 ? limit / 2 : 1)) interval=$((limit > 9 ? limit / 10 : 1))
launcher=(
    mpirun
    --map-by slot
    --bind-to none                # as in local.sh
    --mca mpi_yield_when_idle 1   # likewise
    --mca plm_rsh_agent "${ssh[*]}"
    --mca plm_rsh_no_tree_spawn 1 # hosts need not let each other in
    --mca oob_tcp_keepalive_time $idle
    --mca oob_tcp_keepalive_intvl $interval
    --mca oob_tcp_keepalive_probes $((limit > idle + interval ? (limit - idle) / interval : 1))
)
((EUID != 0)) || launcher+=(--allow-run-as-root)
[[ ! $network ]] || launcher+=(
    --mca pml ob1 --mca btl self,vader,tcp --mca btl_tcp_if_include "$network" --mca oob_tcp_if_include "$network"
)
check_mpirun
for name in $(compgen -e | grep -E "$forwarded"); do launcher+=(-x "$name"); done
run_ranks "${launcher[@]}" -np "$ranks" --hostfile "$folder/hosts" "$program" "${args[@]}"
((code != 205)) || code=1 # a host was lost
end_as "$code"
