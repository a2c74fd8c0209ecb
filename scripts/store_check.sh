#!/usr/bin/env bash
# Checks a third-party store, started by scripts/stores.sh: the conformance suite of ddpm-checkpoint and its racing
# writers, then a training on two ranks, one of which is killed again and again. The finished run must equal an undisturbed one.
# docs/stores.md has the results.
#
#   scripts/store_check.sh SERVER [KILLS=6]       moto, azurite or radosgw; about two minutes
#
# DDPM_DIST   the program   (default: target/release/ddpm-dist, built first)
# NO_SUITE    if set, only the training: nothing is compiled
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
[ $# -ge 1 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
[ -n "${STORE:-}" ] || exec scripts/stores.sh "$1" "$0" "$@"

kills=${2:-6}
say() { printf 'store_check: %s\n' "$*" >&2; }
if [ -z "${NO_SUITE:-}" ]; then
    cargo build --release --locked --workspace --bins
    DDPM_TEST_STORE=$STORE/suite cargo nextest run --workspace --release --locked --run-ignored all \
        -E 'package(ddpm-checkpoint) & test(/^tests::(background|damage|history|leases|races|round_trip)::/) - test(on_moto)'
fi
export DDPM_DIST=${DDPM_DIST:-$PWD/target/release/ddpm-dist} OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=

here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
train() { # FOLDER STORE
    launch/local.sh 2 train --config smoke --steps 400 --set run.dir="$1" --set checkpoint.uri="$2" \
        --set checkpoint.every=10 --set checkpoint.lease_s=2 --set data.count=64 --set data.image_size=8 \
        --set 'model.channels=[4, 4]' --set model.norm_groups=2 --set train.global_batch=6 --set monitor.sample_every=0 \
        --set monitor.tensorboard=false
}
ranks() { pgrep -f "^[^ ]*ddpm-dist train .*run.dir=$here/run " || true; }

train "$here/undisturbed" "$here/undisturbed/store" 2>/dev/null
for kill in $(seq "$kills"); do
    train "$here/run" "$STORE/run" >"$here/log" 2>&1 &
    job=$!
    for _ in $(seq 200); do [ "$(ranks | wc -l)" = 2 ] && break || sleep 0.1; done
    sleep "$((RANDOM % 5 + 1)).$((RANDOM % 10))"
    victim=$(ranks | shuf -n 1)
    [ -n "$victim" ] && builtin kill -KILL "$victim"
    status=0
    wait "$job" || status=$?
    say "kill $kill: the job ended with $status; the newest checkpoint is of $("$DDPM_DIST" checkpoints list "$STORE/run" 2>/dev/null | head -1 | xargs)"
done
train "$here/run" "$STORE/run" 2>"$here/log" || { tail -n 5 "$here/log" >&2; say "the run did not finish"; exit 1; }

"$DDPM_DIST" checkpoints verify "$STORE/run"
"$DDPM_DIST" checkpoints copy "$STORE/run" --to "$here/copy" >/dev/null
digests() { (cd "$1/ckpt" && ls | tail -1 | xargs -I{} sh -c 'cd "{}" && sha256sum *'); }
losses() { python3 -c 'import json, sys
for line in sorted(map(json.loads, sys.stdin), key=lambda line: line["step"]): print(line["step"], line["loss"])' <"$1/metrics.jsonl"; }
cmp <(losses "$here/run") <(losses "$here/undisturbed")
cmp <(digests "$here/copy") <(digests "$here/undisturbed/store")
say "$1: the run that was killed equals the undisturbed one, bit for bit"
