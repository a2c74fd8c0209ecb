# Sourced by the benchmarks that compare with PyTorch: the network and the fastest setting of the peer.
. scripts/bench/env.sh

# untrained CONFIG FOLDER: exports the network of CONFIG after one step on one image: for diffusers, or, if it has no
# such network, as tensors with their description. For 120 million parameters this takes 3 GB of disk for ten seconds.
untrained() {
    local program=$TARGET/release/ddpm-dist format=diffusers
    {
        "$program" train --config "$1" --steps 1 --resume never --set run.dir="$2.run" --set train.global_batch=1 \
            --set train.warmup_steps=0 --set data.kind=synthetic --set data.count=1 --set data.workers=1 \
            --set monitor.sample_every=0 --set monitor.tensorboard=false &&
            { ! grep -q '^kind = "small"' "$2.run/config.toml" || format=safetensors; } &&
            "$program" export "$2.run" --out "$2" --format $format --weights raw --no-variants --no-grid
    } >"$2.log" 2>&1 || { cat "$2.log" >&2; return 1; }
    rm -r "$2.run"
}

# fastest RUN SETTING...: prints the most images per second that RUN reports, and the setting with which it does. A
# setting is options of the peer joined by commas, which are given to RUN.
fastest() {
    local run=$1 setting best="" most=0 report found
    for setting in "${@:2}"; do
        # A setting that a version of PyTorch cannot run is passed over.
        # shellcheck disable=SC2086 # split into options
        report=$("$run" ${setting//,/ }) || { echo "peer ${setting:-as it is}: failed" >&2; continue; }
        found=$("$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["images_per_s"])' <<<"$report")
        printf 'peer %-40s %8.2f images/s at first\n' "${setting:-as it is}" "$found" >&2
        if awk "BEGIN { exit !($found > $most) }"; then most=$found best=$setting; fi
    done
    echo "$most $best"
}
