#!/usr/bin/env bash
# Alternates `bench loader` and PyTorch's DataLoader, one worker each, on the same JPEG files; prints medians and ratios:
# first with Pillow as the DataLoader's decoder, then with torchvision's decode_jpeg.
#
#   scripts/bench/loader.sh [ROUNDS=5] [FOLDER]
#
# Without FOLDER, 2000 drawn pictures of 178x218 are used, as large as CelebA's and with as many bytes. CROP (178) is the
# side of the central square that is used, SIZE (64) that of the result, and STEPS (100) the number of batches of 128.
# OURS holds more arguments for `bench loader`. The first run fetches PyTorch: see compare.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

rounds=${1:-5} folder=${2:-} crop=${CROP:-178} size=${SIZE:-64} steps=${STEPS:-100} batch=128
read -ra ours <<<"${OURS:-}"
build
venv loader torch==2.13.0 torchvision==0.28.0 pillow==13.0.0 numpy

work=$(mktemp -d "$CACHE/bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1
if [ -z "$folder" ]; then
    folder=$work/pictures
    "$PYTHON" scripts/bench/draw_pictures.py "$folder" 2000
fi

for ((round = 1; round <= rounds; round++)); do
    for decoder in pil torchvision; do
        "$TARGET/release/ddpm-dist" bench loader --config celeba64 --set data.path="$folder" --set data.crop="$crop" \
            --set data.image_size="$size" --set data.workers=1 --set train.global_batch="$batch" --steps "$steps" --json \
            "${ours[@]}" 2>"$work/log" >"$work/report" || { cat "$work/log" >&2; exit 1; }
        tee -a "$work/$decoder.ours" <"$work/report"
        "$PYTHON" scripts/bench/peer_loader.py "$folder" "$decoder" --crop "$crop" --size "$size" --batch "$batch" \
            --steps "$steps" 2>"$work/log" >"$work/report" || { cat "$work/log" >&2; exit 1; }
        tee -a "$work/$decoder.theirs" <"$work/report"
    done
done
for decoder in pil torchvision; do
    echo "$decoder:"
    "$PYTHON" scripts/bench/ratios.py "$work/$decoder.ours" "$work/$decoder.theirs" images_per_s images_per_cpu_s max_rss_mb
done
