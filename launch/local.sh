#!/usr/bin/env bash
# Runs `ddpm-dist ARGS...` on N ranks on this machine: launch/local.sh N ARGS...
#
# Ctrl-C, SIGTERM, SIGUSR1 or a closed terminal asks the ranks to save and stop (exit code 75). A second Ctrl-C or
# SIGTERM, at least two seconds after the first, ends them immediately. The program is $DDPM_DIST, else the release
# build, else ddpm-dist on the PATH.
set -euo pipefail
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/ranks.sh"

listen "${@:2}"
[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "the number of ranks comes first. Usage: local.sh N ARGS..."
ranks=$1
shift
find_program
[[ -x $program ]] || fail "$program cannot be run. Set DDPM_DIST to the ddpm-dist program"

# Otherwise each rank would start one thread per core. (nproc obeys OMP_NUM_THREADS, hence the env.)
cores=$(env -u OMP_NUM_THREADS nproc)
# A container's CPU limit is a quota of time, which nproc does not know.
if read -r quota period 2>/dev/null </sys/fs/cgroup/cpu.max && [[ $quota != max ]] && ((quota < cores * period)); then
    cores=$((quota / period))
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > ranks ? cores / ranks : 1))}
export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}

launcher=()
if ((ranks > 1)); then
    command -v mpirun >/dev/null || fail "mpirun is missing. Install Open MPI (Debian: openmpi-bin)"
    launcher=(
        mpirun
        -np "$ranks"
        --oversubscribe               # more ranks than cores is the user's decision
        --bind-to none                # Open MPI would bind each of 2 ranks, all its threads, to one core
        --mca mpi_yield_when_idle 1   # waiting ranks busy-wait: let them yield to working ones
        --quiet                       # the ranks report failures themselves, in one line
    )
    ((EUID != 0)) || launcher+=(--allow-run-as-root)
    # Ranks on one machine need no network: Open MPI's search for absent cards (PSM, PSM2) takes 0.2 s.
    export OMPI_MCA_pml=${OMPI_MCA_pml:-ob1}
fi

take_config "$@"
prepare_stop
run_ranks "${launcher[@]}" "$program" "${args[@]}"
if ((code > 128)) && [[ ! $ended ]]; then
    say "a rank was killed by signal $(kill -l "$code"). Out of memory? See dmesg"
fi
end_as "$code"
