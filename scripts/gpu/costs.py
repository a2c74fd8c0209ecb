"""The costs in a trace of `bench step --profile`: expensive kernels, launches, and time in which the GPU was idle.

    costs.py TRACE [--steps 5] [--top 25]

Prints a table, and a JSON object as the last line. Without a GPU in the trace, operators stand for kernels; nested ones
then count several times in the sum, but not in the idle time.
"""

import argparse
import collections
import json

ON_GPU = {"kernel", "gpu_memcpy", "gpu_memset"}


def covered(spans):
    """The length of the union of spans (start, end)."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def main():
    options = argparse.ArgumentParser()
    options.add_argument("trace")
    options.add_argument("--steps", type=int, default=5, help="the number recorded")
    options.add_argument("--top", type=int, default=25)
    options = options.parse_args()
    with open(options.trace) as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    work = [event for event in events if event.get("cat") in ON_GPU]
    unit = "kernel" if work else "operator"
    work = work or [event for event in events if event.get("cat") == "cpu_op"]
    launches = sum("LaunchKernel" in event["name"] for event in events if event.get("cat", "").startswith("cuda_"))
    launches = launches or sum(event["cat"] in ("kernel", "cpu_op") for event in work)

    time, calls = collections.Counter(), collections.Counter()
    for event in work:
        time[event["name"]] += event["dur"]
        calls[event["name"]] += 1
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in work]
    whole = max(end for _, end in spans) - min(start for start, _ in spans)
    busy, total = covered(spans), sum(time.values())

    def per_step(microseconds):
        return microseconds / options.steps / 1e3

    print(f"{'share':>7} {'ms/step':>9} {'calls/step':>11}  {unit}")
    for name, spent in time.most_common(options.top):
        print(f"{spent / total:7.1%} {per_step(spent):9.3f} {calls[name] / options.steps:11.1f}  {name[:150]}")
    print(json.dumps({
        "work": unit, "step_ms": per_step(whole), "busy_ms": per_step(busy), "idle_ms": per_step(whole - busy),
        "launches": launches / options.steps, "kinds": len(time),
    }))


if __name__ == "__main__":
    main()
