#!/usr/bin/env bash
# Hosts on this machine, for the tests of launch/hosts.sh and the benchmarks over a network: a login node and hosts h1,
# h2, ..., each in namespaces with a name, an address, processes and a folder for temporary files of its own, joined by
# a switch. Hosts run sshd, and let every node in without a password, to a home without start-up files. They share
# processors and all other files.
#
#   scripts/netns_hosts.sh up DIR [HOSTS]             runs them, by default 2, until stdin ends or Ctrl-C; says `ready`
#   scripts/netns_hosts.sh on DIR NODE COMMAND...     runs a command on `login` or a host, in the current folder
#   scripts/netns_hosts.sh links DIR RATE [DELAY_MS [LOSS_PERCENT]]
#                                                     replaces the links of all hosts by ones of RATE (1gbit) each way,
#                                                     on which packets take DELAY_MS and LOSS_PERCENT of them are lost;
#                                                     there and back between two hosts are four such ways. After a
#                                                     pause, $BURST (128kb) pass at once
#
# What can happen to a host, by `on DIR h2 COMMAND`:
#
#   kill -KILL -1                           all its processes die
#   /usr/sbin/sshd -f DIR/sshd_config       it answers again
#   ip link set eth0 down                   its cable is pulled (up: it is back)
#   ip link set eth0 mtu 1400               its packets become smaller
#
# DIR keeps keys and settings, and DIR/local is another folder on each node. Needs root, and Debian's iproute2,
# openssh-client and openssh-server, which scripts/setup.sh --tests installs.
set -euo pipefail

fail() {
    echo "netns_hosts.sh: $1" >&2
    exit 2
}

configure() {
    local host
    mkdir -p "$dir"/{pid,local,private/login}
    ssh-keygen -q -t ed25519 -N '' -f "$dir/host_key"
    ssh-keygen -q -t ed25519 -N '' -f "$dir/key"
    echo "* $(<"$dir/host_key.pub")" >"$dir/known_hosts"
    cat >"$dir/sshd_config" <<END
HostKey $dir/host_key
AuthorizedKeysFile $dir/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
SetEnv HOME=$dir
END
    cat >"$dir/ssh_config" <<END
IdentityFile $dir/key
UserKnownHostsFile $dir/known_hosts
END
    printf '%s\n' "127.0.0.1 localhost" "$network.254 login" >"$dir/hosts"
    for host in $(seq "$hosts"); do
        mkdir "$dir/private/h$host"
        echo "$network.$host h$host" >>"$dir/hosts"
    done
}

# Waits for a command to succeed; HOST is what does not come up.
await() { # HOST COMMAND...
    local tick
    for ((tick = 0; tick < 600; tick++)); do
        ! "${@:2}" 2>/dev/null || return 0
        sleep 0.05
    done
    fail "$1 is not up after 30 s: $(cat "$dir/$1.log")"
}

# Makes this process the first one of a node.
become() { # NODE
    local outside
    read -r outside _ </proc/self/stat # its number outside of its namespace, whose /proc this still is
    mount -t proc proc /proc
    mount --bind "$dir/private/$1" "$dir/local"
    mount -t tmpfs tmpfs /dev/shm
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/sshd
    hostname "$1"
    ip link set lo up
    echo "$outside" >"$dir/pid/$1"
}

# Everything ends with it.
login_node() {
    local host
    trap 'exit 0' INT TERM
    mount --bind "$dir/hosts" /etc/hosts
    mount --bind "$dir/ssh_config" /etc/ssh/ssh_config
    become login
    ip link add switch type bridge
    ip addr add "$network.254/24" dev switch
    ip link set switch up
    for host in $(seq "$hosts"); do
        unshare --mount --uts --net --ipc --pid --fork --kill-child "$0" host "$dir" "$host" \
            </dev/null >"$dir/h$host.log" 2>&1 &
    done
    for host in $(seq "$hosts"); do
        await "h$host" test -s "$dir/pid/h$host"
        link "$host"
    done
    for host in $(seq "$hosts"); do
        await "h$host" answers "h$host"
    done
    echo ready
    cat >/dev/null
}

