#!/usr/bin/env bash
# How long opening large data sets takes, medians of 5: 100,000 image files in 20,000 folders, and 1.2 million images
# packed into Parquet and into tar files. Everything is in the page cache, and the packed sets have their indexes.
#
#   scripts/bench/open_data.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

build
program=$TARGET/release/ddpm-dist
work=$(mktemp -d "$CACHE/bench-XXXXXX")
trap 'rm -rf "$work"' EXIT

python3 - "$work/folders" tests/golden/images/grey.png <<'PYTHON'
import sys
from pathlib import Path

image = Path(sys.argv[2]).read_bytes()
for folder in range(20_000):
    home = Path(sys.argv[1]) / f"{folder:05}"
    home.mkdir(parents=True)
    for file in range(5):
        (home / f"{file}.png").write_bytes(image)
PYTHON
for format in parquet webdataset; do
    "$program" data pack --config smoke --set data.count=1200000 --set data.image_size=16 --format $format \
        --out "$work/$format" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
done

# opens NAME KIND PATH [LABELS=auto]: the median time of `data info`, which also reads 64 images; the first run is not counted.
opens() {
    local times=() start
    for ((round = 0; round <= 5; round++)); do
        start=$EPOCHREALTIME
        "$program" data info --config smoke --set data.kind="$2" --set data.path="$3" --set data.labels="${4:-auto}" \
            --set data.image_size=16 --set data.cache_dir="$work/cache" >"$work/info" 2>&1 || { cat "$work/info"; exit 1; }
        [ $round = 0 ] || times+=("$(python3 -c "print(f'{$EPOCHREALTIME - $start:.2f}')")")
    done
    printf '%s: %s s (%s)\n' "$1" "$(printf '%s\n' "${times[@]}" | sort -n | sed -n 3p)" "$(grep -m1 '^images' "$work/info")"
}
opens "100,000 files in 20,000 folders" folder "$work/folders" folder
opens "1.2 million images in Parquet" parquet "$work/parquet"
opens "1.2 million images in tar files" webdataset "$work/webdataset"
