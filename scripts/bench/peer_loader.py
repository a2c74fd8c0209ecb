"""PyTorch's DataLoader on a folder of JPEG files, with one worker process; prints a JSON object with the keys of
`bench loader`.

usage: peer_loader.py FOLDER pil|torchvision --crop N --size N --batch N --steps N

Each image is decoded, cropped to its central square, scaled, mirrored at random and stored as planar bytes: the least
that a program does. With `pil` Pillow decodes and scales, by Lanczos as ddpm-dist does; with `torchvision` its
decode_jpeg and its antialiased bicubic scaling of tensors, which has no Lanczos.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import random
import re
import time

import torch
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

WARM_UP = 10


def with_pil(path, crop, size):
    with Image.open(path) as image:
        image = functional.center_crop(image.convert("RGB"), crop)
    image = functional.resize(image, size, InterpolationMode.LANCZOS)
    return functional.pil_to_tensor(functional.hflip(image) if random.random() < 0.5 else image)


def with_torchvision(path, crop, size):
    data = torchvision.io.read_file(str(path))
    image = functional.center_crop(torchvision.io.decode_jpeg(data, torchvision.io.ImageReadMode.RGB), crop)
    image = functional.resize(image, size, InterpolationMode.BICUBIC, antialias=True)
    return functional.hflip(image) if random.random() < 0.5 else image


class Folder(torch.utils.data.Dataset):
    def __init__(self, folder, read):
        self.paths, self.read = sorted(pathlib.Path(folder).rglob("*.jpg")), read

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return self.read(self.paths[index])


def endless(count):
    while True:
        yield from torch.randperm(count).tolist()


def processes():
    return [os.getpid(), *(child.pid for child in multiprocessing.active_children())]


def cpu_seconds():
    """Processor time of all processes so far."""
    total = 0
    for pid in processes():
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def megabytes():
    """Memory of all processes, in which pages that they share count once."""
    kib = 0
    for pid in processes():
        kib += int(re.search(r"^Pss: +(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])
    return kib * 1024 / 1e6


options = argparse.ArgumentParser()
options.add_argument("folder")
options.add_argument("decoder", choices=["pil", "torchvision"])
for name in "crop", "size", "batch", "steps":
    options.add_argument(f"--{name}", type=int, required=True)
options = options.parse_args()
torch.set_num_threads(1)
decode = {"pil": with_pil, "torchvision": with_torchvision}[options.decoder]
dataset = Folder(options.folder, lambda path: decode(path, options.crop, options.size))
loader = torch.utils.data.DataLoader(dataset, options.batch, sampler=endless(len(dataset)), num_workers=1)
batches = iter(loader)
for _ in range(WARM_UP):
    next(batches)
cpu, start = cpu_seconds(), time.perf_counter()
for _ in range(options.steps):
    batch = next(batches)
wall, cpu = time.perf_counter() - start, cpu_seconds() - cpu
assert batch.shape == (options.batch, 3, options.size, options.size) and batch.dtype == torch.uint8
images = options.steps * options.batch
print(json.dumps({
    "peer": f"torch {torch.__version__}, torchvision {torchvision.__version__}, {options.decoder}", "workers": 1,
    "images": images, "images_per_s": images / wall, "images_per_cpu_s": images / cpu, "max_rss_mb": megabytes(),
}), flush=True)
# As in peer.py; the worker would otherwise decode on.
for child in multiprocessing.active_children():
    child.kill()
os._exit(0)
