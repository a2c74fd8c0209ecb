# Sourced by launch/hosts.sh: what must be true of the hosts before ranks start there. Every failure is one sentence and
# its remedy.

# Variables that change what ranks do or can reach, and DDPM_STOP_FILE. ssh does not pass them on.
forwarded='^(AWS|AZURE|GOOGLE|DDPM|OMP|MKL|KMP|ONEDNN|ATEN|TORCH|CUDA|CUBLAS|NCCL|UCX|SSL_CERT|RUST)_'
forwarded+='|^(LD_LIBRARY_PATH|NO_COLOR|(HTTP|HTTPS|ALL|NO)_PROXY|(http|https|all|no)_proxy)$'

# Each host by itself.
script_alone() {
    cat <<'END'
[[ -e $its_program ]] || wrong "has no $its_program. Copy it there, or set DDPM_DIST to where every host has it"
[[ -x $its_program ]] || wrong "may not run $its_program. Make it executable there"
mkdir -p -m 700 "$its_folder" 2>/dev/null && echo run 2>/dev/null >"$its_folder/stop" ||
    wrong "cannot write $its_folder. Free space there, or set TMPDIR to a folder that every host has"
version=$("$its_program" --version 2>&1) || wrong "cannot run $its_program: ${version##*$'\n'}. Fix this there"
command -v orted >/dev/null || wrong "has no orted on the PATH of its ssh. Install Open MPI there (Debian: openmpi-bin)"
if [[ $its_interface && ! -e /sys/class/net/$its_interface ]]; then
    wrong "has no network interface $its_interface, but $(cd /sys/class/net && echo *). Give -i an address range"
fi
echo "fact program $(sha256sum <"$its_program")"
# Hashing all of libtorch would take seconds; its start contains the linker's identifier of the build.
torch=$(ldd "$its_program" 2>/dev/null | sed -n 's/.*libtorch_cpu.so => \(.*\) (.*/\1/p')
[[ ! $torch ]] || echo "fact libtorch $(stat -L -c %s "$torch") $(head -c 4096 "$torch" | sha256sum)"
echo "fact mpi $(orted --version 2>&1 | grep -o '[0-9][0-9.]*[0-9]' | head -n 1)"
END
}

