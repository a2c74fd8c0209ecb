"""The lines of scripts/gpu/check.sh: what was found, what is allowed, and the verdict.

    compare.py losses RUN OTHER             largest relative difference between the losses of two metrics.jsonl
    compare.py tensors FILE OTHER           largest difference between the tensors of two safetensors files
    compare.py field NAME FILE              a number from the last JSON object of a file
    compare.py line FILE OPTIONS            appends a line to FILE, and prints it as a row of the table
    compare.py verdict FILE                 exits with code 1 if a line of FILE is WRONG or FAILED
"""

import argparse
import array
import json
import math
import struct
import sys


def losses(path):
    """The loss of each step; a step trained again after a resume counts once."""
    with open(path) as file:
        lines = [json.loads(line) for line in file]
    found = {line["step"]: float("nan") if line["loss"] is None else line["loss"] for line in lines}
    if not found:
        sys.exit(f"{path} has no losses")
    return found


def difference_of_losses(path, other):
    ours, theirs = losses(path), losses(other)
    if ours.keys() != theirs.keys():
        sys.exit(f"{path} and {other} have different steps")
    return largest(abs(ours[step] - theirs[step]) / max(abs(theirs[step]), 1e-30) for step in ours)


def tensors(path):
    """The f32 tensors of a safetensors file, by name."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(size)), file.read()
    header.pop("__metadata__", None)
    spans = {name: about["data_offsets"] for name, about in header.items() if about["dtype"] == "F32"}
    return {name: array.array("f", data[start:end]) for name, (start, end) in spans.items()}


def difference_of_tensors(path, other):
    ours, theirs = tensors(path), tensors(other)
    if not ours or {name: len(ours[name]) for name in ours} != {name: len(theirs[name]) for name in theirs}:
        sys.exit(f"{path} and {other} have different tensors")
    return largest(abs(a - b) for name in ours for a, b in zip(ours[name], theirs[name]))


def largest(values):
    """The largest of `values`; NaN if any is, which max() would lose."""
    values = list(values)
    return float("nan") if any(math.isnan(value) for value in values) else max(values)


def verdict(value, expected, tolerance):
    """ok or WRONG. A measurement expects nothing, but is a number and not negative."""
    if not math.isfinite(value):
        return "WRONG"
    if expected is None:
        return "ok" if value >= 0 else "WRONG"
    return "ok" if abs(value - expected) <= tolerance else "WRONG"


def field(name, path):
    with open(path) as file:
        objects = [line for line in file if line.startswith("{")]
    if not objects:
        sys.exit(f"{path} holds no JSON object")
    return json.loads(objects[-1])[name]


def number(text):
    """An empty value is that of a command that printed nothing, None that of one that printed null."""
    return float("nan" if text in ("", "None") else text)


def in_json(value):
    """JSON has no NaN."""
    return value if value is None or math.isfinite(value) else str(value)


def line(arguments):
    options = argparse.ArgumentParser()
    options.add_argument("file")
    options.add_argument("--name", required=True)
    options.add_argument("--value", type=number)
    options.add_argument("--expected", type=number)
    options.add_argument("--tolerance", type=float, default=0.0)
    options.add_argument("--reason", default="", help="of the tolerance, or of a failure")
    options.add_argument("--unit", default="")
    options.add_argument("--command", default="")
    options.add_argument("--failed", action="store_true")
    options.add_argument("--skipped", action="store_true")
    options = options.parse_args(arguments)
    value = options.value
    if options.skipped or options.failed:
        found = "SKIPPED" if options.skipped else "FAILED"
    else:
        found = verdict(value, options.expected, options.tolerance)
    tolerance = None if options.expected is None else options.tolerance
    about = {
        "name": options.name, "value": in_json(value), "unit": options.unit,
        "expected": in_json(options.expected), "tolerance": tolerance, "reason": options.reason,
        "verdict": found, "command": options.command,
    }
    with open(options.file, "a") as file:
        file.write(json.dumps(about) + "\n")
    shown = "-" if value is None else f"{value:.4g}"
    if options.expected:  # neither None nor 0
        allowed = f"{options.expected:g}" + (f" ± {tolerance:g}" if tolerance else "")
    else:
        allowed = "-" if tolerance is None else f"<= {tolerance:g}"
    print(f"{options.name:<34} {shown:>10} {options.unit:<9} {allowed:>12}  {found:<8} {options.reason}", flush=True)


def main():
    what, arguments = sys.argv[1], sys.argv[2:]
    if what == "losses":
        print(difference_of_losses(*arguments))
    elif what == "tensors":
        print(difference_of_tensors(*arguments))
    elif what == "field":
        print(field(*arguments))
    elif what == "line":
        line(arguments)
    elif what == "verdict":
        with open(arguments[0]) as file:
            found = [json.loads(row)["verdict"] for row in file]
        print(", ".join(f"{found.count(kind)} {kind}" for kind in ("ok", "WRONG", "FAILED", "SKIPPED")))
        sys.exit(1 if {"WRONG", "FAILED"} & set(found) else 0)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
