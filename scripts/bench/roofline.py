"""Computes the convolutions' share of the step time and their throughput from oneDNN's log of each call.

usage: ONEDNN_VERBOSE=profile_exec ddpm-dist bench step --json ... | roofline.py

oneDNN also writes to standard output; the last line is the report of `bench step`. Warm-up steps are included, so
shares are relative to the median step time multiplied by all steps.
"""

import collections
import json
import re
import sys

WARM_UP = 5


def operations(shape):
    """Floating-point operations of one convolution, from oneDNN's description of its sizes."""
    size = {name: int(value) for name, value in re.findall(r"(mb|ic|oc|oh|ow|kh|kw|g)(\d+)", shape)}
    products = size["mb"] * size["oh"] * size["ow"] * size["oc"] * size["ic"] * size["kh"] * size["kw"]
    return 2 * products / size.get("g", 1)


seconds, flop, report = collections.Counter(), collections.Counter(), None
best = 0.0
for line in sys.stdin:
    if line.startswith("{"):
        report = json.loads(line)
    fields = line.strip().split(",")
    if "exec" not in fields or fields[0] != "onednn_verbose":
        continue
    kind, _, direction = fields[fields.index("exec") + 2 :][:3]
    name = direction if kind == "convolution" else kind
    took = float(fields[-1]) / 1e3
    seconds[name] += took
    if kind == "convolution":
        flop[name] += operations(fields[-2])
        best = max(best, operations(fields[-2]) / took)
if report is None or not flop:
    sys.exit("roofline: no report and no convolution; is ONEDNN_VERBOSE=profile_exec set, and --json given?")

steps = report["steps"] + WARM_UP
step = report["median_step_s"]
print(f"{'':<18} {'ms/step':>10} {'share':>7} {'GFLOP/s':>9}")
for name, total in seconds.most_common():
    rate = f"{flop[name] / total / 1e9:9.0f}" if name in flop else ""
    print(f"{name:<18} {1e3 * total / steps:>10.1f} {100 * total / steps / step:>6.1f}% {rate}")
all_flop, in_convolutions = sum(flop.values()) / steps, sum(seconds[name] for name in flop) / steps
print(
    f"{'convolutions':<18} {1e3 * in_convolutions:>10.1f} {100 * in_convolutions / step:>6.1f}% "
    f"{all_flop / in_convolutions / 1e9:9.0f}"
)
print(
    f"{'whole step':<18} {1e3 * step:>10.1f} {100:>6.1f}% {all_flop / step / 1e9:9.0f}   of {all_flop / 1e9:.0f} GFLOP; "
    f"the fastest single convolution: {best / 1e9:.0f} GFLOP/s"
)