# What a training reads and writes, on the first host, whose rank 0 reads the configuration. Whether the other hosts see
# the folder of the checkpoints shows in a file put into it, or into the one in which it will be created.
script_plan() {
    cat <<'END'
for word in "${args[@]}"; do [[ $word != --json ]] || json=; done
plan=$("$its_program" "${args[@]}" --dry-run ${json- --json} <<<"$its_config" 2>"$its_folder/plan") || {
    echo "fact code $?"
    sed 's/^/fact message /' "$its_folder/plan"
}
[[ ! $plan =~ \"timeout_s\":([0-9]+) ]] || echo "fact timeout ${BASH_REMATCH[1]}"
[[ ! $plan =~ \"data\":\{[^}]*\"path\":\"([^\"]+)\" ]] || echo "fact data ${BASH_REMATCH[1]}"
[[ ! $plan =~ \"run\":\{\"dir\":\"([^\"]+)\" ]] || store=${BASH_REMATCH[1]}/checkpoints
[[ ! $plan =~ \"checkpoint\":\{[^}]*\"uri\":\"([^\"]+)\" ]] || store=${BASH_REMATCH[1]#file://}
if [[ $store && $store != *://* ]]; then
    at=$store
    while [[ ! -d $at ]]; do at=$(dirname "$at"); done
    token=$(mktemp "$at/.ddpm-dist-XXXXXX" 2>/dev/null) ||
        wrong "cannot write $at. Give run.dir and checkpoint.uri another folder"
    echo "fact store $store"
    echo "fact token $token"
fi
END
}

# What the other hosts see of it.
script_shared() {
    cat <<'END'
if [[ $its_data && $its_data != *://* && ! -e $its_data ]]; then
    wrong "has no $its_data, the data set. Put it at the same path on every host, or into an object store"
fi
# A network file system may take a moment.
for ((tick = 0; tick < 50; tick++)); do
    [[ $its_token && ! -e $its_token ]] || break
    sleep 0.1
done
[[ ! $its_token || -e $its_token ]] ||
    wrong "does not share $its_store with $its_rank0. Give checkpoint.uri a folder that all share, or an object store"
[[ ! $its_token || -w ${its_token%/*} ]] ||
    wrong "may not write ${its_token%/*}. Make it writable there, or give checkpoint.uri another folder"
END
}

# Checks all hosts; sets `timeout`, comm.timeout_s of a training, and `token`, a file to be deleted.
check_hosts() {
    local others=("${hosts[@]:1}") data= store=
    timeout=600 token=
    ask_hosts script_alone "${hosts[@]}"
    check_same "${others[@]}"
    [[ $saves && " ${args[*]} " != *" --dry-run "* ]] || return 0

    ask_hosts script_plan "$rank0"
    if [[ $(fact "$rank0" code) ]]; then
        fact "$rank0" message >&2
        exit "$(fact "$rank0" code)"
    fi
    local name value
    for name in timeout data store token; do
        value=$(fact "$rank0" $name)
        [[ ! $value ]] || printf -v $name %s "$value"
    done
    ask_hosts script_shared "${others[@]}"
}

check_same() { # HOST...
    local host name what
    for host; do
        for name in program libtorch mpi; do
            [[ $(fact "$host" $name) != "$(fact "$rank0" $name)" ]] || continue
            case $name in
                program) what="builds of $program. Copy it from one host to all others" ;;
                libtorch) what="builds of libtorch. Install the same on all hosts" ;;
                mpi) what="Open MPIs, $(fact "$host" mpi) and $(fact "$rank0" mpi). Install the same on all hosts" ;;
            esac
            fail "$host and $rank0 have different $what"
        done
    done
}

# Whether mpirun can start something: it would wait forever for a host that cannot connect back to it.
check_mpirun() {
    local host
    ! try_mpirun "$(IFS=, && echo "${hosts[*]}")" "${#hosts[@]}" || return 0
    for host in "${hosts[@]}"; do
        try_mpirun "$host" 1 || fail "mpirun cannot start anything on $host within 30 s$(why_not). \
Let every host connect to every other and to this machine, $(hostname), on any port, or give -i the network they share"
    done
}

try_mpirun() { # HOST,... NUMBER
    [[ ! $asked ]] || exit
    timeout -k 5 30 "${launcher[@]}" -np "$2" --host "$1" true </dev/null >"$folder/trial" 2>&1
}

# The first thing that mpirun said, if anything.
why_not() {
    local line
    line=$(grep -m 1 -v '^-*$' "$folder/trial" || true)
    echo "${line:+: $line}"
}

# Runs a script on hosts, on all at once. It reports `fact NAME VALUE`, or `wrong WHAT`, which ends the launch.
ask_hosts() { # SCRIPT HOST...
    local host pids=() code wrong
    for host in "${@:2}"; do
        # A Ctrl-C must not look like a host that does not answer.
        { ignore_requests; { preamble; "$1"; echo 'echo done'; } | on "$host"; } \
            >"$folder/of-$host" 2>"$folder/error-of-$host" &
        pids+=($!)
    done
    for host in "${@:2}"; do
        while
            interrupted= code=0
            wait "${pids[0]}" || code=$?
            [[ $interrupted ]]
        do :; done
        pids=("${pids[@]:1}")
        [[ ! $asked ]] || exit
        if wrong=$(grep -m 1 '^wrong ' "$folder/of-$host"); then fail "$host ${wrong#wrong }"; fi
        grep -qx 'done' "$folder/of-$host" ||
            fail "$host does not answer: $(tail -n 1 "$folder/error-of-$host" | tr -d '\r'). \
Make \`ssh $host true\` work without a question, or take $host out of $file"
    done
}

# The start of a script: the folder and the settings of this launch. (On a command line, every user would see them.)
preamble() {
    local name
    for name in $(compgen -e | grep -E "$forwarded"); do printf 'export %s=%q\n' "$name" "${!name}"; done
    for name in program folder interface rank0 config data store token; do
        printf 'its_%s=%q\n' "$name" "${!name:-}"
    done
    printf 'here=%q args=(' "$PWD"
    printf ' %q' "${args[@]}"
    printf ')\n'
    cat <<'END'
wrong() {
    echo "wrong $1"
    exit
}
cd "$here" 2>/dev/null || wrong "has no folder $here. Start from a folder that every host has"
END
}

# Prints what a host reported.
fact() { # HOST NAME
    sed -n "s/^fact $2 //p" "$folder/of-$1"
}

# Runs the script on stdin on a host.
on() { # HOST
    if is_here "$1"; then bash -s; else "${ssh[@]}" "$1" bash -s; fi
}

is_here() { # HOST
    [[ $1 != localhost && $1 != "$(hostname)" ]] || return 0
    local address
    for address in $(getent ahosts "$1" | cut -d' ' -f1 | sort -u); do
        [[ " $(hostname -I)" != *" $address "* ]] || return 0
    done
    return 1
}
