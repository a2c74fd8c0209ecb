#!/usr/bin/env bash
# What telemetry costs a step: alternates trainings on two ranks with all of it (a line of metrics.jsonl and TensorBoard
# scalars in every step) and with none (one line at the end). Prints medians of the seconds per step, of the processor seconds
# of both ranks, and their ratios. The times of ranks travel with the norms of gradients in either case.
#
#   scripts/bench/telemetry.sh [ROUNDS=7] [STEPS=400] [CONFIG=smoke]       some four minutes on two idle cores
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/bench/env.sh

rounds=${1:-7} steps=${2:-400} config=${3:-smoke}
build
python3 - "$rounds" "$steps" "$config" <<'END'
import os
import statistics
import subprocess
import sys
import tempfile
import time

rounds, steps = int(sys.argv[1]), int(sys.argv[2])
settings = {
    "all": {"monitor.log_every": 1, "monitor.tensorboard": "true"},
    "none": {"monitor.log_every": steps, "monitor.tensorboard": "false"},
}


def seconds(telemetry, steps):
    with tempfile.TemporaryDirectory() as folder:
        pairs = {"run.dir": folder, "checkpoint.every": 10**6, "monitor.sample_every": 0} | settings[telemetry]
        words = [word for name, value in pairs.items() for word in ("--set", f"{name}={value}")]
        command = ["launch/local.sh", "2", "train", "--config", sys.argv[3], "--steps", str(steps), *words]
        start, before = time.monotonic(), os.times()
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        return time.monotonic() - start, used


# The start and the end, which are no steps.
around = {name: [statistics.median(part) for part in zip(*(seconds(name, 1) for _ in range(3)))] for name in settings}
found = {name: [] for name in settings}
for _ in range(rounds):
    for name in settings:
        run = seconds(name, steps)
        found[name].append([(whole - rest) / (steps - 1) for whole, rest in zip(run, around[name])])
for index, what in enumerate(["seconds per step", "processor seconds per step"]):
    medians = {name: statistics.median(run[index] for run in runs) for name, runs in found.items()}
    ratios = sorted(one[index] / other[index] for one, other in zip(found["all"], found["none"]))
    print(f"{what}: all {medians['all']:.5f}, none {medians['none']:.5f}, ratio {medians['all'] / medians['none']:.4f} "
          f"(rounds: {ratios[0]:.4f} to {ratios[-1]:.4f})")
END
