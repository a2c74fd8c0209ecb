# Sourced by the benchmarks: builds the program, and creates Python environments for the peers it is compared with.
. scripts/env.sh
TARGET=${CARGO_TARGET_DIR:-target}
die() { echo "bench: $1" >&2; exit 2; }

# build [ARGS...]: the program, with the features that the tests compile it with; --examples adds the examples.
build() { cargo build --release --locked --quiet --workspace --bins "$@"; }

# venv NAME PACKAGE...: a Python environment in the cache with these packages; sets PYTHON to its interpreter.
venv() {
    local home=$CACHE/bench-$1
    shift
    PYTHON=$home/bin/python
    [ "$(cat "$home/.complete" 2>/dev/null)" = "$*" ] && return
    # An older environment is kept and completed: PyTorch is gigabytes.
    "$PYTHON" -m pip --version >/dev/null 2>&1 || python3 -m venv "$home" ||
        die "python3 -m venv failed; on Debian install python3-venv"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-compile "$@" || die "pip could not install $*"
    echo "$*" >"$home/.complete"
}

# peers: the environment of the peers in PyTorch; the judge of samples runs in it too.
peers() {
    venv peers torch==2.13.0 diffusers==0.42.1 numpy setuptools denoising-diffusion-pytorch==2.3.4 ema-pytorch==0.8.3
}
