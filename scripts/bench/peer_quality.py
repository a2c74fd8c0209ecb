"""The peers of scripts/bench/quality.sh: diffusers' parts, trained until a deadline.

    peer_quality.py train script FOLDER --data DATA --seconds S --deadline T [OPTIONS]
    peer_quality.py train tuned FOLDER --data DATA --seconds S --deadline T --like RUN --network EXPORT [OPTIONS]
    peer_quality.py draw FOLDER --data DATA --out FILE.safetensors [OPTIONS]

`script` is diffusers' examples/unconditional_image_generation/train_unconditional.py with its defaults and --use_ema:
its network of 114 million parameters for RGB images, its process, optimizer, schedule and average. The resolution is
that of the images, padded to a multiple of the 32 that six levels need. Its loader, its logs and its checkpoints are
left out.

`tuned` is the network and the process that `ddpm-dist export` wrote to EXPORT, with fresh weights, trained as
RUN/config.toml says (batch, learning rate, warm-up, average) unless options say otherwise. Its cosine follows the time
that has passed, so that it ends at the deadline whatever the machine's speed.

`train` ends at the time T, in seconds since 1970, and writes a pipeline with the averaged weights, and trained.json. On
its own it is a single rank; under torch.distributed.run, one of several. Images are read from memory, at no cost.
`draw` uses DDIMScheduler, and brings samples to the size and channels of the data set.
"""

import argparse
import json
import math
import os
import time
import tomllib

import torch
import torch.distributed as dist
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from real_images import read, to_network
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

# Steps before the speed of a trial counts.
WARMING = 3


