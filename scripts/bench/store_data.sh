#!/usr/bin/env bash
# Trains on 300 MB of tar files from the local disk, and from an S3 server on this machine that refuses 10 % of the reads
# (503) and stalls 1 % of them for 2 seconds, with a cache of 64 MB. The losses must be the same bits; the waiting times and
# the requests are printed.
#
#   scripts/bench/store_data.sh [RANKS=2] [STEPS=200]
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

ranks=${1:-2} steps=${2:-200}
cargo build --release --locked --quiet --workspace --bins --examples
work=$(mktemp -d)
trap 'kill "${rig_PID:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 scripts/bench/noise_shards.py "$work/s3/bucket/set"
rules='[{"op": "GetObject", "percent": 10, "fault": {"refuse": {"status": 503, "code": "SlowDown"}}},
    {"op": "GetObject", "percent": 1, "fault": {"delay": {"ms": 2000}}}]'
coproc rig { "$TARGET/release/examples/fault_rig" "$work/s3" 0 "$rules"; }
read -r AWS_ENDPOINT_URL <&"${rig[0]}"
export AWS_ENDPOINT_URL AWS_ALLOW_HTTP=true AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=rig AWS_SECRET_ACCESS_KEY=rig-secret

run() { # run NAME PATH SHUFFLE
    DDPM_DIST=$TARGET/release/ddpm-dist OMP_NUM_THREADS=1 launch/local.sh "$ranks" train --config smoke --steps "$steps" \
        --set run.dir="$work/$1" --set data.kind=webdataset --set data.path="$2" --set data.shuffle="$3" \
        --set data.shuffle_window=8 --set data.cache_dir="$work/$1-cache" --set data.cache_gb=0.064 \
        --set data.workers=2 --set data.channels=3 --set train.global_batch=64 --set monitor.sample_every=0 \
        --set monitor.tensorboard=false --set checkpoint.every=1000000 >"$work/$1.log" 2>&1 || { cat "$work/$1.log"; exit 1; }
}

for shuffle in shards global; do
    run "local-$shuffle" "$work/s3/bucket/set" $shuffle
    run "s3-$shuffle" s3://bucket/set $shuffle
    python3 - "$work" $shuffle <<'PYTHON'
import json
import sys
from pathlib import Path

work, shuffle = Path(sys.argv[1]), sys.argv[2]
local, s3 = ([json.loads(line) for line in open(work / f"{place}-{shuffle}/metrics.jsonl")] for place in ("local", "s3"))
same = [line["loss"] for line in local] == [line["loss"] for line in s3]
held = sum(file.stat().st_size for file in (work / f"s3-{shuffle}-cache/blocks").rglob("*"))
waits = [sum(line["data_wait_s"] for line in lines) for lines in (local, s3)]
print(f"{shuffle}: {len(s3)} steps, losses {'equal' if same else 'DIFFERENT'}; data_wait_s {waits[0]:.1f} local, "
      f"{waits[1]:.1f} from the store; rank 0: {s3[-1]['data_requests']} requests, {s3[-1]['data_mb']:.0f} MB; "
      f"{held / 1e6:.1f} MB in the cache")
sys.exit(not same)
PYTHON
done
