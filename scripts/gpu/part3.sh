# Sourced by scripts/gpu/check.sh: where does the time of a training step go?

config=cifar10 batch=128 steps=20
tiny=()
if [ "${TINY:-}" ]; then
    config=smoke batch=2 steps=1
    tiny=(--set 'model.channels=[8]' --set data.image_size=8)
fi
trace=$work/trace.json
must profile 240 "$DDPM_DIST" bench step --json --config "$config" --steps "$steps" --profile "$trace" \
    --set data.kind=synthetic --set data.count=4096 "${tiny[@]}" --set "train.global_batch=$batch" \
    --set "train.device=$DEVICE" --set train.precision=bf16 &&
    line --name profile --value "$(field images_per_s profile)" --unit images/s --command "$command" &&
    gzip -c "$trace" >"$OUT/trace.json.gz" &&
    must costs 120 env "LD_LIBRARY_PATH=$outer" "$PYTHON" scripts/gpu/costs.py "$trace" && {
    grep -v '^{' "$work/costs.out" >"$OUT/kernels.txt"
    line --name "step, traced" --value "$(field step_ms costs)" --unit ms --command "$command"
    line --name "GPU busy per step" --value "$(field busy_ms costs)" --unit ms --command "$command"
    line --name "GPU idle per step" --value "$(field idle_ms costs)" --unit ms --command "$command"
    line --name "launches per step" --value "$(field launches costs)" --command "$command"
    cat "$OUT/kernels.txt"
}
