"""Draws JPEG files of 178x218 that cost a decoder what CelebA's do: quality 90, 4:2:0, about 7.8 kB.

usage: draw_pictures.py FOLDER COUNT

They are sums of smooth noise from coarse to fine, the finer the weaker, as in photographs.
"""

import pathlib
import sys

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 178, 218
# The size of details in pixels, and their contrast in levels.
DETAILS = [(60, 45), (20, 22), (6, 10), (2, 4)]

rng = np.random.default_rng(0)


def noise(scale):
    """Noise of three channels without details smaller than this."""
    coarse = rng.normal(size=(3, HEIGHT // scale, WIDTH // scale)).astype(np.float32)
    return np.stack([Image.fromarray(plane).resize((WIDTH, HEIGHT), Image.BICUBIC) for plane in coarse], axis=-1)


folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir(parents=True)
for number in range(count):
    colours = 128 + sum(contrast * noise(scale) for scale, contrast in DETAILS)
    # Photographs are less colourful than independent channels.
    picture = (colours + colours.mean(axis=-1, keepdims=True)) / 2
    picture = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    picture.save(folder / f"{number:06}.jpg", quality=90, subsampling="4:2:0")
