#!/usr/bin/env bash
# Trains on N ranks of this machine: launch/local.sh N ARGS...  runs `ddpm-dist ARGS...` on each.
#
# Ctrl-C, SIGTERM, SIGUSR1 or a closed terminal asks the ranks to save and stop (exit code 75). A second Ctrl-C or
# SIGTERM, at least two seconds after the first, ends them at once. The program is $DDPM_DIST, else the release build,
# else ddpm-dist on the PATH.
set -euo pipefail

asked=      # whether the ranks were asked to stop
since=      # when the first SIGINT or SIGTERM came, in $SECONDS
ended=      # the signal that ended the ranks at once
stop_file=  # a descriptor of the file that is emptied to ask them
child=      # mpirun, or the program
folder=     # for that file and the pipes below

# Nobody may be left to read this: the Ctrl-C that asks for a stop also ends the tee behind a pipe.
say() { echo "local.sh: $1" >&2 || true; }

fail() {
    say "$1"
    exit 2
}

ask() { # SIGNAL
    interrupted=yes
    # Before anything that could fail.
    [[ ! $stop_file ]] || : >"/dev/fd/$stop_file"
    if [[ ! $asked && $1 != QUIT ]]; then
        say "asked the ranks to save and stop; a second Ctrl-C or SIGTERM, 2 s from now or later, ends them at once"
    fi
    asked=yes
    case $1 in
        # The same request: a terminal that closes sends several SIGHUP.
        HUP | USR1) return 0 ;;
        # Again the same if it comes within an instant: `timeout` sends SIGTERM twice.
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

# However this script ends, it leaves no ranks training behind.
leave() {
    code=$?
    if [[ $asked && ! $child ]]; then
        say "stopped on request before the ranks were started"
        code=75
    elif [[ $child ]] && kill -0 "$child" 2>/dev/null; then
        : >"/dev/fd/$stop_file"
    fi
    [[ ! $folder ]] || rm -rf "$folder" || true
    exit "$code"
}

# Copies stdin to stdout, whatever happens there, until the end; fails if something was lost that somebody waits for.
relay() {
    trap '' INT TERM HUP USR1 QUIT TSTP PIPE
    local lost=0 error
    until error=$(LC_ALL=C cat 2>&1 >&3); do
        [[ $error == *"Broken pipe" ]] || lost=1
    done 3>&1
    return $lost
}

for signal in INT TERM HUP USR1 QUIT; do trap "ask $signal" "$signal"; done
trap pause TSTP
trap leave EXIT
trap : PIPE # with a handler of ours, writing to a closed pipe is an error that `say` passes over

# A file that is opened below must not become what messages are written to.
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

# Each rank would otherwise start a thread per core. (nproc obeys OMP_NUM_THREADS, hence the env.)
cores=$(env -u OMP_NUM_THREADS nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > ranks ? cores / ranks : 1))}
export MKL_NUM_THREADS=${MKL_NUM_THREADS:-$OMP_NUM_THREADS}

launcher=()
end=KILL      # what ends the ranks at once
suspend=STOP  # and what suspends them
if ((ranks > 1)); then
    command -v mpirun >/dev/null || fail "mpirun is missing. Install Open MPI (Debian: openmpi-bin)"
    launcher=(
        mpirun
        -np "$ranks"
        --oversubscribe               # more ranks than cores is the user's decision
        --bind-to none                # Open MPI would bind each of 2 ranks, all its threads, to one core
        --mca mpi_yield_when_idle 1   # waiting ranks spin: let them make way for the working ones
        --quiet                       # the ranks report failures themselves, in one line
    )
    ((EUID != 0)) || launcher+=(--allow-run-as-root)
    # One machine's ranks need no network: Open MPI's search for cards (PSM, PSM2) that are not there takes 0.2 s.
    export OMPI_MCA_pml=${OMPI_MCA_pml:-ob1}
    end=TERM
    suspend=TSTP
fi

# A configuration that is no file comes in through stdin: mpirun passes that on, to rank 0, and no other descriptor.
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
# Ranks that are starting cannot be sent a signal: mpirun passes on none before it has started them, and then it kills
# those that do not listen yet. So they are asked through a file, which each of them watches. (mpirun's own way with
# SIGINT and SIGTERM, besides, is to kill the ranks within two seconds.)
export DDPM_STOP_FILE=$folder/stop
# Open, it can be emptied even where something has cleaned the folder, and on a full disk.
exec {stop_file}<"$DDPM_STOP_FILE"

[[ ! $asked ]] || exit 75
# A session of its own, so that the terminal's Ctrl-C reaches this script alone.
if ((ranks == 1)); then
    setsid "$program" "${args[@]}" <&"$stdin" {stop_file}<&- &
    child=$!
else
    # mpirun ends a run once some writes to a closed pipe have failed, so it does not get the user's.
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
    # What is still on its way to the user.
    wait "$messages" || true
    if ! wait "$results" && ((code == 0)) && [[ ! $interrupted ]]; then
        say "stdout cannot be written. Free space there, or send the results elsewhere"
        code=4
    fi
fi

if [[ $ended ]] && ((code != 0 && code != 75)); then
    code=$((128 + $(kill -l "$ended")))
elif ((code > 128)); then
    say "a rank was killed by signal $(kill -l "$code"). Out of memory? See dmesg"
fi
exit "$code"
