"""Reads data sets of scripts/datasets.sh for judge.py and peer_quality.py: IDX folders such as data/mnist, and
data/emoji, which has a folder of PNG files for each category."""

import pathlib

import numpy as np
import torch


def read(folder, split="train"):
    """Images as bytes [N, C, H, W], with their labels [N]; the split "test" of a folder of PNG files is empty."""
    folder = pathlib.Path(folder)
    prefix = {"train": "train", "test": "t10k"}[split]
    idx = folder / f"{prefix}-images-idx3-ubyte"
    if idx.exists():
        pixels = np.fromfile(idx, np.uint8)
        height, width = (int.from_bytes(pixels[at : at + 4].tobytes(), "big") for at in (8, 12))
        images = pixels[16:].reshape(-1, 1, height, width)
        labels = np.fromfile(folder / f"{prefix}-labels-idx1-ubyte", np.uint8)[8:]
    else:
        files = sorted(folder.glob("*/*.png")) if split == "train" else []
        if split == "train" and not files:
            raise SystemExit(f"{folder} has neither IDX nor PNG files. Fetch them with scripts/datasets.sh")
        classes = sorted({file.parent.name for file in files})
        images = np.stack([on_white(file) for file in files]) if files else np.zeros((0, 3, 1, 1), np.uint8)
        labels = np.array([classes.index(file.parent.name) for file in files])
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def on_white(file):
    """A picture with transparency over white, bytes [3, H, W]."""
    from PIL import Image

    picture = Image.open(file).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB")).transpose(2, 0, 1)


def to_network(images):
    """Bytes to [-1, 1]."""
    return images.float() / 127.5 - 1
