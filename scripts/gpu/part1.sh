# Sourced by scripts/gpu/check.sh: is training on the GPU correct? The same short run, in several ways.

small=(--set monitor.tensorboard=false --set monitor.sample_every=0 --set checkpoint.exclusive=true)
steps=20 third=6 levels='[true,true]'
nccl=nccl
if [ "$DEVICE" = cpu ]; then nccl=mpi; fi
if [ "${TINY:-}" ]; then
    small+=(--set 'model.channels=[8]' --set data.image_size=8 --set data.count=64 --set train.global_batch=4)
    small+=(--set diffusion.timesteps=10 --set monitor.sample_steps=10)
    steps=6 third=2 levels='[true]'
fi

# train NAME RANKS DEVICE OPTIONS...: a short run in $work/NAME.
train() {
    local name=$1 ranks=$2 device=$3 option all=("${small[@]}")
    for option in "${@:4}"; do
        if [[ $option = --* ]]; then all+=("$option"); else all+=(--set "$option"); fi
    done
    if altered "$name"; then all+=(--set seed=1); fi
    launcher=("$DDPM_DIST")
    if [ "$ranks" -gt 1 ]; then launcher=(launch/local.sh "$ranks"); fi
    must "$name" 60 env "${with[@]}" "${launcher[@]}" train --config smoke --set "run.dir=$work/$name" \
        --set "train.device=$device" --set "train.steps=$steps" "${all[@]}"
}

# same NAME OTHER TOLERANCE REASON: compares the losses of two runs.
same() { compared "$1" losses "$work/$1/metrics.jsonl" "$work/$2/metrics.jsonl" "$3" "$4"; }

if must doctor 60 "$DDPM_DIST" doctor; then exits doctor 0 "this machine has what is needed"; fi
if must nccl-check 60 "$GPU_EXAMPLE" check; then exits nccl-check 0 "sums over NCCL equal those over MPI"; fi
if must nccl-bench 60 "$GPU_EXAMPLE" bench; then exits nccl-bench 0 "its table is in the log"; fi

# --- one rank; runs named cuda, exact, half and whole are what others are compared with -----------------------------
bits="the same operations on the same GPU"
with=()
# says NAME TEXT: how often the log of the first run says it.
says() {
    local times=1
    if [ "$DEVICE" = cpu ]; then times=0; fi
    if altered "$1"; then times=2; fi
    line --name "$1" --value "$(grep -c "$2" "$work/cuda.err")" --expected "$times" --command "$command" \
        --reason "the log says so, on a GPU"
}
train cuda 1 "$DEVICE" &&
    says kernels 'group norms: fused kernels, compiled for this GPU' &&
    says graph 'passes are replayed as a CUDA graph from here on'
with=(NVIDIA_TF32_OVERRIDE=0)
train exact 1 "$DEVICE"
train cpu 1 cpu && same cpu exact 1e-3 "fp32 on both; sums in another order"
train resumed 1 "$DEVICE" "train.steps=$third" &&
    train resumed 1 cpu "train.steps=$((2 * third))" &&
    train resumed 1 "$DEVICE" &&
    same resumed exact 1e-3 "GPU, CPU, GPU: as the CPU"
with=()
train tf32 1 "$DEVICE" && same tf32 exact 0.02 "convolutions round their inputs to 10 bits"
train again 1 "$DEVICE" && same again cuda 0 "$bits"
train no-overlap 1 "$DEVICE" comm.overlap=false && same no-overlap cuda 0 "$bits"
train no-graph 1 "$DEVICE" train.cuda_graphs=off && same no-graph cuda 0 "a graph has the same operations"
train accumulated 1 "$DEVICE" train.micro_batch=2 && same accumulated cuda 0.02 "micro-batches; sums in another order"
train nccl 1 "$DEVICE" "comm.backend=$nccl" && same nccl cuda 0 "$bits"
train checkpointed 1 "$DEVICE" "model.checkpoint_activations=$levels" &&
    same checkpointed cuda 0 "activations are recomputed by the same operations"
train fastest 1 "$DEVICE" train.deterministic=false && same fastest cuda 0.02 "algorithms chosen by time"
train bf16 1 "$DEVICE" train.precision=bf16 && same bf16 cuda 0.02 "bf16 has 8 bits"
train half 1 "$DEVICE" train.precision=bf16
train bf16-again 1 "$DEVICE" train.precision=bf16 && same bf16-again half 0 "$bits"
# Attention, dropout, learned variances: not in the smoke preset.
whole=(model.dropout=0.1 diffusion.variance=learned_range diffusion.loss=hybrid 'model.attention=[true]')
[ "${TINY:-}" ] || whole+=('model.attention=[false,true]')
train whole 1 "$DEVICE" "${whole[@]}"
train whole-again 1 "$DEVICE" "${whole[@]}" && same whole-again whole 0 "$bits"
train whole-no-graph 1 "$DEVICE" "${whole[@]}" train.cuda_graphs=off &&
    same whole-no-graph whole 0 "a graph has the same operations"
