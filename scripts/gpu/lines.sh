# Sourced by scripts/gpu/check.sh: how a command is run, and how its result becomes a line of the table.
COMPARE=scripts/gpu/compare.py
BUDGET=${BUDGET:-540}

line() { py "$COMPARE" line "$lines" "$@"; }
left() { echo $((BUDGET - SECONDS)); }
altered() { [ "$1" = "${WRONG_ON_PURPOSE:-}" ]; }

# has NAME TOOL: whether TOOL is on the PATH; if not, a line SKIPPED.
has() {
    command -v "$2" >/dev/null || { line --name "$1" --skipped --reason "$2 is not on the PATH"; return 1; }
}

# run NAME SECONDS COMMAND...: its output goes to $work/NAME.out and, with its errors, to the log. Its exit code goes to
# $code, and how it can be repeated to $command. Fails, with a line SKIPPED, if less than SECONDS of the part are left.
run() {
    local name=$1 limit=$2
    shift 2
    command="$*"
    code=
    if [ "$(left)" -lt "$limit" ]; then
        line --name "$name" --skipped --reason "less than $limit s of the part are left" --command "$command"
        return 1
    fi
    printf '\n=== %s: %s\n' "$name" "$command" >>"$log"
    timeout --kill-after 10 "$limit" "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null
    code=$?
    cat "$work/$name.out" "$work/$name.err" >>"$log"
    [ "$code" != 124 ] || echo "error: still running after $limit s" >>"$work/$name.err"
    return 0
}

# must NAME SECONDS COMMAND...: as run; any exit code but 0 is a line FAILED.
must() {
    run "$@" || return 1
    [ "$code" != 0 ] || return 0
    failed "$1"
    return 1
}

# failed NAME: the run of this name failed; the reason is its error message, else its last words.
failed() {
    local why
    why=$(grep -h 'error' "$work/$1.err" | tail -n 1)
    [ -n "$why" ] || why=$(tail -n 1 "$work/$1.err")
    line --name "$1" --failed --reason "exit code $code: $why" --command "$command"
}

# compared NAME KIND FILE OTHER TOLERANCE REASON: a line with the difference of two files.
compared() {
    local value
    if ! value=$(py "$COMPARE" "$2" "$3" "$4" 2>>"$log"); then
        line --name "$1" --failed --reason "nothing to compare: $(tail -n 1 "$log")" --command "$command"
        return
    fi
    line --name "$1" --value "$value" --expected 0 --tolerance "$5" --reason "$6" --command "$command"
}

# field KEY NAME: a number from the last JSON object that run NAME printed.
field() { py "$COMPARE" field "$1" "$work/$2.out" 2>>"$log"; }

# exits NAME CODE REASON: a line that compares the exit code of the last run.
exits() { line --name "$1" --value "$code" --expected "$2" --reason "$3" --unit code --command "$command"; }
