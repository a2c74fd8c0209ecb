#!/usr/bin/env bash
# Packs everything that a machine with a GPU needs into one archive: the program, Open MPI's runtime, the checks of
# scripts/gpu/check.sh, and the packages of the peer. There, only a torch of the same version is required.
#
#   scripts/gpu/bundle.sh [OUT.tar.gz]     (default: ddpm-gpu.tar.gz)
#
# TORCH_VERSION   which libtorch to build for; see scripts/gpu/build.sh
# BUILT           a folder with ddpm-dist and examples/gpu, instead of building
# WHEELS          a folder with the peer's wheels, instead of fetching them; "none" leaves them out
#
# For Debian 12 with libopenmpi3 and openmpi-bin, whose files are copied.
set -euo pipefail
out=$(realpath -m "${1:-ddpm-gpu.tar.gz}")
cd "$(dirname "$0")/../.."
. scripts/env.sh

MOST=$((40 << 20)) # bytes
PACKAGES=(diffusers==0.42.1 importlib_metadata==10.2.0)

say() { printf 'bundle: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

built=${BUILT:-$(scripts/gpu/build.sh | tail -n 1)}
[ -x "$built/ddpm-dist" ] || die "there is no $built/ddpm-dist"
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
to=$stage/ddpm-gpu
mkdir -p "$to/bin" "$to/python"

# --- the program and the scripts -----------------------------------------------------------------------------------
strip -o "$to/bin/ddpm-dist" "$built/ddpm-dist"
[ ! -x "$built/examples/gpu" ] || strip -o "$to/bin/gpu" "$built/examples/gpu"
cp --parents -r configs launch/{local,ranks}.sh scripts/gpu "$to"
rm -rf "$to/scripts/gpu/__pycache__"
torch=${TORCH_VERSION:-$(sed -n 's/^TORCH_VERSION=//p' scripts/setup.sh)}
{ git rev-parse HEAD || echo "not a git checkout"; echo "libtorch $torch"; } >"$to/VERSION"

# --- Open MPI --------------------------------------------------------------------------------------------------------
# The paths below mpi/ are Debian's: OPAL_PREFIX replaces their /usr, and plugins are found below it.
lib=/usr/lib/x86_64-linux-gnu
mpi=$to/mpi
for package in libopenmpi3 openmpi-bin openmpi-common libpmix2; do
    dpkg-query -W "$package" >/dev/null 2>&1 || die "the package $package is not installed"
done
# Not the networks of clusters (UCX, OFI, PSM, verbs), which need libraries of their own, nor unused interfaces.
plugins=$(find "$lib/openmpi/lib/openmpi3" -name 'mca_*.so' |
    grep -vE 'ucx|ofi|psm|openib|_monitoring|slurm|flux|jsm|gridengine|romio|_(atomic|memheap|scoll|spml|sshmem)_')
programs="/usr/bin/orterun /usr/bin/orted"
needs() { # FILE...: the libraries that they need, but for those of every system
    LC_ALL=C ldd "$@" 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
        grep -vE '/(libc|libm|libdl|libpthread|librt|libutil|libresolv|libgcc_s|libstdc\+\+)\.so|/torch/lib/|libgomp'
}
# shellcheck disable=SC2086 # lists of paths without spaces
{
    mkdir -p "$mpi"
    cp --parents $plugins $programs "$mpi"
    for library in $(needs "$built/ddpm-dist" $plugins $programs); do
        install -D "$library" "$mpi$lib/${library##*/}"
    done
}
ln -s orterun "$mpi/usr/bin/mpirun"
# Messages. The administrator's defaults in /etc are not copied.
cp --parents -r /usr/share/openmpi "$mpi"
find "$mpi" -type f -name '*.so*' -exec strip --strip-unneeded {} +

# --- the peer's packages ---------------------------------------------------------------------------------------------
wheels=${WHEELS:-$CACHE/gpu/wheels}
if [ "$wheels" != none ]; then
    if [ ! -e "$wheels/${PACKAGES[0]%%=*}-${PACKAGES[0]##*=}-py3-none-any.whl" ]; then
        say "fetching ${PACKAGES[*]}"
        pip3 download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
            -d "$wheels" "${PACKAGES[@]}" zipp >&2 || die "pip could not fetch ${PACKAGES[*]}: its message is above"
    fi
    for wheel in "$wheels"/*.whl; do python3 -m zipfile -e "$wheel" "$to/python"; done
fi

# GNU tar's order and owners do not depend on the machine.
tar -C "$stage" --sort=name --owner=0 --group=0 -cf - ddpm-gpu | gzip >"$out"
size=$(stat -c %s "$out")
say "$out: $(awk -v b="$size" 'BEGIN { printf "%.1f MB", b / 1e6 }')"
[ "$size" -lt "$MOST" ] || die "that is more than $((MOST >> 20)) MiB"
