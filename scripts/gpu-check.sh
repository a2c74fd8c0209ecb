#!/usr/bin/env bash
# On a machine with GPUs: whether ranks exchange gradients over NCCL correctly, and how fast. Prints a table.
#
#   scripts/gpu-check.sh [RANKS]     as many ranks as there are GPUs, or RANKS
#
# DDPM_NCCL_LIB, DDPM_CUDART_LIB   the libraries   (default: those beside libtorch, else the system's)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'gpu-check: %s\n' "$*" >&2; }
case ${1:-} in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    '') ranks=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU') || { say "nvidia-smi lists no GPU; name the number of ranks to try anyway"; exit 2; } ;;
    *[!0-9]* | 0) say "'$1' is no number of ranks; give one of at least 1"; exit 2 ;;
    *) ranks=$1 ;;
esac

beside() { # VARIABLE FILE: the newest such file in the cache, unless the variable is set
    if [ -z "${!1:-}" ]; then
        local found
        found=$(find "$CACHE" -path '*/nvidia/*' -name "$2" -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d' ' -f2-)
        if [ -n "$found" ]; then export "$1=$found"; fi
    fi
    say "$1=${!1:-wherever the loader finds it}"
}
beside DDPM_NCCL_LIB libnccl.so.2
beside DDPM_CUDART_LIB 'libcudart.so.1[23]'

cargo build --release --locked --quiet -p ddpm-comm --example gpu
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
for part in check bench; do
    say "$part, $ranks rank(s)"
    mpirun --quiet --oversubscribe --bind-to none -np "$ranks" "${CARGO_TARGET_DIR:-target}/release/examples/gpu" "$part" |
        sed '/^pid /d'
done
