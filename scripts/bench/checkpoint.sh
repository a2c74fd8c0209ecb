#!/usr/bin/env bash
# Uploads and restores a training state with `bench checkpoint`, alternating with a plain boto3 multipart copy of the
# same size to the same S3 server on this machine; prints medians and ratios.
#
#   scripts/bench/checkpoint.sh [CONFIG=cifar10] [ROUNDS=5]      PART_MB (8) and CONCURRENCY (4) apply to both
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

config=${1:-cifar10} rounds=${2:-5} part_mb=${PART_MB:-8} concurrency=${CONCURRENCY:-4}
build
cargo build --release --locked --quiet -p ddpm-checkpoint --example fault_rig
venv boto3 boto3==1.44.5

work=$(mktemp -d "$CACHE/bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
# An S3 server on a directory. It exits at the end of its input, that is, with this script.
coproc server { exec "$TARGET/release/examples/fault_rig" "$work/server" 0; }
read -r AWS_ENDPOINT_URL <&"${server[0]}"
export AWS_ENDPOINT_URL AWS_ALLOW_HTTP=true AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=rig AWS_SECRET_ACCESS_KEY=rig-secret

for ((round = 1; round <= rounds; round++)); do
    "$TARGET/release/ddpm-dist" bench checkpoint --config "$config" --uri s3://bucket/bench --repeat 1 --json \
        --set checkpoint.part_mb="$part_mb" --set checkpoint.concurrency="$concurrency" 2>"$work/log" >"$work/ours" ||
        { cat "$work/log" >&2; exit 1; }
    "$PYTHON" scripts/bench/boto3_copy.py "$(tail -n 1 "$work/ours")" "$part_mb" "$concurrency" >"$work/theirs"
    tee -a "$work/all.ours" <"$work/ours"
    tee -a "$work/all.theirs" <"$work/theirs"
done
"$PYTHON" scripts/bench/ratios.py "$work/all.ours" "$work/all.theirs" upload_mb_s restore_mb_s
