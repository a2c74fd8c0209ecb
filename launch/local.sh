#!/usr/bin/env bash
# Trains on N ranks of this machine: launch/local.sh N ARGS...  runs `ddpm-dist ARGS...` on each.
#
# Ctrl-C, SIGTERM or a closed terminal asks the ranks to save and stop (exit code 75); a second one
# ends them at once. The program is $DDPM_DIST, else the release build, else ddpm-dist on the PATH.
set -euo pipefail

fail() {
    echo "local.sh: $1" >&2
    exit 2
}

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "the number of ranks comes first. Usage: local.sh N ARGS..."
ranks=$1
shift

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${DDPM_DIST:-${CARGO_TARGET_DIR:-$root/target}/release/ddpm-dist}
if [[ -z ${DDPM_DIST:-} && ! -x $program ]]; then
    program=$(command -v ddpm-dist) ||
        fail "ddpm-dist is not built. Run cargo build --release, or set DDPM_DIST to the program"
fi
[[ -x $program ]] || fail "$program cannot be run. Set DDPM_DIST to the ddpm-dist program"

# Each rank would otherwise start a thread per core. (nproc obeys OMP_NUM_THREADS, hence the env.)
cores=$(env -u OMP_NUM_THREADS nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > ranks ? cores / ranks : 1))}
export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}

((ranks > 1)) || exec "$program" "$@"

options=(
    -np "$ranks"
    --oversubscribe               # more ranks than cores is the user's decision
    --bind-to none                # Open MPI would bind each of 2 ranks, all its threads, to one core
    --mca mpi_yield_when_idle 1   # waiting ranks spin: let them make way for the working ones
    --quiet                       # the ranks report failures themselves, in one line
)
((EUID != 0)) || options+=(--allow-run-as-root)
# One machine's ranks need no network: Open MPI's search for cards (PSM, PSM2) that are not there takes 0.2 s.
export OMPI_MCA_pml=${OMPI_MCA_pml:-ob1}
command -v mpirun >/dev/null || fail "mpirun is missing. Install Open MPI (Debian: openmpi-bin)"

# mpirun answers SIGINT and SIGTERM by killing the ranks within 2 seconds. Its own time-out,
# odls_base_sigkill_timeout, is no way out: SIGTERM itself comes that much later, and so does the end
# of a run in which a rank has failed. SIGUSR1, though, is passed on at once and kills nothing.
requests=0
interrupted=
ask() {
    interrupted=yes
    if ((requests++ == 0)); then
        echo "local.sh: asked the ranks to save and stop; a second signal ends them at once" >&2
        kill -USR1 "$mpirun" 2>/dev/null || true
    else
        kill -TERM "$mpirun" 2>/dev/null || true
    fi
}

# A session of its own, so that the terminal's Ctrl-C reaches this script alone.
setsid mpirun "${options[@]}" "$program" "$@" &
mpirun=$!
trap ask INT TERM HUP USR1

# A signal interrupts `wait`, which then returns the signal's code, not mpirun's.
while
    interrupted=
    code=0
    wait "$mpirun" || code=$?
    [[ $interrupted ]]
do :; done

if ((code > 128)) && ((requests < 2)); then
    echo "local.sh: a rank was killed by signal $(kill -l "$code"). Out of memory? See dmesg" >&2
fi
exit "$code"
