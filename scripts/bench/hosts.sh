# Sourced by scripts that need hosts on one machine: h1, h2, ... of scripts/netns_hosts.sh, $HOSTS of them, by default two.
#
# Sets `program`, the release build or $DDPM_DIST; `launch`, an mpirun with one rank of one thread on each of the first
# two, or as `launch_on` says; `net`, the folder of the hosts; `work`, a folder deleted at the end. Needs root and what
# scripts/setup.sh --tests installs.
fail() {
    echo "$(basename "$0"): $1" >&2
    exit 2
}

program=${DDPM_DIST:-${CARGO_TARGET_DIR:-$PWD/target}/release/ddpm-dist}
[[ -x $program ]] || fail "$program cannot be run. Build it with cargo build --release, or set DDPM_DIST"

work=$(mktemp -d)
net=$work/net
coproc hosts { exec scripts/netns_hosts.sh up "$net" "${HOSTS:-2}"; }
up=$hosts_PID input=${hosts[1]} # bash unsets those
finish() {
    exec {input}>&- # they end with their stdin
    wait "$up" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
read -r ready <&"${hosts[0]}" && [[ $ready = ready ]] || fail "the hosts are not up: see the line above"

on() { # NODE COMMAND...
    scripts/netns_hosts.sh on "$net" "$@"
}
# Kills all processes on the hosts, which then let mpirun in again.
stop() {
    local host
    for host in h1 h2; do
        on $host bash -c 'kill -KILL -1'
        on $host /usr/sbin/sshd -f "$net/sshd_config"
    done
}

# Sets `launch` to an mpirun with one rank of one thread on each of the first hosts.
launch_on() { # NUMBER
    launch=(
        scripts/netns_hosts.sh on "$net" login
        mpirun --allow-run-as-root --quiet --bind-to none --host "$(seq -f 'h%g:1' -s, "$1")" -np "$1"
        --mca btl "tcp,self" --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24
        --mca mpi_yield_when_idle 1 -x OMP_NUM_THREADS=1
    )
}
launch_on 2