class Script:
    """What train_unconditional.py does unless it is told otherwise."""

    batch, peak, clip = 16, 1e-4, 1.0

    def __init__(self, images, _options):
        levels = ["", "", "", "", "Attn", ""]
        self.network = UNet2DModel(
            sample_size=[math.ceil(side / 32) * 32 for side in images.shape[2:]],
            in_channels=3,
            out_channels=3,
            layers_per_block=2,
            block_out_channels=(128, 128, 256, 256, 512, 512),
            down_block_types=[f"{kind}DownBlock2D" for kind in levels],
            up_block_types=[f"{kind}UpBlock2D" for kind in reversed(levels)],
        )
        self.process = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type="epsilon")
        parameters = list(self.network.parameters())
        self.optimizer = torch.optim.AdamW(parameters, lr=self.peak, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
        steps = math.ceil(len(images) / self.batch) * 100
        self.rates = get_scheduler("cosine", self.optimizer, num_warmup_steps=500, num_training_steps=steps)
        self.ema = EMAModel(parameters, decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)

    def next_rate(self, _step, _progress):
        self.rates.step()


class Tuned:
    """The network, process and recipe of a run of ddpm-dist."""

    def __init__(self, _images, options):
        with open(f"{options.like}/config.toml", "rb") as file:
            config = tomllib.load(file)
        recipe = config["train"]
        self.network = UNet2DModel.from_config(UNet2DModel.load_config(f"{options.network}/unet"))
        self.process = DDPMScheduler.from_pretrained(f"{options.network}/scheduler")
        self.batch = options.batch or recipe["global_batch"]
        self.peak = options.lr or recipe["lr"]
        self.warmup = recipe["warmup_steps"] if options.lr_warmup is None else options.lr_warmup
        self.clip = recipe["grad_clip"] or math.inf
        parameters = list(self.network.parameters())
        decay, eps = recipe["weight_decay"], recipe["adam_eps"]
        self.optimizer = torch.optim.AdamW(
            parameters, lr=self.peak, betas=recipe["betas"], weight_decay=decay, eps=eps, fused=True
        )
        # Below this rate it follows (1 + n)/(10 + n), as ours does.
        self.ema = EMAModel(parameters, decay=options.ema or max(config["ema"]["rates"]), foreach=True)
        self.next_rate(0, 0.0)

    def next_rate(self, step, progress):
        """The rate of the step after `step` others, when this fraction of the time has passed."""
        rate = self.peak * (1 + math.cos(math.pi * min(progress, 1))) / 2
        if step < self.warmup:
            rate = self.peak * (step + 1) / self.warmup
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def batches(images, size, seed):
    """Indexes of whole batches, the same on all ranks, for ever."""
    order = torch.Generator().manual_seed(seed)
    while True:
        yield from (part for part in torch.randperm(len(images), generator=order).split(size) if len(part) == size)


def margins(images, network):
    """What pads images to a network's size: left, right, top, bottom."""
    size = network.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    down, across = height - images.shape[2], width - images.shape[3]
    return across // 2, across - across // 2, down // 2, down - down // 2


def target(process, images, noise, t):
    match process.config.prediction_type:
        case "epsilon":
            return noise
        case "sample":
            return images
        case "v_prediction":
            return process.get_velocity(images, noise, t)


def train(options):
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if world > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(options.seed)
    images, _ = read(options.data)
    recipe = {"script": Script, "tuned": Tuned}[options.recipe](images, options)
    network = recipe.network
    pad, channels = margins(images, network), network.config.in_channels
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    network.train().to(memory_format=layout)
    model = DistributedDataParallel(network) if world > 1 else network
    if options.compile:
        model = torch.compile(model)
    if recipe.batch % world:
        raise SystemExit(f"a batch of {recipe.batch} images is not divisible by {world} ranks")
    share = recipe.batch // world
    order = batches(images, recipe.batch, options.seed)
    torch.manual_seed(options.seed + 1_000_003 * rank)  # noise and timesteps

    def step():
        batch = images[next(order)[rank * share : (rank + 1) * share]]
        batch = to_network(torch.nn.functional.pad(batch, pad)).expand(-1, channels, -1, -1).to(memory_format=layout)
        noise = torch.randn_like(batch)
        t = torch.randint(0, recipe.process.config.num_train_timesteps, (share,))
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            output = model(recipe.process.add_noise(batch, noise, t), t).sample
        loss = torch.nn.functional.mse_loss(output.float(), target(recipe.process, batch, noise, t))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
        recipe.optimizer.step()
        recipe.optimizer.zero_grad()
        if rank == 0:
            recipe.ema.step(network.parameters())
        return loss.item()

    def over():
        if options.steps is not None:
            return len(losses) == options.steps
        late = torch.tensor(float(time.time() >= options.deadline))
        if world > 1:
            dist.all_reduce(late, dist.ReduceOp.MAX)
        return late.item() > 0

    losses, warm = [], None
    while not over():
        if len(losses) == WARMING:
            warm = time.perf_counter()
        losses.append(step())
        recipe.next_rate(len(losses), 1 - (options.deadline - time.time()) / options.seconds)
    ended, now = time.time(), time.perf_counter()
    if rank == 0:
        recent = losses[-max(1, len(losses) // 10) :]
        report = {
            "seconds": options.seconds - (options.deadline - ended),
            "steps": len(losses),
            "images": len(losses) * recipe.batch,
            "params": sum(p.numel() for p in network.parameters()),
            "loss": sum(recent) / max(1, len(recent)),
            "settings": {name: getattr(options, name) for name in ["channels_last", "bf16", "compile", "threads"]}
            | {"ranks": world, "batch": recipe.batch, "lr": recipe.peak, "ema": recipe.ema.decay},
        }
        if options.steps is not None:
            rate = (len(losses) - WARMING) * recipe.batch / (now - warm)
            # Over the whole time, of which compiling is a part.
            report["images_per_s"] = (report["images"] + rate * (options.deadline - ended)) / options.seconds
        else:
            recipe.ema.copy_to(network.parameters())
            network.to(memory_format=torch.contiguous_format)
            DDPMPipeline(network, recipe.process).save_pretrained(options.folder)
            with open(f"{options.folder}/trained.json", "w") as file:
                json.dump(report, file)
        print(json.dumps(report), flush=True)
    # In about one of 60 runs the interpreter's normal exit waited forever for a PyTorch thread.
    os._exit(0)


def draw(options):
    torch.manual_seed(options.seed)
    network = UNet2DModel.from_pretrained(options.folder, subfolder="unet").eval()
    scheduler = DDIMScheduler.from_pretrained(options.folder, subfolder="scheduler")
    scheduler.set_timesteps(options.steps)
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    network.to(memory_format=layout)
    real, _ = read(options.data)
    left, right, top, bottom = margins(real, network)
    drawn = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
        for first in range(0, options.count, options.batch):
            size = real.shape[2] + top + bottom, real.shape[3] + left + right
            count = min(options.batch, options.count - first)
            images = torch.randn(count, network.config.in_channels, *size).to(memory_format=layout)
            for t in scheduler.timesteps:
                images = scheduler.step(network(images, t).sample.float(), t, images).prev_sample
            images = images[:, :, top : size[0] - bottom, left : size[1] - right]
            drawn.append(images.mean(1, keepdim=True) if real.shape[1] == 1 else images)
    save_file({"samples": torch.cat(drawn).contiguous()}, f"{options.out}.part")
    os.replace(f"{options.out}.part", options.out)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = options.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("recipe", choices=["script", "tuned"])
    training.add_argument("--seconds", type=float, required=True, help="how long before the deadline the start was")
    training.add_argument("--deadline", type=float, required=True)
    training.add_argument("--like", help="a run of ddpm-dist, whose recipe is taken")
    training.add_argument("--network", help="an export of ddpm-dist, whose network and process are taken")
    training.add_argument("--batch", type=int, help="images a step, over all ranks")
    training.add_argument("--lr", type=float)
    training.add_argument("--lr-warmup", type=int)
    training.add_argument("--ema", type=float, help="decay of the average")
    training.add_argument("--compile", action="store_true", help="torch.compile; its time counts")
    training.add_argument("--steps", type=int, help="end after so many, more than 3, and save nothing: a trial")
    drawing = commands.add_parser("draw")
    drawing.add_argument("--out", required=True)
    drawing.add_argument("--count", type=int, default=2000)
    drawing.add_argument("--steps", type=int, default=50)
    drawing.add_argument("--batch", type=int, default=100)
    for command in [training, drawing]:
        command.add_argument("folder")
        command.add_argument("--data", required=True)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--channels-last", action="store_true")
        command.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    {"train": train, "draw": draw}[options.command](options)


main()
