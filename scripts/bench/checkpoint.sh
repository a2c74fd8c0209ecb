#!/usr/bin/env bash
# Uploads and restores a training state with `bench checkpoint`, alternating with a plain boto3 multipart copy of the
# same size to the same S3 server on this machine, which keeps objects in memory; prints what the server does for curl,
# which leaves the bytes alone, then medians and ratios.
#
#   scripts/bench/checkpoint.sh [CONFIG=cifar10] [ROUNDS=5]      PART_MB (8) and CONCURRENCY (4) apply to both
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

config=${1:-cifar10} rounds=${2:-5} part_mb=${PART_MB:-8} concurrency=${CONCURRENCY:-4}
build
cargo build --release --locked --quiet -p ddpm-checkpoint --example memory_s3
venv boto3 boto3==1.44.5

work=$(mktemp -d "$CACHE/bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
# It exits at the end of its input, that is, with this script.
coproc server { exec "$TARGET/release/examples/memory_s3" 0; }
read -r AWS_ENDPOINT_URL <&"${server[0]}"
export AWS_ENDPOINT_URL AWS_ALLOW_HTTP=true AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=anyone AWS_SECRET_ACCESS_KEY=anything

# The first upload makes the server ask for memory, which the second still occupies.
head -c 268435456 /dev/zero >"$work/zeros"
object=$AWS_ENDPOINT_URL/bucket/zeros
for _ in 1 2 3; do
    up=$(curl -sS --upload-file "$work/zeros" --output /dev/null --write-out '%{speed_upload}' "$object")
done
down=$(curl -sS --output /dev/null --write-out '%{speed_download}' "$object")
curl -sS --request DELETE "$object"
rm "$work/zeros"
echo "the server alone, over one connection: $((${up%.*} / 1000000)) MB/s received, $((${down%.*} / 1000000)) MB/s sent"

for ((round = 1; round <= rounds; round++)); do
    "$TARGET/release/ddpm-dist" bench checkpoint --config "$config" --uri s3://bucket/bench --repeat 1 --json \
        --set checkpoint.part_mb="$part_mb" --set checkpoint.concurrency="$concurrency" 2>"$work/log" >"$work/ours" ||
        { cat "$work/log" >&2; exit 1; }
    "$PYTHON" scripts/bench/boto3_copy.py "$(tail -n 1 "$work/ours")" "$part_mb" "$concurrency" >"$work/theirs"
    tee -a "$work/all.ours" <"$work/ours"
    tee -a "$work/all.theirs" <"$work/theirs"
done
"$PYTHON" scripts/bench/ratios.py "$work/all.ours" "$work/all.theirs" upload_mb_s restore_mb_s
