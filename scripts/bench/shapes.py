"""The lines of scripts/bench/shapes.sh, from standard input to standard output.

    shapes.py size PRESET     says what `train --dry-run --json` estimates; fails if the machine has too little memory
    shapes.py row PRESET      what compare.sh printed, as one JSON object: medians of its rounds
    shapes.py table           such objects, one a line, as a Markdown table: the latest of each network and precision
"""

import json
import statistics
import sys

# Measured on the network of compare.toml: docs/performance.md.
PEER_MEMORY = 3


def size(preset):
    plan = json.load(sys.stdin)
    ours = plan["memory_mb_per_rank"]["total"]
    with open("/proc/meminfo") as meminfo:
        free = next(int(line.split()[1]) for line in meminfo if line.startswith("MemAvailable:")) * 1024 / 1e6
    print(f"{preset}: {plan['parameters'] / 1e6:.1f} M parameters, {plan['images_per_rank']} images a step; about "
          f"{ours:.0f} MB for ddpm-dist and up to {PEER_MEMORY * ours:.0f} MB for the peer, of {free:.0f} MB")
    if PEER_MEMORY * ours > free:
        sys.exit(f"bench: {preset} may not fit in memory. Set BATCH to less, or free some memory")


def row(preset):
    reports = [json.loads(line) for line in sys.stdin if line.startswith("{")]
    ours, theirs = ([r for r in reports if ("peer" in r) == is_peer] for is_peer in (False, True))
    setting = theirs[0]
    median = {
        f"{side}_{key}": statistics.median(r[key] for r in rows)
        for side, rows in (("our", ours), ("peer", theirs)) for key in ("params", "images_per_s", "max_rss_mb")
    }
    print(json.dumps({
        "shape": preset, "precision": "bf16" if setting["bf16"] else "fp32", "batch": setting["batch_per_rank"],
        "threads": setting["threads"], "channels_last": setting["channels_last"], "compile": setting["compile"],
        **median, "ratios": [a["images_per_s"] / b["images_per_s"] for a, b in zip(ours, theirs)],
    }))


def table():
    rows = {(r["shape"], r["precision"]): r for r in map(json.loads, sys.stdin)}
    print("| | parameters | batch | precision | ddpm-dist, images/s | peer, images/s | ratio | peak memory, MB |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows.values():
        params = f"{r['our_params'] / 1e6:.1f} M"
        if r["our_params"] != r["peer_params"]:
            params += f" : {r['peer_params'] / 1e6:.1f} M = {r['our_params'] / r['peer_params']:.2f}"
        setting = ["channels last"] * r["channels_last"] + ["compiled"] * r["compile"]
        peer = f"{r['peer_images_per_s']:.1f}" + (f" ({', '.join(setting)})" if setting else "")
        a, b = r["our_max_rss_mb"], r["peer_max_rss_mb"]
        print(f"| {r['shape']} | {params} | {r['batch']} | {r['precision']} | {r['our_images_per_s']:.1f} | {peer} "
              f"| **{r['our_images_per_s'] / r['peer_images_per_s']:.2f}** | {a:.0f} : {b:.0f} = {a / b:.2f} |")


{"size": size, "row": row, "table": table}[sys.argv[1]](*sys.argv[2:])
