#!/usr/bin/env bash
# Installs the prerequisites for building and running ddpm-dist, and configures cargo for them. Safe to run again:
# whatever is already installed is kept.
#
#   scripts/setup.sh            compilers, MPI, libtorch, .cargo/config.toml
#   scripts/setup.sh --tests    the same, plus the prerequisites of scripts/test.sh
#   scripts/setup.sh --ci       the same, plus cargo-deny, for .ci/run
#
# DDPM_CACHE   where downloads and tools are kept   (default: ~/.cache/ddpm-dist)
# DDPM_TORCH   cpu | cuda: which libtorch to fetch  (default: cuda where nvidia-smi lists a GPU, else cpu)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
. scripts/fetch.sh
. scripts/libtorch.sh

TORCH_VERSION=2.13.0
NEXTEST_VERSION=0.9.143
DENY_VERSION=0.20.2
NCCL_VERSION=2.29.7 # the version that the libtorch wheel requires
NVRTC_VERSION=13.0.88 # likewise
MOTO_VERSION=5.2.1
AZURITE_VERSION=3.35.0 # the last that runs on Node.js 20 and older
NUMPY_VERSION=2.3.5

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null; }
installed() { [[ $(dpkg-query -W -f='${Status}' "$1" 2>/dev/null) == *' installed' ]]; }

case ${1:-} in
    '' | --tests | --ci) wanted=${1:-} ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    *) die "unknown option '$1'; it can be --tests or --ci" ;;
esac
case $(uname -sm) in
    'Linux x86_64' | 'Linux aarch64') ;;
    *) die "libtorch $TORCH_VERSION is available for Linux on x86_64 and aarch64 only, and this is $(uname -sm)" ;;
esac
have cargo || die "cargo is not on the PATH: install Rust from https://rustup.rs, open a new shell and run this again"

# One run at a time, and large temporary files next to their destination: /tmp is often small.
mkdir -p "$CACHE/tmp"
export TMPDIR=$CACHE/tmp
exec 9>"$CACHE/setup.lock"
flock 9

# --- Debian packages -------------------------------------------------------------------------------------------
# Existing tools are used wherever they come from, for example a cluster's own MPI.
need=()
have c++ || need+=(build-essential)
{ have mpicc && [[ $(mpirun --version 2>/dev/null) == *'Open MPI'* ]]; } || need+=(libopenmpi-dev openmpi-bin)
[ -n "${LIBCLANG_PATH:-}" ] || installed libclang-dev || need+=(libclang-dev)
have cmake || need+=(cmake)
have nasm || [ "$(uname -m)" != x86_64 ] || need+=(nasm)
have pip3 || need+=(python3-pip)
have curl || need+=(curl)
if [ -n "$wanted" ]; then
    # Slurm clusters and hosts in network namespaces. The daemons are where only root looks.
    PATH=$PATH:/usr/sbin:/sbin have slurmd || need+=(slurmctld slurmd slurm-client munge)
    PATH=$PATH:/usr/sbin:/sbin have ip || need+=(iproute2)
    have ssh || need+=(openssh-client)
    PATH=$PATH:/usr/sbin have sshd || need+=(openssh-server)
    # A private authority for servers with TLS; Azurite.
    have openssl || need+=(openssl)
    have npm || need+=(npm)
    # The Python environment in which scripts/features.sh makes a feature extractor, once.
    [ -e "$CACHE/features/efficientnet-lite0.pt" ] || python3 -c 'import ensurepip' 2>/dev/null || need+=(python3-venv)
fi
if [ ${#need[@]} -gt 0 ]; then
    have apt-get || die "missing (Debian package names): ${need[*]}. Install the equivalents with this system's package manager, set LIBCLANG_PATH to libclang's folder, and run this again"
    as_root=
    if [ "$(id -u)" != 0 ]; then
        have sudo || die "these Debian packages are missing and there is no sudo: ask an administrator for 'apt-get install ${need[*]}' and run this again"
        as_root=sudo
    fi
    say "installing Debian packages: ${need[*]}"
    $as_root apt-get -o DPkg::Lock::Timeout=300 -qq update
    # Tests start the servers that they need: installing one must not let anybody log in to this machine.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
        $as_root chmod +x $policy
        trap '$as_root rm -f $policy' EXIT
    fi
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends "${need[@]}" >/dev/null
else
    say "Debian packages: installed"
fi

# --- libtorch --------------------------------------------------------------------------------------------------
kind=${DDPM_TORCH:-}
if [ -z "$kind" ]; then
    kind=cpu
    if [[ $(nvidia-smi -L 2>/dev/null) == *GPU* ]]; then kind=cuda; fi
fi
libtorch "$TORCH_VERSION" "$kind"

# --- cargo -----------------------------------------------------------------------------------------------------
# torch-sys sets no rpath; with this one, binaries and tests find libtorch in any shell without LD_LIBRARY_PATH.
mkdir -p .cargo
config=$(cat <<EOF
# Written by scripts/setup.sh: where libtorch is on this machine.
[env]
LIBTORCH = { value = "$home/torch", force = true }

[build]
rustflags = ["-C", "link-arg=-Wl,-rpath,$home/torch/lib"]
rustdocflags = ["-C", "link-arg=-Wl,-rpath,$home/torch/lib"]
EOF
)
if [ "$(cat .cargo/config.toml 2>/dev/null)" != "$config" ]; then
    printf '%s\n' "$config" >.cargo/config.toml
    say "wrote .cargo/config.toml"
fi

# --- tools for tests and checks ----------------------------------------------------------------------------------
tool() { # CRATE VERSION OPTIONS...
    ! cargo "${1#cargo-}" --version >/dev/null 2>&1 || return 0
    say "building $1 $2 (once, several minutes) into $CACHE/bin"
    # Outside this workspace, whose cargo settings must not apply.
    (cd / && env -u CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --root "$CACHE" --version "$2" "${@:3}" "$1")
}
if [ -n "$wanted" ]; then
    tool cargo-nextest "$NEXTEST_VERSION" --no-default-features --features default-no-update
    # Libraries of NVIDIA's that tests load, none of which needs a GPU: 226 MB and 90 MB.
    nvidia=(--no-compile --no-deps --python-version 3.12)
    once nccl "$NCCL_VERSION" wheels nccl "${nvidia[@]}" "nvidia-nccl-cu13==$NCCL_VERSION"
    once nvrtc "$NVRTC_VERSION" wheels nvrtc "${nvidia[@]}" "nvidia-cuda-nvrtc==$NVRTC_VERSION"
    # An independent S3 server, for the tests of racing writers (80 MB).
    once moto "$MOTO_VERSION" wheels moto "moto[s3]==$MOTO_VERSION" flask==3.1.3 flask-cors==6.0.5
    # An Azure server, for the tests of az:// addresses (190 MB).
    azurite() {
        npm install --prefix "$CACHE/azurite" --no-audit --no-fund --ignore-scripts --omit=optional --loglevel=error \
            "azurite@$AZURITE_VERSION" >/dev/null || die "npm could not fetch azurite: its message is above"
    }
    once azurite "$AZURITE_VERSION" azurite
    # An independent reader of .npz files (80 MB).
    once numpy "$NUMPY_VERSION" wheels numpy "numpy==$NUMPY_VERSION"
    # A feature extractor with published weights (19 MB, and 6 GB while it is made).
    scripts/features.sh efficientnet-lite0 >/dev/null
fi
# It runs for a second, so it is compiled in half the time, without optimisation.
[ "$wanted" != --ci ] || tool cargo-deny "$DENY_VERSION" --debug
say "done"
