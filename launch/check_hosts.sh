# Sourced by launch/hosts.sh: what must be true of the hosts before ranks start there. Every failure is one sentence and
# its remedy, and ends the launch with code 1.

# Variables that change what ranks do or can reach, and DDPM_STOP_FILE. ssh does not pass them on.
forwarded='^(AWS|AZURE|GOOGLE|DDPM|OMP|MKL|KMP|ONEDNN|ATEN|TORCH|CUDA|CUBLAS|NCCL|UCX|SSL_CERT|RUST)_'
forwarded+='|^(LD_LIBRARY_PATH|NO_COLOR|(HTTP|HTTPS|ALL|NO)_PROXY|(http|https|all|no)_proxy)$'

# Seconds that a script may take on a host.
limit_s=120

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

    # The program may have to scan a data set.
    limit_s=3600 ask_hosts script_plan "$rank0"
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
            fail "$host and $rank0 have different $what" 1
        done
    done
}

# Whether mpirun can start something: it would wait forever for a host that cannot connect back to it.
check_mpirun() {
    local host
    ! try_mpirun "$(IFS=, && echo "${hosts[*]}")" "${#hosts[@]}" || return 0
    for host in "${hosts[@]}"; do
        try_mpirun "$host" 1 || fail "mpirun cannot start anything on $host within 30 s$(why_not). Let every host \
connect to every other and to this machine, $(hostname), on any port, or give -i the network they share" 1
    done
}

try_mpirun() { # HOST,... NUMBER
    local code
    timeout -k 5 30 "${launcher[@]}" -np "$2" --host "$1" true </dev/null >"$folder/trial" 2>&1 &
    checks=($!)
    await
    ((code == 0))
}

# Waits for the first of `checks` and removes it; sets `code`. A request to stop ends the launch.
await() {
    while
        interrupted= code=0
        [[ ! $asked ]] || exit
        wait "${checks[0]}" || code=$?
        [[ $interrupted ]]
    do :; done
    checks=("${checks[@]:1}")
}

# The first thing that mpirun said, if anything.
why_not() {
    local line
    line=$(grep -m 1 -v '^-*$' "$folder/trial" || true)
    echo "${line:+: $line}"
}

# Runs a script on hosts, on all at once. It reports `fact NAME VALUE`, or `wrong WHAT`, which ends the launch.
ask_hosts() { # SCRIPT HOST...
    local host code wrong why
    for host in "${@:2}"; do
        on "$host" < <(preamble; "$1"; echo 'echo done') >"$folder/of-$host" 2>"$folder/error-of-$host" &
        checks+=($!)
    done
    for host in "${@:2}"; do
        await
        if wrong=$(grep -m 1 '^wrong ' "$folder/of-$host"); then fail "$host ${wrong#wrong }" 1; fi
        ! grep -qx 'done' "$folder/of-$host" || continue
        # 137: it had to be killed.
        [[ $code != 124 && $code != 137 ]] ||
            fail "$host has not answered within $limit_s s. Look for what keeps it busy, or take $host out of $file" 1
        why=$(tail -n 1 "$folder/error-of-$host" | tr -d '\r')
        fail "$host does not answer: $why. \
Make \`ssh $host true\` work without a question, or take $host out of $file" 1
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

# Runs the script on stdin on a host, in place of this subshell. A Ctrl-C must not look like a host that does not
# answer, so only `end_checks` ends it: by SIGTERM, which `timeout` passes on.
on() { # HOST
    local limit=(timeout -k 5 "$limit_s") remote=()
    ignore_requests
    trap - TERM
    is_here "$1" || remote=("${limit[@]}" "${ssh[@]}" "$1")
    exec "${remote[@]}" "${limit[@]}" bash -s
}

# Whether a host is this machine, by one of its names or addresses. ddpm-supervise's probe.rs decides alike.
is_here() { # HOST
    local ours address
    ours=$(hostname)
    [[ $1 != "$ours" && $1 != "${ours%%.*}" ]] || return 0
    for address in $(timeout 15 getent ahosts "$1" | cut -d' ' -f1 | sort -u); do
        [[ $address != 127.* && $address != ::1 && " $(hostname -I)" != *" $address "* ]] || return 0
    done
    return 1
}
