"""Medians of two series of reports, one JSON object a line, and the ratios of the medians.

usage: ratios.py OURS THEIRS KEY...
"""

import json
import statistics
import sys


def medians(path, keys):
    with open(path) as file:
        rows = [json.loads(line) for line in file]
    return [statistics.median(row[key] for row in rows) for key in keys]


ours, theirs, *keys = sys.argv[1:]
print(f"{'median':<16} {'ddpm-dist':>12} {'peer':>12} {'ratio':>7}")
for key, a, b in zip(keys, medians(ours, keys), medians(theirs, keys)):
    print(f"{key:<16} {a:>12.3f} {b:>12.3f} {a / b:>7.2f}")
