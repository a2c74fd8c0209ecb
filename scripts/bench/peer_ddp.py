"""The peer of `bench step`: diffusers' UNet2DModel under DistributedDataParallel over gloo, with AdamW, clipping and EMA.

Alone it is one rank; under torch.distributed.run, one of many. Images come out of memory, which costs nothing. Rank 0
prints one JSON object with the keys of `bench step --json`.
"""

import argparse
import json
import os
import resource
import statistics
import time

import torch
import torch.distributed as dist
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch.nn.parallel import DistributedDataParallel

BATCH, SIZE, IMAGES = 32, 32, 4096


def since_launch():
    """Seconds since the interpreter was started, as `bench step` counts them."""
    with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
        ticks = float(stat.read().rsplit(") ", 1)[1].split()[19])
        return float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def network():
    kinds = ["", "Attn", ""]
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        norm_num_groups=32,
        attention_head_dim=None,  # one head
    )


def main():
    options = argparse.ArgumentParser(description=__doc__)
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

    net = network()
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    net = net.to(memory_format=layout)
    ema = EMAModel(net.parameters(), decay=0.9999)
    model = DistributedDataParallel(net) if world > 1 else net
    if options.compile:
        model = torch.compile(model)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)
    process = DDPMScheduler(1000)
    images = torch.randint(0, 256, (IMAGES, 1, SIZE, SIZE), dtype=torch.uint8)

    def step():
        batch = images[torch.randint(0, IMAGES, (BATCH,))].float() / 127.5 - 1
        batch = batch.to(memory_format=layout)
        noise, t = torch.randn_like(batch), torch.randint(0, 1000, (BATCH,))
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            predicted = model(process.add_noise(batch, noise, t), t).sample
        torch.nn.functional.mse_loss(predicted.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(net.parameters())

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
            "peer": f"torch {torch.__version__}", "world": world, "threads": options.threads,
            "params": sum(p.numel() for p in net.parameters()), "batch_per_rank": BATCH, "steps": options.steps,
            "channels_last": options.channels_last, "bf16": options.bf16, "compile": options.compile,
            "images_per_s": BATCH * world * len(seconds) / sum(seconds), "median_step_s": statistics.median(seconds),
            "first_step_s": largest[0].item(), "max_rss_mb": largest[1].item(),
        }))


main()
