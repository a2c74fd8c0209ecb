#!/usr/bin/env bash
# Runs `ddpm-dist ARGS...` on the workers of an MPIJob: launcher.sh ARGS...
#
# mpi-operator names the workers in /etc/mpi/hostfile, and Open MPI starts a rank for each of their slots. On SIGTERM
# all ranks save, and the exit code is 75.
set -uo pipefail

asked=  # whether the ranks were asked to stop
ranks=  # mpirun
say() { echo "launcher.sh: $1" >&2; }
# mpirun forwards SIGUSR1 to all ranks, but only once they run, hence the repeated requests, which have no other effect.
# SIGTERM would make it kill them before they have saved.
stop() { while kill -USR1 "$ranks"; do sleep 1; done 2>/dev/null; }
ask() {
    interrupted=yes
    [[ ! $asked ]] || return
    asked=yes
    say "asked the ranks to save and stop"
    [[ ! $ranks ]] || stop &
}
trap ask TERM INT USR1

# A worker's name resolves once it is ready, and one that moves to another node comes back under the same name.
hosts=$(sed -n 's/^\([^ #]\+\).*/\1/p' "${OMPI_MCA_orte_default_hostfile:-/etc/mpi/hostfile}")
said=$SECONDS
for host in $hosts; do
    until [[ $asked ]] || error=$(ssh -o ConnectTimeout=5 "$host" true 2>&1); do
        if ((SECONDS - said >= 30)); then
            said=$SECONDS
            say "waiting for $host: ${error##*$'\n'}"
        fi
        sleep 1
    done
done
[[ ! $asked ]] || exit 75

mpirun --quiet ddpm-dist "$@" </dev/null &
ranks=$!
[[ ! $asked ]] || stop &
# A signal interrupts `wait`, which then returns the signal's code, not mpirun's.
while
    interrupted=
    code=0
    wait "$ranks" || code=$?
    [[ $interrupted ]]
do :; done
# Ranks that were asked before they could listen were killed by the signal, and have lost nothing.
[[ ! $asked || $code != 138 ]] || code=75
exit "$code"
