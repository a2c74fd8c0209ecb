# Sourced by scripts/gpu/check.sh: how fast is training, compared with diffusers' network in PyTorch?
# The most important lines come first, ours and the peer's in turn.

if [ -z "${PEER:-}" ]; then
    peer=(env "LD_LIBRARY_PATH=$outer" "$PYTHON" scripts/gpu/peer.py)
else
    read -ra peer <<<"$PEER"
fi
steps=40 warmup=10 cifar=cifar10 celeba=celeba64
batches=(128 64 256)
tiny=()
if [ "${TINY:-}" ]; then
    steps=1 warmup=0 cifar=smoke celeba=smoke
    batches=(2 1)
    tiny=(--set 'model.channels=[8]' --set data.image_size=8)
fi

# timed NAME SECONDS COMMAND...: two lines, images per second and the most memory in use on the GPU meanwhile.
timed() {
    local name=$1 watcher speed
    while nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits 2>/dev/null; do
        sleep 0.5
    done >"$work/$name.mib" &
    watcher=$!
    must "$@" || { kill "$watcher" 2>/dev/null; return 1; }
    kill "$watcher" 2>/dev/null
    speed=$(field images_per_s "$name")
    line --name "$name" --value "${speed:-nan}" --unit images/s --command "$command"
    has "$name memory" nvidia-smi &&
        line --name "$name memory" --value "$(sort -n "$work/$name.mib" | tail -n 1)" --unit MiB --command nvidia-smi
    return 0
}

# ours NAME CONFIG BATCH PRECISION DROPOUT OPTIONS...
ours() {
    local options=()
    for option in "${@:6}"; do options+=(--set "$option"); done
    timed "$1" 60 "$DDPM_DIST" bench step --json --config "$2" --steps "$steps" --warmup "$warmup" \
        --set data.kind=synthetic --set data.count=4096 "${tiny[@]}" --set "train.global_batch=$3" \
        --set "train.device=$DEVICE" --set "train.precision=$4" --set "model.dropout=$5" "${options[@]}"
}

# theirs NAME SECONDS CONFIG BATCH DROPOUT OPTIONS...
theirs() {
    timed "$1" "$2" "${peer[@]}" --config "configs/$3.toml" --device "$DEVICE" --batch "$4" --dropout "$5" \
        --steps "$steps" --warmup "$warmup" "${@:6}"
}

# ratio ONE OTHER: of the images per second.
ratio() {
    local a b
    a=$(field images_per_s "$1") && b=$(field images_per_s "$2") || return
    line --name "$1 : $2" --value "$(awk -v a="$a" -v b="$b" 'BEGIN { print a / b }')" --unit times \
        --reason "more than 1: the first is faster"
}

first=${batches[0]} layers=()
if altered params; then layers=(model.layers_per_block=3); fi
ours "$cifar bf16 $first" "$cifar" "$first" bf16 0.1 "${layers[@]}"
theirs "peer bf16 $first" 90 "$cifar" "$first" 0.1 --bf16 --channels-last
a=$(field params "$cifar bf16 $first") && b=$(field params "peer bf16 $first") &&
    line --name params --value "$a" --expected "$b" --reason "the same network"
theirs "peer bf16 $first compiled" 150 "$cifar" "$first" 0.1 --bf16 --channels-last --compile
ratio "$cifar bf16 $first" "peer bf16 $first"
ratio "$cifar bf16 $first" "peer bf16 $first compiled"
ours "$cifar bf16 $first again" "$cifar" "$first" bf16 0.1
ours "$cifar bf16 $first no graph" "$cifar" "$first" bf16 0.1 train.cuda_graphs=off
ratio "$cifar bf16 $first" "$cifar bf16 $first no graph"
ours "$cifar bf16 $first fastest" "$cifar" "$first" bf16 0.1 train.deterministic=false
ours "$cifar bf16 $first no dropout" "$cifar" "$first" bf16 0
ours "$cifar fp32 $first" "$cifar" "$first" fp32 0.1
theirs "peer fp32 $first" 90 "$cifar" "$first" 0.1 --channels-last
ratio "$cifar fp32 $first" "peer fp32 $first"
ours "celeba bf16 $first" "$celeba" "$first" bf16 0
theirs "peer celeba bf16 $first" 90 "$celeba" "$first" 0 --bf16 --channels-last
ratio "celeba bf16 $first" "peer celeba bf16 $first"
for batch in "${batches[@]:1}"; do
    ours "$cifar bf16 $batch" "$cifar" "$batch" bf16 0.1
    theirs "peer bf16 $batch" 90 "$cifar" "$batch" 0.1 --bf16 --channels-last
    ratio "$cifar bf16 $batch" "peer bf16 $batch"
    ours "$cifar bf16 $batch no dropout" "$cifar" "$batch" bf16 0
    ours "$cifar fp32 $batch" "$cifar" "$batch" fp32 0.1
done
for batch in "${batches[@]}"; do ours "$cifar fp32 $batch no dropout" "$cifar" "$batch" fp32 0; done
