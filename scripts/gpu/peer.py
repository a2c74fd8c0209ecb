"""The peer of `bench step` on a GPU: diffusers' UNet2DModel with the network of a preset, AdamW, clipping and EMA.

    peer.py --config configs/cifar10.toml --batch 128 --device cuda [--bf16] [--channels-last] [--compile]

One process, images in the device's memory. Prints a JSON object with keys of `bench step --json`. The time is that
of all measured steps together, the GPU synchronized before and after them: nothing in a step of the peer waits for
the GPU.
"""

import argparse
import json
import time
import tomllib

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel

IMAGES = 4096


def network(data, model, dropout):
    """The network of the keys of [data] and [model] that the presets cifar10 and celeba64 use."""
    kinds = ["Attn" if attention else "" for attention in model["attention"]]
    return UNet2DModel(
        sample_size=data["image_size"],
        in_channels=data["channels"],
        out_channels=data["channels"],
        block_out_channels=model["channels"],
        layers_per_block=model["layers_per_block"],
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        attention_head_dim=model.get("head_dim"),  # None: one head
        dropout=model.get("dropout", 0.0) if dropout is None else dropout,
        downsample_padding=model.get("downsample_padding", 1),
        freq_shift=model.get("freq_shift", 0),
        flip_sin_to_cos=model.get("flip_sin_to_cos", True),
        norm_eps=model.get("norm_eps", 1e-5),
        norm_num_groups=32,
    )


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--config", required=True)
    options.add_argument("--device", default="cuda")
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--dropout", type=float)
    options.add_argument("--steps", type=int, default=30)
    options.add_argument("--warmup", type=int, default=10)
    options.add_argument("--channels-last", action="store_true")
    options.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    options.add_argument("--compile", action="store_true", help="torch.compile")
    options = options.parse_args()
    with open(options.config, "rb") as file:
        config = tomllib.load(file)
    data, device, cuda = config["data"], options.device, options.device == "cuda"
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True

    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    net = network(data, config["model"], options.dropout).to(device, memory_format=layout)
    average = EMAModel(net.parameters(), decay=0.9999, foreach=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config["train"]["lr"], fused=cuda)
    process = DDPMScheduler(1000)
    process.alphas_cumprod = process.alphas_cumprod.to(device)
    model = torch.compile(net) if options.compile else net
    shape = (IMAGES, data["channels"], data["image_size"], data["image_size"])
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)

    def step():
        batch = images[torch.randint(0, IMAGES, (options.batch,), device=device)].float() / 127.5 - 1
        batch = batch.to(memory_format=layout)
        noise, t = torch.randn_like(batch), torch.randint(0, 1000, (options.batch,), device=device)
        with torch.autocast(device, torch.bfloat16, enabled=options.bf16):
            found = model(process.add_noise(batch, noise, t), t).sample
        torch.nn.functional.mse_loss(found.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(net.parameters())

    def now():
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    start = now()
    for _ in range(options.warmup):
        step()
    warm = now()
    for _ in range(options.steps):
        step()
    seconds = now() - warm
    print(json.dumps({
        "peer": f"diffusers, torch {torch.__version__}", "device": device, "batch_per_rank": options.batch,
        "params": sum(p.numel() for p in net.parameters()), "steps": options.steps, "bf16": options.bf16,
        "channels_last": options.channels_last, "compile": options.compile, "warmup_s": warm - start,
        "images_per_s": options.batch * options.steps / seconds, "mean_step_s": seconds / options.steps,
    }), flush=True)


if __name__ == "__main__":
    main()
