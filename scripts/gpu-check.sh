#!/usr/bin/env bash
# For a machine with GPUs: checks that training and gradient averaging are correct there, and measures their speed.
# Prints tables.
#
#   scripts/gpu-check.sh [RANKS]     as many ranks as there are GPUs, or RANKS
#
# CONFIG                           what to time: a file or a preset, on drawn digits of its size   (default: cifar10)
# BATCH                            images per rank in timed runs                                   (default: 64)
# STEPS                            timed steps                                                     (default: 50)
# DDPM_NCCL_LIB, DDPM_CUDART_LIB   the libraries   (default: those next to libtorch, else the system's)
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh

say() { printf 'gpu-check: %s\n' "$*" >&2; }
case ${1:-} in
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
    '') ranks=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU') || { say "nvidia-smi lists no GPU; give the number of ranks to try anyway"; exit 2; } ;;
    *[!0-9]* | 0) say "'$1' is not a number of ranks; give at least 1"; exit 2 ;;
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

cargo build --release --locked --quiet -p ddpm-dist
cargo build --release --locked --quiet -p ddpm-comm --example gpu
target=${CARGO_TARGET_DIR:-target}/release
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$target/ddpm-dist" doctor >&2

# --- NCCL alone --------------------------------------------------------------------------------------------------
for part in check bench; do
    say "NCCL, $part, $ranks rank(s)"
    mpirun --quiet --oversubscribe --bind-to none -np "$ranks" "$target/examples/gpu" "$part" | sed '/^pid /d'
done

# --- training: the same run in several ways -------------------------------------------------------------------------
wrong=0
trained() { # NAME OPTIONS...: the losses of a short run, one per line
    local name=$1 options=()
    for option in "${@:2}"; do options+=(--set "$option"); done
    launch/local.sh "$ranks" train --config smoke --set "run.dir=$scratch/$name" --set "train.global_batch=$((16 * ranks))" \
        --set monitor.tensorboard=false "${options[@]}" >"$scratch/$name.log" 2>&1 ||
        { cat "$scratch/$name.log" >&2; say "training failed: $name"; exit 1; }
    sed -E 's/.*"loss":([^,]*),.*/\1/' "$scratch/$name/metrics.jsonl" >"$scratch/$name.losses"
}
compare() { # NAME OTHER TOLERANCE: a line of the table
    local far
    far=$(paste "$scratch/$1.losses" "$scratch/$2.losses" |
        awk '{ d = $1 - $2; if (d < 0) d = -d; if ($2 != 0) d /= $2; if (d > far) far = d } END { printf "%.2g", far }')
    local verdict=ok
    if ! awk -v far="$far" -v most="$3" 'BEGIN { exit !(far <= most) }'; then verdict=WRONG wrong=1; fi
    printf '%-28s %-28s %10s %10s  %s\n' "$1" "$2" "$far" "$3" "$verdict"
}
say "training, $ranks rank(s)"
trained cpu train.device=cpu
trained cuda train.device=cuda
trained cuda-again train.device=cuda
trained cuda-no-overlap train.device=cuda comm.overlap=false
trained cuda-bf16 train.device=cuda train.precision=bf16
trained cuda-bf16-again train.device=cuda train.precision=bf16
trained cuda-fastest train.device=cuda train.deterministic=false
# Attention, dropout, learned variances: not in the smoke preset.
whole=(model.attention=[false,true] model.dropout=0.1 diffusion.variance=learned_range diffusion.loss=hybrid)
for precision in fp32 bf16; do
    for again in '' -again; do trained "cuda-whole-$precision$again" train.device=cuda "train.precision=$precision" "${whole[@]}"; done
done
same=0
if [ "$ranks" -gt 1 ]; then
    trained cuda-by-mpi train.device=cuda comm.backend=mpi
    # More than two terms may be summed in a different order.
    if [ "$ranks" -gt 2 ]; then same=1e-4; fi
    # Each rank sees one GPU only, as with Slurm's --gpus-per-task.
    cat >"$scratch/one-gpu" <<END
#!/usr/bin/env bash
export CUDA_VISIBLE_DEVICES=\$OMPI_COMM_WORLD_LOCAL_RANK
exec "$PWD/$target/ddpm-dist" "\$@"
END
    chmod +x "$scratch/one-gpu"
    DDPM_DIST=$scratch/one-gpu trained cuda-one-each train.device=cuda