train whole-bf16 1 "$DEVICE" "${whole[@]}" train.precision=bf16 && same whole-bf16 whole 0.02 "bf16 has 8 bits"

# --- two ranks that share the GPU ------------------------------------------------------------------------------------
with=(DDPM_SHARE_GPU=1 NVIDIA_TF32_OVERRIDE=0)
train shared 2 "$DEVICE" && same shared exact 1e-3 "two halves of each batch, summed by MPI"
with=()
refusal=2
if [ "$DEVICE" = cpu ]; then refusal=0; fi
if altered one-each; then refusal=1; fi
run one-each 60 env CUDA_VISIBLE_DEVICES=0 launch/local.sh 2 train --config smoke --set "run.dir=$work/one-each" \
    --set "train.device=$DEVICE" --steps 1 "${small[@]}" &&
    exits one-each "$refusal" "without the switch, each rank needs a GPU of its own"

# --- stopping --------------------------------------------------------------------------------------------------------
signal=USR1
if altered stopped; then signal=KILL; fi
# The signal comes once the first step is logged.
cat >"$work/stop" <<'END'
"$@" &
until [ -s "$FOLDER/metrics.jsonl" ]; do kill -0 $! || exit; sleep 0.05; done
kill -"$SIGNAL" $!
wait $!
END
run stopped 60 env "FOLDER=$work/stopped" "SIGNAL=$signal" bash "$work/stop" "$DDPM_DIST" train --config smoke \
    --set "run.dir=$work/stopped" --set "train.device=$DEVICE" --set train.steps=1000000 "${small[@]}" &&
    exits stopped 75 "SIGUSR1 saves and stops"

# --- the other commands, on both devices -----------------------------------------------------------------------------
drawn=(--model "$work/exact" -n 16 --steps 10)
seed=0
if altered sample; then seed=1; fi
must sample-gpu 60 env NVIDIA_TF32_OVERRIDE=0 "$DDPM_DIST" sample "${drawn[@]}" --device "$DEVICE" \
    --out "$work/gpu.safetensors" &&
    must sample-host 60 "$DDPM_DIST" sample "${drawn[@]}" --seed "$seed" --device cpu --out "$work/host.safetensors" &&
    compared sample tensors "$work/gpu.safetensors" "$work/host.safetensors" 0.01 \
        "fp32 on both, ten steps; images in -1..1"

# numbers NAME KEY TOLERANCE REASON COMMAND...: the number that COMMAND prints as KEY, on both devices.
numbers() {
    local name=$1 key=$2 device expected=
    for device in cpu "$DEVICE"; do
        must "$name" 60 env NVIDIA_TF32_OVERRIDE=0 "$DDPM_DIST" eval --json "${@:5}" --device "$device" || return
        [ "$device" != cpu ] || [ "$expected" ] || expected=$(field "$key" "$name")
        if altered "$name"; then set -- "${@:1:4}" "$5" "${other[@]}"; fi
    done
    line --name "$name" --value "$(field "$key" "$name")" --expected "$expected" --tolerance "$3" --reason "$4" \
        --command "$command"
}
size=(--set data.image_size=16)
[ -z "${TINY:-}" ] || size=(--set data.image_size=8)
other=(--samples "$work/gpu.safetensors" --data smoke "${size[@]}" -n 100)
numbers distance frechet_distance 0.01 "the same images" fid --samples "$work/gpu.safetensors" --data smoke "${size[@]}"
other=(--model "$work/exact" -n 16 --seed 1)
numbers bound bits_per_dim 1e-3 "fp32 on both" nll --model "$work/exact" -n 16

# --- out of memory ---------------------------------------------------------------------------------------------------
# More than any GPU has; on the CPU, more than the limit on its memory.
large=4096 wide='model.channels=[256,256]' pixels=256 most=unlimited
if [ "$DEVICE" = cpu ]; then large=8192 wide='model.channels=[16]' pixels=64 most=3000000; fi
if altered memory; then large=1 pixels=16; fi
run memory 120 bash -c 'ulimit -v "$0"; exec "$@"' "$most" "$DDPM_DIST" train --config smoke \
    --set "run.dir=$work/memory" "${small[@]}" --set "train.device=$DEVICE" --set "data.image_size=$pixels" \
    --set "data.count=$large" \
    --set "train.global_batch=$large" --set "$wide" --steps 1 &&
    exits memory 6 "exit code of a full memory" &&
    line --name memory-sentence --value "$(grep -c 'error: out of memory' "$work/memory.err")" \
        --expected "$((code == 6))" --reason "one sentence says so" --command "$command"

# --- memory errors of kernels ----------------------------------------------------------------------------------------
steps=2
if altered sanitizer; then steps=none; fi
has sanitizer compute-sanitizer &&
    run sanitizer 150 compute-sanitizer --error-exitcode 9 "$DDPM_DIST" train --config smoke \
        --set "run.dir=$work/sanitizer" --set "train.device=$DEVICE" --set "train.steps=$steps" "${small[@]}" &&
    exits sanitizer 0 "no kernel reads or writes outside its memory"
