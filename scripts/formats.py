"""Compares how the program decodes 504 images of all kinds with Pillow and NumPy, before any scaling.

    pip install pillow==13.0.0 numpy
    python scripts/formats.py target/release/ddpm-dist

The images are made from a fixed seed in three sizes, and `data pack --resize` to their own size stores what the program
decodes. Prints the largest difference for each kind; fails if it is above 0, or 2 for the lossy ones.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = [(24, 32), (18, 30), (64, 48)]
PER_KIND = 18
LOSSY = ("jpg", "lossy.webp")
dice = np.random.default_rng(17)


def smooth(channels, height, width, high):
    """Blobs of colour with a little grain, `[H, W, channels]`."""
    y, x = np.mgrid[0:height, 0:width][..., None]
    angle, speed, shift = dice.uniform(0, 6.3, (3, channels))
    waves = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (0.05 + speed / 30) + shift)
    return np.clip((waves + dice.normal(0, 0.1, waves.shape)) / 2 + 0.5, 0, 1) * high


def picture(mode, height, width):
    values = smooth(len(mode), height, width, 255).astype(np.uint8)
    return Image.fromarray(values.squeeze(), mode)


def words(height, width):
    return Image.fromarray(smooth(1, height, width, 65535).astype(np.uint16).squeeze())


def rgb(**options):
    return lambda path, size: picture("RGB", *size).save(path, **options)


def mode(name, **options):
    return lambda path, size: picture("RGB", *size).convert(name).save(path, **options)


def cmyk(path, size):
    picture("CMYK", *size).save(path, quality=90)


def channels(name, **options):
    return lambda path, size: picture(name, *size).save(path, **options)


def five(path, size):
    np.save(path, np.moveaxis(smooth(5, *size, 255).astype(np.uint8), -1, 0))


def planes(kind):
    return lambda path, size: np.save(path, smooth(1, *size, 1).squeeze().astype(kind) * 3 - 1)


# Groups of kinds that are read alike: the keys of [data], what Pillow reads, and the kinds by the ends of their names.
GROUPS = {
    "colour": (["data.channels=3"], "RGB", {
        "rgb.png": rgb(), "palette.png": mode("P"), "bit.png": mode("1"), "rgb.bmp": rgb(), "palette.bmp": mode("P"),
        "plain.tif": rgb(), "lzw.tif": rgb(compression="tiff_lzw"), "deflate.tif": rgb(compression="tiff_adobe_deflate"),
        "lossless.webp": rgb(lossless=True), "lossy.webp": rgb(quality=80), "palette.gif": mode("P"),
        "420.jpg": rgb(quality=85), "444.jpg": rgb(quality=95, subsampling=0), "low.jpg": rgb(quality=20),
        "progressive.jpg": rgb(progressive=True), "grey.jpg": mode("L"), "cmyk.jpg": cmyk,
    }),
    "grey": (["data.channels=1"], "L", {"grey.png": mode("L"), "coloured.png": rgb(), "grey.bmp": mode("L")}),
    "opacity": (["data.channels=4", "data.alpha=keep"], "RGBA", {
        "rgba.png": channels("RGBA"), "la.png": channels("LA"), "rgba.webp": channels("RGBA", lossless=True, exact=True),
    }),
    "words": (["data.channels=1", "data.range=[0,65535]"], None, {
        "16.png": lambda path, size: words(*size).save(path), "16.tif": lambda path, size: words(*size).save(path),
    }),
    "many": (["data.channels=5"], None, {"five.npy": five}),
    "floats": (["data.channels=1", "data.range=[-1,2]"], None, {"32.npy": planes("<f4"), "64.npy": planes("<f8")}),
}


def expected(path, group):
    """What the file holds, `[C, H, W]`: bytes, or floats from -1 to 1."""
    convert = GROUPS[group][1]
    if path.suffix == ".npy":
        values = np.load(path)
    else:
        with Image.open(path) as image:
            values = np.asarray(image.convert(convert) if convert else image)
    values = np.moveaxis(values, -1, 0) if values.ndim == 3 and path.suffix != ".npy" else values
    values = values.reshape(-1, *values.shape[-2:])
    low_high = {"words": (0, 65535), "floats": (-1, 2)}.get(group)
    if low_high is None:
        return values
    low, high = low_high
    return (values.astype(np.float64) - low) / (high - low) * 2 - 1


def stored(name, content):
    if name.endswith(".npy"):
        return np.load(io.BytesIO(content))
    values = np.asarray(Image.open(io.BytesIO(content)))
    return np.moveaxis(values.reshape(*values.shape[:2], -1), -1, 0)


def main(program):
    found, count = {}, 0
    with tempfile.TemporaryDirectory() as temporary:
        for group, (keys, _, kinds) in GROUPS.items():
            for height, width in SIZES:
                folder = Path(temporary, f"{group}-{height}")
                folder.mkdir()
                for kind, write in kinds.items():
                    for number in range(SIZES.index((height, width)), PER_KIND, len(SIZES)):
                        write(folder / f"{number:02}-{kind}", (height, width))
                out = f"{folder}-packed"
                keys_of_size = [*keys, "data.kind=folder", f"data.path={folder}", f"data.image_size=[{height},{width}]"]
                options = [word for key in keys_of_size for word in ("--set", key)]
                command = [program, "data", "pack", "--config", "smoke", "--resize", "--format", "webdataset"]
                subprocess.run([*command, "--out", out, *options], check=True, stdout=subprocess.DEVNULL)
                [shard] = Path(out).glob("*.tar")
                with tarfile.open(shard) as members:
                    images = [(member.name, members.extractfile(member).read()) for member in members]
                for path, (name, content) in zip(sorted(folder.iterdir()), images, strict=True):
                    count += 1
                    kind = f"{group} {path.name[3:]}"
                    theirs = expected(path, group)
                    off = np.abs(stored(name, content).astype(np.float64) - theirs).max()
                    found[kind] = max(found.get(kind, 0), off)
    failed = False
    for kind, off in found.items():
        # Floats are rounded to single precision.
        allowed = 2 if kind.endswith(LOSSY) else 2e-7 if kind.split()[0] in ("words", "floats") else 0
        failed |= off > allowed
        print(f"{kind:24} {off:.3g}{'' if off <= allowed else '  TOO MUCH'}")
    print(f"{count} images")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1]) else 0)
