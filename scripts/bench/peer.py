"""Code shared by the peers of `bench step`: options, random images, timing, and the JSON object that rank 0 prints.

On its own a peer is a single rank; under torch.distributed.run, one of several. Images are read from memory, at no
cost. The object has the keys of `bench step --json`.
"""

import argparse
import json
import os
import resource
import statistics
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

IMAGES = 512


def since_launch():
    """Seconds since the interpreter was started, counted as in `bench step`."""
    with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
        ticks = float(stat.read().rsplit(") ", 1)[1].split()[19])
        return float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def run(name, network, loss, optimizer, average):
    """Times training steps and prints the results.

    `network(model)` is the module to train and its images' channels, height and width, where `model` is the folder of
    --model, `loss(model, images)` its loss on a batch of images in 0..1, `optimizer(network)` its optimizer, and
    `average(network, rank)` a function that updates its EMA.
    """
    options = argparse.ArgumentParser()
    options.add_argument("--model", help="a folder of `ddpm-dist export`, whose network is trained from fresh weights")
    options.add_argument("--batch", type=int, default=32, help="images per rank")
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--warmup", type=int, default=5)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--channels-last", action="store_true")
    options.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    options.add_argument("--compile", action="store_true", help="torch.compile")
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if world > 1:
        dist.init_process_group("gloo")

    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    network, image = network(options.model)
    network.to(memory_format=layout)
    average = average(network, rank)
    model = DistributedDataParallel(network) if world > 1 else network
    if options.compile:
        model = torch.compile(model)
    optimizer = optimizer(network)
    images = torch.randint(0, 256, (IMAGES, *image), dtype=torch.uint8)

    def step():
        batch = images[torch.randint(0, IMAGES, (options.batch,))].float() / 255
        batch = batch.to(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            value = loss(model, batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average()

    first, seconds = None, []
    for number in range(options.warmup + options.steps):
        start = time.perf_counter()
        step()
        first = first or since_launch()
        if number >= options.warmup:
            seconds.append(time.perf_counter() - start)

    largest = torch.tensor([first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6])
    if world > 1:
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        dist.destroy_process_group()
    if rank == 0:
        print(json.dumps({
            "peer": f"{name}, torch {torch.__version__}", "world": world, "threads": options.threads,
            "params": sum(p.numel() for p in network.parameters()), "batch_per_rank": options.batch,
            "steps": options.steps, "channels_last": options.channels_last, "bf16": options.bf16,
            "compile": options.compile, "images_per_s": options.batch * world * len(seconds) / sum(seconds),
            "median_step_s": statistics.median(seconds), "first_step_s": largest[0].item(),
            "max_rss_mb": largest[1].item(),
        }), flush=True)
    # In about one of 60 runs the interpreter's normal exit waited forever for a PyTorch thread.
    os._exit(0)
