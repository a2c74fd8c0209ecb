#!/usr/bin/env bash
# Builds ddpm-dist and the NCCL example for a version of libtorch. The last line of the output is the folder in which
# they are.
#
#   scripts/gpu/build.sh
#
# TORCH_VERSION   2.11.0 | 2.13.0   (default: that of scripts/setup.sh)
#
# For setup.sh's version this is the ordinary build. For another, a copy of the tracked sources with tch pinned to the
# version's own release is built in $DDPM_CACHE/gpu, against the libraries of PyPI's wheel.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/env.sh
. scripts/libtorch.sh

say() { printf 'build: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

own=$(sed -n 's/^TORCH_VERSION=//p' scripts/setup.sh)
version=${TORCH_VERSION:-$own}
case $version in
    2.11.0) tch=0.24.0 ;;
    2.13.0) tch=0.26.0 ;;
    *) die "no release of tch is known for libtorch $version: add it to the table in scripts/gpu/build.sh" ;;
esac

compile() {
    cargo build --release --locked --quiet -p ddpm-dist >&2
    cargo build --release --locked --quiet -p ddpm-comm --example gpu >&2
}

if [ "$version" = "$own" ]; then
    [ -f .cargo/config.toml ] || die "run scripts/setup.sh first: there is no .cargo/config.toml"
    compile
    realpath "${CARGO_TARGET_DIR:-target}/release"
    exit
fi

libtorch "$version" cpu

# --- the sources, with another tch ---------------------------------------------------------------------------------
sources=$CACHE/gpu/src-$version
rm -rf "$sources"
mkdir -p "$sources/.cargo"
# Files keep their times, so that cargo compiles only what changed.
git ls-files -z | xargs -0 cp --parents -p -t "$sources"
cd "$sources"
sed -i -E "s/^(tch|torch-sys) = \"=.*\"/\1 = \"=$tch\"/" Cargo.toml
cargo update --quiet tch --precise "$tch" # torch-sys follows
printf '[env]\nLIBTORCH = { value = "%s", force = true }\n' "$home/torch" >.cargo/config.toml
export CARGO_TARGET_DIR=$CACHE/gpu/target-$version
compile
echo "$CARGO_TARGET_DIR/release"
