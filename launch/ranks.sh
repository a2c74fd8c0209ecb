# Sourced by launch/local.sh and launch/hosts.sh: starts ranks, forwards requests to stop, and relays what they print.
#
# In this order: listen ARGS..., find_program, take_config ARGS..., prepare_stop, run_ranks COMMAND..., end_as CODE.

asked=      # whether the ranks were asked to stop
since=      # when the first SIGINT or SIGTERM came, in $SECONDS
first=      # the signal that asked first
saves=      # whether the command has something to save
steps=      # whether the command ends between steps, with code 75 even after Ctrl-C
ended=      # the signal that ended the ranks immediately
stop_file=  # a descriptor of the file that is emptied to request a stop
child=      # mpirun, or the program
folder=     # for that file and the pipes below
end=KILL      # the signal that ends the ranks immediately
suspend=STOP  # the signal that suspends them
checks=()     # what is waited for before the ranks start; a request ends it
self=$(basename "$(readlink -f "$0")")

# What a launcher of several hosts does in addition.
ask_elsewhere() { :; }
tidy_elsewhere() { :; }
translate() { cat; }

# The reader of our output may be gone: the Ctrl-C that asks for a stop also ends the tee at the end of a pipe.
say() { echo "$self: $1" >&2 || true; }

# Code 2 says that the same command will fail again; a machine may be repaired meanwhile, which is code 1.
fail() { # MESSAGE [CODE]
    say "$1"
    exit "${2:-2}"
}

end_checks() { ((${#checks[@]} == 0)) || kill "${checks[@]}" 2>/dev/null || true; }

ask() { # SIGNAL
    interrupted=yes
    # Comes before anything that could fail.
    [[ ! $stop_file ]] || : >"/dev/fd/$stop_file"
    : "${first:=$1}"
    if [[ ! $asked && $1 != QUIT ]]; then
        say "asked the ranks to ${saves:+save and }stop; a second Ctrl-C or SIGTERM, 2 s from now or later, ends them at once"
    fi
    asked=yes
    end_checks
    # Each time: the last one may not have come through.
    [[ ! $child || $1 = QUIT ]] || ask_elsewhere
    case $1 in
        # Not a second request: a closing terminal sends several SIGHUP.
        HUP | USR1) return 0 ;;
        # Nor is one that follows immediately: `timeout` sends SIGTERM twice.
        INT | TERM) ((SECONDS - ${since:=$SECONDS} >= 2)) || return 0 ;;
    esac
    ended=$1
    [[ ! $child ]] || kill -"$end" "$child" 2>/dev/null || true
}

# Ctrl-Z reaches the script alone, like Ctrl-C.
pause() {
    interrupted=yes
    [[ ! $child ]] || kill -"$suspend" "$child" 2>/dev/null || true
    kill -STOP $$
    [[ ! $child ]] || kill -CONT "$child" 2>/dev/null || true
}

# Without steps to end between, Ctrl-C is 130, as for the program itself; the ranks see an emptied file, not the signal.
stopped() { if [[ $first = INT && ! $steps ]]; then echo 130; else echo 75; fi; }

# However the script ends, it does not leave ranks training.
leave() {
    code=$?
    if [[ $asked && ! $child ]]; then
        say "stopped on request before the ranks were started"
        code=$(stopped)
    elif [[ $child ]] && kill -0 "$child" 2>/dev/null; then
        : >"/dev/fd/$stop_file"
    fi
    end_checks
    tidy_elsewhere
    [[ ! $folder ]] || rm -rf "$folder" || true
    exit "$code"
}

# Copies stdin to stdout until its end, even if writing fails; fails if output was lost other than to a closed pipe.
relay() {
    ignore_requests
    local lost=0 error
    until error=$(LC_ALL=C cat 2>&1 >&3); do
        [[ $error == *"Broken pipe" ]] || lost=1
    done 3>&1
    return $lost
}

ignore_requests() { trap '' INT TERM HUP USR1 QUIT TSTP PIPE; }

listen() { # ARGS...
    local word signal fd
    for word; do
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
}

# Sets `program`.
find_program() {
    local root
    root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
    program=${DDPM_DIST:-${CARGO_TARGET_DIR:-$root/target}/release/ddpm-dist}
    if [[ -z ${DDPM_DIST:-} && ! -x $program ]]; then
        program=$(command -v ddpm-dist) ||
            fail "ddpm-dist is not built. Run cargo build --release, or set DDPM_DIST to the program"
    fi
}

# Sets `args`, in which a configuration that is not a file is passed through stdin, and `stdin`: mpirun forwards only
# that descriptor, to rank 0.
take_config() { # ARGS...
    stdin=
    args=("$@")
    local i option at value
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
}

# Ranks that are starting cannot be signalled: mpirun forwards no signals before it has started them, and a signal it
# forwards then kills ranks without a handler yet. So a stop is requested through a file that each rank watches.
# (Also, mpirun itself reacts to SIGINT and SIGTERM by killing the ranks within two seconds.)
prepare_stop() {
    folder=$(mktemp -d "${TMPDIR:-/tmp}/ddpm-dist-XXXXXX" 2>/dev/null) && echo run 2>/dev/null >"$folder/stop" ||
        fail "${TMPDIR:-/tmp} cannot be written. Free space there, or set TMPDIR to another folder" 1
    export DDPM_STOP_FILE=$folder/stop
    # While open, it can be emptied even after the folder was cleaned, and on a full disk.
    exec {stop_file}<"$DDPM_STOP_FILE"
}

# Runs the program itself, or mpirun and the program; sets `code`.
run_ranks() { # COMMAND...
    [[ ! $asked ]] || exit "$(stopped)"
    local results messages through_mpirun=
    # The child gets its own session, so that the terminal's Ctrl-C reaches the script alone.
    if [[ $1 != mpirun ]]; then
        setsid "$@" <&"$stdin" {stop_file}<&- &
        child=$!
    else
        through_mpirun=yes
        end=TERM
        suspend=TSTP
        # mpirun ends a run after several failed writes to a closed pipe, so it does not write to the user's directly.
        mkfifo "$folder/out" "$folder/err"
        setsid "$@" >"$folder/out" 2>"$folder/err" <&"$stdin" {stop_file}<&- &
        child=$!
        relay <"$folder/out" &
        results=$!
        { ignore_requests; translate | relay >&2; } <"$folder/err" &
        messages=$!
    fi
    # A request may have come before `child` was known.
    [[ ! $asked || $ended = QUIT ]] || ask_elsewhere
    [[ ! $ended ]] || kill -"$end" "$child" 2>/dev/null || true
    # A signal interrupts `wait`, which then returns the signal's code, not the child's.
    while
        interrupted=
        code=0
        wait "$child" 2>/dev/null || code=$?
        [[ $interrupted ]]
    do :; done
    [[ $through_mpirun ]] || return 0
    # Wait for output still being relayed to the user.
    wait "$messages" || true
    if ! wait "$results" && ((code == 0)) && [[ ! $interrupted ]]; then
        say "stdout cannot be written. Free space there, or send the results elsewhere"
        code=4
    fi
}

# Exits with the code of a request to stop or of the ranks.
end_as() { # CODE
    code=$1
    if ((code == 75)); then code=$(stopped); fi
    if [[ $ended ]] && ((code != 0 && code != 75)); then
        code=$((128 + $(kill -l "$ended")))
    fi
    exit "$code"
}
