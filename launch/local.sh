#!/usr/bin/env bash
# Runs `ddpm-dist ARGS...` on N ranks on this machine: launch/local.sh N ARGS...
#
# Ctrl-C, SIGTERM, SIGUSR1 or a closed terminal asks the ranks to save and stop (exit code 75). A second Ctrl-C or
# SIGTERM, at least two seconds after the first, ends them immediately. The program is $DDPM_DIST, else the release
# build, else ddpm-dist on the PATH.
set -euo pipefail

asked=      # whether the ranks were asked to stop
since=      # when the first SIGINT or SIGTERM came, in $SECONDS
first=      # the signal that asked first
saves=      # whether the command has something to save
steps=      # whether the command ends between steps, with code 75 even after Ctrl-C
ended=      # the signal that ended the ranks immediately
stop_file=  # a descriptor of the file that is emptied to request a stop
child=      # mpirun, or the program
folder=     # for that file and the pipes below

# The reader of our output may be gone: the Ctrl-C that asks for a stop also ends the tee at the end of a pipe.
say() { echo "local.sh: $1" >&2 || true; }

fail() {
    say "$1"
    exit 2
}

ask() { # SIGNAL
    interrupted=yes
    # Comes before anything that could fail.
    [[ ! $stop_file ]] || : >"/dev/fd/$stop_file"
    : "${first:=$1}"
    if [[ ! $asked && $1 != QUIT ]]; then
        say "asked the ranks to ${saves:+save and }stop; a second Ctrl-C or SIGTERM, 2 s from now or later, ends them at once"
    fi
    asked=yes
    case $1 in
        # Not a second request: a closing terminal sends several SIGHUP.
        HUP | USR1) return 0 ;;
        # Nor is one that follows immediately: `timeout` sends SIGTERM twice.
        INT | TERM) ((SECONDS - ${since:=$SECONDS} >= 2)) || return 0 ;;
    esac
    ended=$1
    [[ ! $child ]] || kill -"$end" "$child" 2>/dev/null || true
}

# Ctrl-Z reaches this script alone, like Ctrl-C.
pause() {
    interrupted=yes
    [[ ! $child ]] || kill -"$suspend" "$child" 2>/dev/null || true
    kill -STOP $$
    [[ ! $child ]] || kill -CONT "$child" 2>/dev/null || true
}

# Without steps to end between, Ctrl-C is 130, as for the program itself; the ranks see an emptied file, not the signal.
stopped() { if [[ $first = INT && ! $steps ]]; then echo 130; else echo 75; fi; }

# However this script ends, it does not leave ranks training.
leave() {
    code=$?
    if [[ $asked && ! $child ]]; then
        say "stopped on request before the ranks were started"
        code=$(stopped)
    elif [[ $child ]] && kill -0 "$child" 2>/dev/null; then
        : >"/dev/fd/$stop_file"
    fi
    [[ ! $folder ]] || rm -rf "$folder" || true
    exit "$code"
}

# Copies stdin to stdout until its end, even if writing fails; fails if output was lost other than to a closed pipe.
relay() {
    trap '' INT TERM HUP USR1 QUIT TSTP PIPE
    local lost=0 error
    until error=$(LC_ALL=C cat 2>&1 >&3); do
        [[ $error == *"Broken pipe" ]] || lost=1
    done 3>&1
    return $lost
}

for word in "${@:2}"; do
    case $word in
        -*) continue ;;
        train | train-classifier) saves=yes steps=yes ;;
        bench) steps=yes ;;
    esac
    break
done

for signal in INT TERM HUP USR1 QUIT; do trap "ask $signal" "$signal"; done
trap pause TSTP
trap leave EXIT
trap : PIPE # with this handler, writing to a closed pipe is an error, which `say` ignores

# If a standard stream is closed, a file opened below would take its place and receive messages.
for fd in 0 1 2; do [[ -e /dev/fd/$fd ]] || eval "exec $fd<>/dev/null"; done

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "the number of ranks comes first. Usage: local.sh N ARGS..."
ranks=$1
shift

root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
program=${DDPM_DIST:-${CARGO_TARGET_DIR:-$root/target}/release/ddpm-dist}
if [[ -z ${DDPM_DIST:-} && ! -x $program ]]; then
    program=$(command -v ddpm-dist) ||
        fail "ddpm-dist is not built. Run cargo build --release, or set DDPM_DIST to the program"
fi
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
end=KILL      # the signal that ends the ranks immediately
suspend=STOP  # the signal that suspends them
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
    end=TERM
    suspend=TSTP
fi

# A configuration that is not a file is passed through stdin: mpirun forwards only that descriptor, to rank 0.
stdin=
args=("$@")
for ((i = 0; i < ${#args[@]}; i++)); do
    case ${args[i]} in
        --config) option= at=$((i + 1)) ;;
        --config=*) option=--config= at=$i ;;
        *) continue ;;
    esac
    value=${args[at]:-}
    value=${value#"$option"}
    case $value in
        - | /dev/stdin) stdin=0 ;;
        /dev/fd/*) [[ -e $value ]] && stdin=${value##*/} || continue ;;
        *) continue ;;
    esac
    args[at]=$option-
done
[[ $stdin ]] || exec {stdin}</dev/null

folder=$(mktemp -d "${TMPDIR:-/tmp}/ddpm-dist-XXXXXX" 2>/dev/null) && echo run 2>/dev/null >"$folder/stop" ||
    fail "${TMPDIR:-/tmp} cannot be written. Free space there, or set TMPDIR to another folder"
# Ranks that are starting cannot be signalled: mpirun forwards no signals before it has started them, and a signal it
# forwards then kills ranks without a handler yet. So a stop is requested through a file that each rank watches.
# (Also, mpirun itself reacts to SIGINT and SIGTERM by killing the ranks within two seconds.)
export DDPM_STOP_FILE=$folder/stop
# While open, it can be emptied even after the folder was cleaned, and on a full disk.
exec {stop_file}<"$DDPM_STOP_FILE"

[[ ! $asked ]] || exit "$(stopped)"
# The child gets its own session, so that the terminal's Ctrl-C reaches this script alone.
if ((ranks == 1)); then
    setsid "$program" "${args[@]}" <&"$stdin" {stop_file}<&- &
    child=$!
else
    # mpirun ends a run after several failed writes to a closed pipe, so it does not write to the user's directly.
    mkfifo "$folder/out" "$folder/err"
    setsid "${launcher[@]}" "$program" "${args[@]}" >"$folder/out" 2>"$folder/err" <&"$stdin" {stop_file}<&- &
    child=$!
    relay <"$folder/out" &
    results=$!
    relay <"$folder/err" >&2 &
    messages=$!
fi

# A signal interrupts `wait`, which then returns the signal's code, not the child's.
while
    interrupted=
    code=0
    wait "$child" 2>/dev/null || code=$?
    [[ $interrupted ]]
do :; done
if ((ranks > 1)); then
    # Wait for output still being relayed to the user.
    wait "$messages" || true
    if ! wait "$results" && ((code == 0)) && [[ ! $interrupted ]]; then
        say "stdout cannot be written. Free space there, or send the results elsewhere"
        code=4
    fi
fi

if ((code == 75)); then code=$(stopped); fi
if [[ $ended ]] && ((code != 0 && code != 75)); then
    code=$((128 + $(kill -l "$ended")))
elif ((code > 128)); then
    say "a rank was killed by signal $(kill -l "$code"). Out of memory? See dmesg"
fi
exit "$code"