fi
printf '%-28s %-28s %10s %10s\n' run "compared with" "difference" "allowed"
compare cuda-again cuda 0
compare cuda-no-overlap cuda 0
compare cuda-bf16-again cuda-bf16 0
for precision in fp32 bf16; do compare "cuda-whole-$precision-again" "cuda-whole-$precision" 0; done
if [ "$ranks" -gt 1 ]; then
    compare cuda-by-mpi cuda "$same"
    compare cuda-one-each cuda 0
fi
compare cuda-fastest cuda 0.02
compare cuda cpu 0.02
compare cuda-bf16 cuda 0.1
launch/local.sh "$ranks" sample --model "$scratch/cuda" --device cuda -n 16 --steps 10 --out "$scratch/cuda.safetensors"
launch/local.sh "$ranks" eval fid --samples "$scratch/cuda.safetensors" --data smoke --device cuda

# --- out of memory: one line for each rank that runs out, and exit code 6 ---------------------------------------------
say "a batch too large for any GPU's memory"
code=0
launch/local.sh "$ranks" train --config smoke --set "run.dir=$scratch/full" --set train.device=cuda --set data.image_size=256 \
    --set data.count=$((4096 * ranks)) --set "train.global_batch=$((4096 * ranks))" --set 'model.channels=[256,256]' --steps 1 \
    --set monitor.tensorboard=false >"$scratch/full.log" 2>&1 || code=$?
grep 'error: ' "$scratch/full.log" || cat "$scratch/full.log"
if [ "$code" != 6 ]; then say "WRONG: the exit code is $code, not 6"; wrong=1; fi
say "the dry run's estimate of GPU memory, and what nvidia-smi reports during training"
launch/local.sh 1 train --dry-run --config "${CONFIG:-cifar10}" --set data.kind=synthetic --set data.count=4096 \
    --set "train.global_batch=${BATCH:-64}" --set train.device=cuda 2>/dev/null | grep -A4 '^# memory'
launch/local.sh 1 bench step --config "${CONFIG:-cifar10}" --set data.kind=synthetic --set data.count=4096 --steps 100000 \
    --set "train.global_batch=${BATCH:-64}" --set train.device=cuda >/dev/null 2>&1 &
for _ in 1 2 3; do sleep 15; nvidia-smi --query-gpu=memory.used --format=csv,noheader | head -n 1; done
kill -TERM $! && wait $! || true # a command in the background ignores SIGINT

# --- training: how fast ---------------------------------------------------------------------------------------------
field() { sed -E "s/.*\"$1\":([^,}]*).*/\1/" <<<"$2"; }
say "bench step of ${CONFIG:-cifar10}, ${BATCH:-64} images per rank"
printf '%5s %9s %9s %7s %12s %14s %13s\n' ranks precision overlap backend images/s median_step_s data_wait_s
timed() { # RANKS PRECISION OVERLAP BACKEND
    local line
    line=$(launch/local.sh "$1" bench step --json --config "${CONFIG:-cifar10}" --steps "${STEPS:-50}" --warmup 10 \
        --set data.kind=synthetic --set data.count=4096 --set "train.global_batch=$((${BATCH:-64} * $1))" \
        --set train.device=cuda --set "train.precision=$2" --set "comm.overlap=$3" --set "comm.backend=$4" 2>"$scratch/bench.log") ||
        { cat "$scratch/bench.log" >&2; say "bench step failed"; exit 1; }
    printf '%5s %9s %9s %7s %12.1f %14.5f %13.3f\n' "$1" "$2" "$3" "$4" "$(field images_per_s "$line")" \
        "$(field median_step_s "$line")" "$(field data_wait_s "$line")"
}
for precision in fp32 bf16; do
    for ((n = 1; n <= ranks; n = n < ranks && 2 * n > ranks ? ranks : 2 * n)); do
        timed "$n" "$precision" true auto
        if [ "$n" -gt 1 ]; then
            timed "$n" "$precision" false auto
            timed "$n" "$precision" true mpi
        fi
    done
done
say "the gain from overlap is images/s with 'true' compared with 'false' at the same number of ranks"
exit "$wrong"
