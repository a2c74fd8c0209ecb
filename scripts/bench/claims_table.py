"""Prints the table of a claim as Markdown, and draws its figure: see scripts/bench/claims.sh.

usage: claims_table.py CLAIM RUNS FIGURE.png <LINES

LINES are those that claims.sh records: a series, x (null for what is measured once in a series), a seed, and the result
of a command, of which METRICS are shown: the mean over the seeds ± standard deviation.
"""

import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys

# What is shown of a result: its name and format.
METRICS = {
    "accuracy": ("as requested", "{:.1%}"),
    "bits_per_dim": ("bits/dim", "{:.3f}"),
    "frechet_distance": ("Fréchet distance", "{:.1f}"),
    "grad_variance": ("tr(Σ)", "{:.1e}"),
}


@dataclasses.dataclass
class Claim:
    x: str = ""                         # what x is
    figure: str = "frechet_distance"    # the metric that is drawn over x
    runs: tuple = ()                    # instead, runs of which that metric is drawn as they logged it
    difference: bool = False            # compare the second of two series with the first, seed by seed
    tall: bool = False                  # each x has a row, not a column


CLAIMS = {
    "few-steps": Claim(x="network evaluations"),
    "objective": Claim(figure="vlb_smoothed", runs=("simple", "hybrid"), difference=True),
    "importance": Claim(x="step", figure="grad_variance", runs=("vlb-uniform", "vlb-importance")),
    "schedules": Claim(x="steps", difference=True),
    "ema": Claim(x="1 / (1 - rate)", tall=True),
    "guidance": Claim(x="guidance scale", tall=True),
    "corrector": Claim(x="signal-to-noise ratio of the corrector", tall=True),
}


def read(lines):
    """The values of each series by column, which is a metric and x, and by seed; and the seeds."""
    table, seeds = {}, set()
    for line in map(json.loads, filter(str.strip, lines)):
        seeds.add(line["seed"])
        columns = table.setdefault(line["series"], {})
        for metric in METRICS.keys() & line["result"].keys():
            columns.setdefault((metric, line["x"]), {})[line["seed"]] = line["result"][metric]
    return table, sorted(seeds)


def subtracted(first, second):
    """The differences of two series in each column, by seed."""
    return {
        column: {seed: value - first[column][seed] for seed, value in by_seed.items()}
        for column, by_seed in second.items()
    }


def cell(metric, by_seed):
    values = list(by_seed.values())
    shown = [statistics.mean(values)] + ([statistics.stdev(values)] if len(values) > 1 else [])
    return " ± ".join(map(METRICS[metric][1].format, shown))


def number(x):
    return "" if x is None else f"{x:g}"


def markdown(claim, table):
    """A row for each series, or each x of it. Columns are in order of x, and those without x last."""
    rows = {}
    for series, values in table.items():
        for (metric, x), by_seed in values.items():
            row, column = ((series, number(x)), None) if claim.tall else ((series,), x)
            rows.setdefault(row, {})[metric, column] = by_seed
    columns = {column for values in rows.values() for column in values}
    columns = sorted(columns, key=lambda column: (column[1] is None, column[1] or 0, column[0]))
    over_x = sorted({METRICS[metric][0] for metric, x in columns if x is not None})
    heads = ["", claim.x] if claim.tall else [f"{', '.join(over_x)} by {claim.x}" if over_x else ""]
    heads += [METRICS[metric][0] if x is None else number(x) for metric, x in columns]
    cells = [heads, ["---"] * len(heads)]
    for labels, values in rows.items():
        cells.append([*labels, *(cell(column[0], values[column]) if column in values else "" for column in columns)])
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def curves(claim, table, folder):
    """A file for each series, with the means over the seeds; `plot points` names curves after their files."""
    folder.mkdir(exist_ok=True)
    for series, values in table.items():
        points = {x: by_seed for (metric, x), by_seed in values.items() if metric == claim.figure and x is not None}
        if not points:
            continue
        path = folder / f"{series}.txt"
        path.write_text("".join(f"{x} {statistics.mean(by_seed.values())}\n" for x, by_seed in points.items()))
        yield path


def main():
    name, folder, figure = sys.argv[1:]
    claim, folder = CLAIMS[name], pathlib.Path(folder)
    table, seeds = read(sys.stdin)
    plot = ["launch/local.sh", "1", "plot"]
    if claim.runs:
        plot += ["loss", "--metric", claim.figure]
        plot += [f"--run={folder / run}-{seed}" for seed in seeds for run in claim.runs]
    else:
        plot += ["points", "--x-label", claim.x, "--y-label", METRICS[claim.figure][0]]
        plot += [f"--file={path}" for path in curves(claim, table, folder / name)]
    if claim.difference:
        first, second = table.values()
        table["difference"] = subtracted(first, second)
    print(markdown(claim, table), flush=True)
    sys.exit(subprocess.run([*plot, "--out", figure]).returncode)


main()
