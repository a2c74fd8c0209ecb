# Sourced by what keeps third-party programs in the cache, after scripts/env.sh; say and die are the caller's.

# once NAME VERSION COMMAND...: lets COMMAND fill the folder NAME of the cache, unless this version is there already. What
# an interrupted or older one has left is deleted first.
once() {
    [ "$(cat "$CACHE/$1/.complete" 2>/dev/null)" != "$2" ] || return 0
    say "fetching $1 $2 into $CACHE/$1"
    rm -rf "${CACHE:?}/$1"
    "${@:3}"
    printf '%s\n' "$2" >"$CACHE/$1/.complete"
}

# wheels NAME OPTIONS...: Python packages into the folder NAME of the cache; OPTIONS are pip's.
wheels() {
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-cache-dir --no-warn-conflicts --only-binary=:all: \
        --target "$CACHE/$1" "${@:2}" >&2 ||
        die "pip could not fetch $1: its message is above. It needs the network and a Python for which these packages have wheels ($(python3 --version) here)"
}
