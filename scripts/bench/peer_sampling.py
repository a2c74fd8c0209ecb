"""The peer of scripts/bench/sampling.sh: the loop of diffusers' DDIMPipeline, on a pipeline that ddpm-dist exported.

The loop is written out because the pipeline cannot return images in bf16: here the scheduler works in f32, as ours does.

    peer_sampling.py FOLDER [OPTIONS]           draws images from it, and prints a JSON object

What is compiled, and what libtorch sets up in its first pass, is not timed.
"""

import argparse
import json
import resource
import time

import torch
from diffusers import DDIMPipeline


def draw(folder, options):
    pipeline = DDIMPipeline.from_pretrained(folder)
    unet, scheduler = pipeline.unet.eval(), pipeline.scheduler
    if options.bf16:
        unet.to(torch.bfloat16)
    if options.channels_last:
        unet.to(memory_format=torch.channels_last)
    if options.compile:
        unet.compile()

    def images(count, steps):
        scheduler.set_timesteps(steps)
        images = torch.randn(count, 1, 32, 32)
        if options.channels_last:
            images = images.to(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=options.autocast):
            for t in scheduler.timesteps:
                output = unet(images.to(unet.dtype), t).sample.float()
                images = scheduler.step(output, t, images).prev_sample
        return ((images / 2 + 0.5).clamp(0, 1) * 255).round().byte().numpy()

    images(options.batch, 2)
    start = time.perf_counter()
    for first in range(0, options.images, options.batch):
        images(min(options.batch, options.images - first), options.steps)
    seconds = time.perf_counter() - start
    print(json.dumps({
        "peer": f"diffusers, torch {torch.__version__}", "threads": options.threads, "steps": options.steps,
        "params": sum(p.numel() for p in unet.parameters()), "batch": options.batch, "bf16": options.bf16,
        "autocast": options.autocast, "channels_last": options.channels_last, "compile": options.compile,
        "images_per_s": options.images / seconds,
        "max_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }), flush=True)


options = argparse.ArgumentParser()
options.add_argument("folder")
options.add_argument("--images", type=int, default=64)
options.add_argument("--steps", type=int, default=50)
options.add_argument("--batch", type=int, default=64)
options.add_argument("--threads", type=int, default=1)
options.add_argument("--bf16", action="store_true", help="weights in bfloat16")
options.add_argument("--autocast", action="store_true", help="autocast to bfloat16")
options.add_argument("--channels-last", action="store_true")
options.add_argument("--compile", action="store_true", help="torch.compile")
options = options.parse_args()
torch.set_num_threads(options.threads)
draw(options.folder, options)
