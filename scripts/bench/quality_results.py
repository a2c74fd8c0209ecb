"""The figures of scripts/bench/quality.sh and quality_search.sh.

    quality_results.py steps SECONDS BENCH.json                     the steps that fit, by what `bench step` measured
    quality_results.py trained RUN SECONDS BENCH.json [OPTION...]   what training by ddpm-dist came to
    quality_results.py result WHO SEED FOLDER                       one run in a line, from the JSON files in its folder
    quality_results.py table BASE RESULT.json...                    medians by WHO, best first, and ratios to BASE
"""

import json
import statistics
import sys
from pathlib import Path


def read(path):
    """The object in a file, or nothing: not every run is evaluated in every way."""
    return json.loads(path.read_text()) if path.exists() else {}


def steps(seconds, bench):
    bench = read(Path(bench))
    batch = bench["world"] * bench["batch_per_rank"]
    # A reserve of 3%, because the schedule of the learning rate should end with the time.
    print(max(1, int(0.97 * (float(seconds) - bench["first_step_s"]) * bench["images_per_s"] / batch)))


def trained(run, seconds, bench, *options):
    lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    recent = lines[-max(1, len(lines) // 10) :]
    print(json.dumps({
        "seconds": float(seconds),
        "steps": lines[-1]["step"],
        "images": lines[-1]["images"],
        "params": read(Path(bench))["params"],
        "loss": statistics.mean(line["loss"] for line in recent),
        "settings": {"options": options},
    }))  # fmt: skip


def result(who, seed, folder):
    folder = Path(folder)
    training, distance = read(folder / "trained.json"), read(folder / "distance.json")
    print(json.dumps({
        "who": who,
        "seed": int(seed),
        "seconds": training["seconds"],
        "steps": training["steps"],
        "images_per_s": training["images"] / training["seconds"],
        "params": training["params"],
        "loss": training["loss"],
        "bits_per_dim": read(folder / "nll.json").get("bits_per_dim"),
        "samples": distance["samples"],
        "distance": distance["distance"],
        # The same figure by other code: the features are the judge's in both.
        "eval_fid": read(folder / "fid.json").get("frechet_distance"),
        "judge": distance["judge"],
        "settings": training["settings"],
    }))  # fmt: skip


def table(base, *paths):
    runs = [read(Path(path)) for path in paths]
    judges = {run["judge"] for run in runs}
    if len(judges) > 1:
        raise SystemExit("these distances are of different judges: move the results of the older one away")
    groups = {who: [run for run in runs if run["who"] == who] for who in dict.fromkeys(run["who"] for run in runs)}

    def median(who, key):
        values = [run[key] for run in groups[who] if run[key] is not None]
        return statistics.median(values) if values else None

    def cell(value, digits):
        return "" if value is None else f"{value:,.{digits}f}"

    print(f"| | seeds | seconds | steps | images/s | parameters | bits/dim | distance | {base} : this |")
    print("|---|---|---|---|---|---|---|---|---|")
    for who in sorted(groups, key=lambda who: median(who, "distance")):
        distance = median(who, "distance")
        cells = [cell(median(who, key), digits) for key, digits in
                 [("seconds", 0), ("steps", 0), ("images_per_s", 1), ("params", 0), ("bits_per_dim", 3)]]  # fmt: skip
        ratio = cell(median(base, "distance") / distance, 2) if base in groups else ""
        print(f"| {who} | {len(groups[who])} | {' | '.join(cells)} | {cell(distance, 1)} | {ratio} |")


command, *arguments = sys.argv[1:]
{"steps": steps, "trained": trained, "result": result, "table": table}[command](*arguments)
