# Sourced by scripts that need two hosts on one machine: two network namespaces connected by a link, ddpm0 in each.
#
# Sets `a` and `b`, the namespaces (10.77.0.1 and 10.77.0.2); `program`, the release build or $DDPM_DIST; `launch`, an
# mpirun with one rank of one thread on each; `work`, a folder deleted at the end. Needs root, iproute2, Open MPI.
fail() {
    echo "$(basename "$0"): $1" >&2
    exit 2
}

program=${DDPM_DIST:-${CARGO_TARGET_DIR:-$PWD/target}/release/ddpm-dist}
[[ -x $program ]] || fail "$program cannot be run. Build it with cargo build --release, or set DDPM_DIST"
((EUID == 0)) || fail "network namespaces need root. Run it as root"
for tool in ip tc mpirun unshare; do
    command -v $tool >/dev/null || fail "$tool is missing. Install iproute2, Open MPI and util-linux"
done

a=ddpm-a-$$ b=ddpm-b-$$
work=$(mktemp -d)
# Kills all processes on the hosts.
stop() {
    for space in "$a" "$b"; do
        ip netns pids "$space" 2>/dev/null | xargs -r kill -KILL 2>/dev/null || true
    done
}
finish() {
    stop
    ip netns del "$a" 2>/dev/null || true
    ip netns del "$b" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

ip netns add "$a"
ip netns add "$b"
ip link add ddpm0 netns "$a" type veth peer name ddpm0 netns "$b"
host=1
for space in "$a" "$b"; do
    ip -n "$space" link set lo up
    ip -n "$space" addr add 10.77.0.$((host++))/24 dev ddpm0
    ip -n "$space" link set ddpm0 up
done

# Replaces ssh for mpirun: HOST COMMAND... It runs the command in the second namespace, with its own host name.
cat >"$work/on" <<END
#!/bin/sh
shift
exec ip netns exec $b unshare --uts sh -c 'hostname ddpm-b; exec sh -c "\$0"' "\$*"
END
chmod +x "$work/on"

launch=(
    ip netns exec "$a" unshare --uts sh -c 'hostname ddpm-a; exec "$0" "$@"'
    mpirun --allow-run-as-root --quiet --bind-to none --host 10.77.0.1:1,10.77.0.2:1 -np 2
    --mca plm_rsh_agent "$work/on" --mca btl "tcp,self"
    --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24
    --mca mpi_yield_when_idle 1 -x OMP_NUM_THREADS=1
)
