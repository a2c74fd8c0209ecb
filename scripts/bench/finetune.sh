#!/usr/bin/env bash
# Fine-tuning against training from scratch (docs/results.md): a network trained on MNIST goes on with Fashion-MNIST, and
# another starts there from random weights. Held-out loss at the same steps, images, timesteps and noise.
# Needs data/mnist and data/fashion-mnist (scripts/datasets.sh). Prints one line per evaluation; writes runs/finetune/.
#
#   scripts/bench/finetune.sh [SEEDS=3]      about five minutes, and five for each seed, on two cores
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/env.sh

seeds=${1:-3}
[[ $seeds =~ ^[1-9][0-9]*$ ]] || { echo "finetune: give the number of seeds, such as 3" >&2; exit 2; }
scripts/setup.sh
cargo build --release --locked --workspace --bins

base=runs/finetune/mnist
train() { launch/local.sh 2 train --config scripts/bench/results.toml "$@"; }
run() { # NAME SEED OPTIONS...
    train --set run.dir=runs/finetune/"$1-$2" --set seed="$2" --set data.path=data/fashion-mnist --steps 400 \
        --set monitor.log_every=25 --set monitor.eval_every=25 --set monitor.eval_count=128 "${@:3}"
}
train --set run.dir="$base"
for ((seed = 1; seed <= seeds; seed++)); do
    run scratch "$seed"
    run finetuned "$seed" --init-from "$base"
done
target/release/ddpm-dist plot loss --metric eval_loss --out runs/finetune/eval_loss.png \
    $(for ((seed = 1; seed <= seeds; seed++)); do echo --run runs/finetune/scratch-"$seed" --run runs/finetune/finetuned-"$seed"; done)
python3 - "$seeds" <<'END'
import json, statistics, sys
seeds = range(1, int(sys.argv[1]) + 1)
def curve(name, seed):
    lines = map(json.loads, open(f"runs/finetune/{name}-{seed}/metrics.jsonl"))
    return {line["step"]: (line["eval_loss"], line["eval_bits_per_dim"]) for line in lines if line["eval_loss"] is not None}
curves = {name: [curve(name, seed) for seed in seeds] for name in ["scratch", "finetuned"]}
print("| step | loss from scratch | fine-tuned | bits/dim from scratch | fine-tuned |\n|---|---|---|---|---|")
for step in curves["scratch"][0]:
    cells = []
    for which, digits in [(0, 4), (1, 2)]:
        for name in ["scratch", "finetuned"]:
            values = [curve[step][which] for curve in curves[name]]
            cells.append(f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values) if len(values) > 1 else 0:.{digits}f}")
    print(f"| {step} | " + " | ".join(cells) + " |")
END