answers() { (: <"/dev/tcp/$1/22") 2>/dev/null; }

# On the login node: connects a host to the switch.
link() { # NUMBER [RATE [DELAY_MS LOSS_PERCENT]]
    local port=link$1 pid
    pid=$(<"$dir/pid/h$1")
    local inside=(nsenter --target "$pid" --net)
    if [[ -s $dir/link$1.pid ]]; then
        kill "$(<"$dir/link$1.pid")"
        rm "$dir/link$1.pid"
        while [[ -e /sys/class/net/$port ]]; do sleep 0.02; done
    fi
    ip link del "$port" 2>/dev/null || true
    if [[ ${3:-} ]]; then
        : >"$dir/link$1.out"
        setsid python3 "$(dirname "$0")/slow_link.py" "$port" "$pid" eth0 "$3" "$4" >"$dir/link$1.out" 2>&1 </dev/null &
        echo $! >"$dir/link$1.pid"
        until grep -q ready "$dir/link$1.out" 2>/dev/null; do
            kill -0 $! || fail "no link: $(cat "$dir/link$1.out")"
            sleep 0.02
        done
    else
        ip link add "$port" type veth peer name eth0 netns "$pid"
    fi
    ip link set "$port" master switch up
    "${inside[@]}" ip addr add "$network.$1/24" dev eth0
    "${inside[@]}" ip link set eth0 up
    [[ ${2:-} ]] || return 0
    tc qdisc add dev "$port" root tbf rate "$2" burst "${BURST:-128kb}" latency 20ms
    "${inside[@]}" tc qdisc add dev eth0 root tbf rate "$2" burst "${BURST:-128kb}" latency 20ms
}

host() { # NUMBER
    become "h$1"
    /usr/sbin/sshd -f "$dir/sshd_config"
    # The first process survives `kill -KILL -1`, and reaps those whose parents have died.
    while :; do
        sleep infinity &
        wait $! || true
    done
}

# Enters the login node, whose /proc has the hosts, and from there a host.
on() { # NODE COMMAND...
    local enter=(--mount --uts --net --ipc --pid --wdns="$PWD")
    [[ -s $dir/pid/$1 ]] || fail "there is no node '$1' in $dir. Start some with netns_hosts.sh up $dir"
    local into=(nsenter --target "$(<"$dir/pid/login")" "${enter[@]}")
    [[ $1 = login ]] || into+=(nsenter --target "$(<"$dir/pid/$1")" "${enter[@]}")
    "${into[@]}" "${@:2}"
}

links() { # RATE [DELAY_MS [LOSS_PERCENT]]
    local file
    for file in "$dir"/pid/h*; do
        on login "$(realpath "$0")" link "$dir" "${file##*/h}" "$1" ${2:+"$2" "${3:-0}"}
    done
}

network=10.77.0
command=${1:-} dir=${2:-}
[[ $dir ]] ||
    fail "usage: netns_hosts.sh up DIR [HOSTS] | on DIR NODE COMMAND... | links DIR RATE [DELAY_MS [LOSS_PERCENT]]"
export PATH=$PATH:/usr/sbin:/sbin
shift 2

case $command in
    up)
        hosts=${1:-2}
        ((EUID == 0)) || fail "namespaces need root. Run it as root"
        for tool in ip tc ssh ssh-keygen sshd unshare nsenter; do
            command -v $tool >/dev/null || fail "$tool is missing. Run scripts/setup.sh --tests"
        done
        mkdir -p "$dir"
        dir=$(realpath "$dir")
        [[ ! -e $dir/pid ]] || fail "$dir has been used before. Give a new folder"
        configure
        exec unshare --mount --uts --net --ipc --pid --fork --kill-child "$(realpath "$0")" login_node "$dir" "$hosts"
        ;;
    on) on "$@" ;;
    links) links "$@" ;;
    login_node) hosts=$1 login_node ;;
    host) host "$1" ;;
    link) link "$@" ;;
    *) fail "unknown command '$command'; it can be up, on or links" ;;
esac
