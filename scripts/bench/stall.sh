#!/usr/bin/env bash
# Measures which share of the time saves block training with a network of the cifar10 preset's size: background saves
# compared with saves that training waits for. Drawn images, one image per step and rank, so that steps are short and
# the shares large.
#
#   scripts/bench/stall.sh [RANKS=1] [STEPS=100] [EVERY=100] [ROUNDS=1]      3 x STEPS x ROUNDS steps in all
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

ranks=${1:-1} steps=${2:-100} every=${3:-100} rounds=${4:-1}
build
mkdir -p "$CACHE/tmp"
TMPDIR=$CACHE/tmp launch/local.sh "$ranks" bench checkpoint --config cifar10 --set data.kind=synthetic \
    --set train.global_batch="$ranks" --steps "$steps" --every "$every" --repeat "$rounds"
