#!/usr/bin/env bash
# A Slurm cluster on this machine, for the tests and to try jobs on: a head node and compute nodes, each a host with a
# name, a network address and a folder for temporary files of its own, in namespaces. They share processors and files.
#
#   scripts/slurm_cluster.sh up DIR [NODES]       runs it, with 2 nodes by default, until stdin ends or Ctrl-C;
#                                                 says `ready`; keeps its files and logs in DIR
#   scripts/slurm_cluster.sh on DIR COMMAND...    runs a command on its head node: sbatch, squeue, bash, ...
#
# To Slurm, each node (node1, node2, ...) has 4 processors and 2 GPUs, whose device files are copies of /dev/null. A job
# in the partition `urgent` preempts those in `main`, which get 20 s to save. Cgroups and accounting are off.
#
# Needs root; Debian's slurmctld, slurmd, slurm-client, munge and iproute2, which scripts/setup.sh --tests installs.
set -euo pipefail

fail() {
    echo "slurm_cluster.sh: $1" >&2
    exit 2
}

# Waits are as short as Slurm allows. A requeued job starts after `cred_expire` seconds, by default 120.
configure() {
    mkdir -p "$dir"/{state,log,gpu,local,hosts}
    for gpu in 0 1; do mknod "$dir/gpu/nvidia$gpu" c 1 3; done
    (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
    local node
    cat >"$dir/slurm.conf" <<END
ClusterName=trial
SlurmctldHost=head
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmctldPidFile=$dir/state/slurmctld.pid
SlurmctldLogFile=$dir/log/head.log
SlurmdSpoolDir=$dir/local/spool
SlurmdPidFile=$dir/local/slurmd.pid
SlurmdLogFile=$dir/log/%n.log
TmpFS=$dir/local
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
GresTypes=gpu
ReturnToService=2
KillWait=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL PriorityTier=2
END
    echo "127.0.0.1 localhost" >"$dir/hosts.txt"
    echo "$network.254 head" >>"$dir/hosts.txt"
    : >"$dir/gres.conf"
    for node in $(seq "$nodes"); do
        mkdir -p "$dir/hosts/node$node/spool"
        echo "NodeName=node$node CPUs=4 RealMemory=4000 Gres=gpu:2" >>"$dir/slurm.conf"
        echo "NodeName=node$node Name=gpu File=$dir/gpu/nvidia[0-1]" >>"$dir/gres.conf"
        echo "$network.$node node$node" >>"$dir/hosts.txt"
    done
}

# The first process of the cluster; all others are killed when it ends. Network addresses as in `configure`.
head_node() {
    local outside node
    read -r outside _ </proc/self/stat # its number outside of the namespace, whose /proc this still is
    echo "$outside" >"$dir/pid"
    mount -t proc proc /proc
    mount --bind "$dir/hosts.txt" /etc/hosts
    hostname head
    trap 'exit 0' INT TERM
    ip link set lo up
    ip link add lan type bridge
    ip addr add "$network.254/24" dev lan
    ip link set lan up
    munged --force --socket "$dir/munge.socket" --key-file "$dir/munge.key" --seed-file "$dir/state/munge.seed" \
        --pid-file "$dir/state/munge.pid" --log-file "$dir/log/munge.log"
    slurmctld
    for node in $(seq "$nodes"); do
        unshare --mount --uts --net "$0" compute_node "$dir" "$node" </dev/null >"$dir/log/node$node.out" 2>&1 &
        until ip link set "link$node" master lan up 2>/dev/null; do
            jobs %% &>/dev/null || fail "node$node has not started: $(cat "$dir/log/node$node.out")"
            sleep 0.02
        done
    done
    local waited=0
    until [[ $(sinfo -h -N -t idle -p main -o %N 2>/dev/null | wc -l) = "$nodes" ]]; do
        ((waited++ < 300)) || fail "not all nodes are idle after 30 s. See the logs in $dir/log"
        sleep 0.1
    done
    echo ready
    cat >/dev/null
}

compute_node() {
    local node=$1
    hostname "node$node"
    mount --bind "$dir/hosts/node$node" "$dir/local"
    mount -t tmpfs tmpfs /dev/shm
    ip link add eth0 type veth peer name "link$node" netns 1
    ip addr add "$network.$node/24" dev eth0
    ip link set lo up
    ip link set eth0 up
    exec slurmd -D
}

network=10.78.0
command=${1:-} dir=${2:-}
[[ $dir ]] || fail "usage: slurm_cluster.sh up DIR [NODES], or slurm_cluster.sh on DIR COMMAND..."
dir=$(realpath -m "$dir")
export PATH=$PATH:/usr/sbin:/sbin SLURM_CONF=$dir/slurm.conf
shift 2

case $command in
    up)
        nodes=${1:-2}
        ((EUID == 0)) || fail "namespaces need root. Run it as root"
        for tool in slurmctld slurmd sbatch munged ip; do
            command -v $tool >/dev/null || fail "$tool is missing. Run scripts/setup.sh --tests"
        done
        [[ ! -e $dir/slurm.conf ]] || fail "$dir is in use by another cluster. Give a new folder"
        configure
        exec unshare --mount --uts --net --ipc --pid --fork --kill-child "$0" head_node "$dir" "$nodes"
        ;;
    on)
        [[ -r $dir/pid ]] || fail "no cluster runs in $dir. Start one with slurm_cluster.sh up $dir"
        exec nsenter --target "$(<"$dir/pid")" --mount --uts --net --ipc --pid --wdns="$PWD" "$@"
        ;;
    head_node) nodes=$1 head_node ;;
    compute_node) compute_node "$1" ;;
    *) fail "unknown command '$command'; it can be up or on" ;;
esac
