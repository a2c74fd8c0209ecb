"""Writes images/: small image files of every kind that can be read, and for each what Pillow and NumPy read from it.

    pip install pillow==13.0.0 numpy
    python tests/golden/make_images.py

`NAME.raw` beside `NAME` holds the decoded values, interleaved, as u8, u16 or f32 in little-endian order. `fit-*.raw` are
results of fitting `photo.png`, and `over-*.raw` of compositing `rgba.png`, by Pillow.
"""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).parent / "images"
WIDTH, HEIGHT = 12, 10
dice = np.random.default_rng(5)


def smooth(channels, high):
    """Gradients with a little grain, `[H, W, channels]`."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [(x * (c + 1) + y * (channels - c)) / ((c + 1) * WIDTH + (channels - c) * HEIGHT) for c in range(channels)]
    grain = dice.random((HEIGHT, WIDTH, channels)) * 0.1
    return np.clip((np.stack(planes, -1) * 0.95 + grain) * high, 0, high)


def write(name, values):
    (OUT / f"{name}.raw").write_bytes(np.ascontiguousarray(values).tobytes())


def save(name, image, mode=None, **options):
    """Saves by Pillow, and what Pillow reads again, in `mode`."""
    image.save(OUT / name, **options)
    with Image.open(OUT / name) as read:
        read.load()
        write(name, np.asarray(read.convert(mode) if mode else read))


def tiff(name, values, planar):
    """A TIFF of grey channels, which Pillow does not write: one strip a plane, uncompressed."""
    height, width, channels = values.shape
    stored = np.moveaxis(values, -1, 0) if planar else values
    data = np.ascontiguousarray(stored).tobytes()
    strips = channels if planar else 1
    bits = values.dtype.itemsize * 8
    first, entries, extra = 8, [], b""
    after = first + len(data)
    size = 12 * 11 + 6

    def entry(tag, kind, numbers):
        nonlocal extra
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if len(packed) > 4:
            offset = after + size + len(extra)
            extra += packed
            packed = struct.pack("<I", offset)
        entries.append(struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0"))

    length = len(data) // strips
    entry(256, 4, [width])
    entry(257, 4, [height])
    entry(258, 3, [bits] * channels)
    entry(259, 3, [1])
    entry(262, 3, [1])
    entry(273, 4, [first + i * length for i in range(strips)])
    entry(277, 3, [channels])
    entry(278, 4, [height])
    entry(279, 4, [length] * strips)
    entry(284, 3, [2 if planar else 1])
    entry(338, 3, [0] * (channels - 1))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    (OUT / name).write_bytes(b"II*\0" + struct.pack("<I", after) + data + directory + extra)
    write(name, values)


def array(name, values, stored=None):
    np.save(OUT / name, values if stored is None else stored)
    write(name, values)


OUT.mkdir(exist_ok=True)
rgb = Image.fromarray(smooth(3, 255).astype(np.uint8))
other = Image.fromarray(smooth(3, 255).astype(np.uint8)[::-1])
alpha = (smooth(1, 255)[..., 0] * 1.3 - 40).clip(0, 255).astype(np.uint8)
rgba = Image.fromarray(np.dstack([np.asarray(rgb), alpha]))
grey = rgb.convert("L")
grey16 = Image.fromarray(smooth(1, 65535)[..., 0].astype(np.uint16))
palette = rgb.quantize(16)

save("rgb.png", rgb)
save("grey.png", grey)
save("grey16.png", grey16)
save("palette.png", palette, "RGB")
save("rgba.png", rgba)
save("la.png", Image.merge("LA", [grey, rgba.getchannel("A")]))
save("rgb.webp", rgb, lossless=True)
save("rgba.webp", rgba, lossless=True, exact=True)
save("lossy.webp", rgb, quality=95)
save("animated.webp", rgb, "RGB", save_all=True, append_images=[other], lossless=True)
save("palette.gif", palette, "RGB")
save("animated.gif", palette, "RGB", save_all=True, append_images=[other.quantize(16)])
holed = palette.copy()
holed.paste(3, (2, 3, 8, 7))
save("transparent.gif", holed, "RGBA", transparency=3)
save("rgb.bmp", rgb)
save("grey.bmp", grey)
save("palette.bmp", palette, "RGB")
save("rgb.tif", rgb)
save("rgb-lzw.tif", rgb, compression="tiff_lzw")
save("rgb-deflate.tif", rgb, compression="tiff_adobe_deflate", tiffinfo={317: 2})
save("rgba.tif", rgba)
save("grey16.tif", grey16, compression="tiff_lzw")
save("float.tif", Image.fromarray((smooth(1, 2)[..., 0] - 0.5).astype(np.float32)))
save("turned.tif", rgb, tiffinfo={274: 6})
tiff("five.tif", smooth(5, 255).astype(np.uint8), planar=False)
tiff("five16-planar.tif", smooth(5, 65535).astype("<u2"), planar=True)
five = smooth(5, 255).astype(np.uint8)
array("five.npy", five, np.moveaxis(five, -1, 0))
array("five-last.npy", five)
array("five-fortran.npy", five, np.asfortranarray(np.moveaxis(five, -1, 0)))
words = smooth(5, 65535).astype("<u2")
array("five16.npy", words, np.moveaxis(words, -1, 0).astype(">u2"))
numbers = (smooth(1, 2)[..., 0] - 0.5).astype(np.float32)
array("grey-double.npy", numbers, numbers.astype(np.float64))
shorts = (smooth(1, 900)[..., 0] - 100).astype(np.int16)
array("grey-short.npy", shorts.astype(np.float32), shorts)

# Fitting, by Pillow: 40x24 to a width of 16 and a height of 12.
y, x = np.mgrid[0:24, 0:40]
photo = np.stack([x * 6, y * 10, (x + y) * 4], -1) + 30 * ((x // 7 + y // 5) % 2)[..., None]
photo = Image.fromarray(photo.clip(0, 255).astype(np.uint8))
photo.save(OUT / "photo.png")
size = (16, 12)
write("fit-crop", np.asarray(photo.crop((4, 0, 36, 24)).resize(size, Image.LANCZOS)))
write("fit-stretch", np.asarray(photo.resize(size, Image.LANCZOS)))
padded = Image.new("RGB", size, "white")
padded.paste(photo.resize((16, 10), Image.LANCZOS), (0, 1))
write("fit-pad", np.asarray(padded))
write("fit-enlarged", np.asarray(photo.resize((80, 48), Image.BICUBIC)))
numbers = np.asarray(photo.getchannel("R"), dtype=np.float32)
write("fit-float", np.asarray(Image.fromarray(numbers).resize(size, Image.LANCZOS)))
for colour in ["black", "white", "#ff8000"]:
    behind = Image.new("RGBA", rgba.size, colour)
    write(f"over-{colour.strip('#')}", np.asarray(Image.alpha_composite(behind, rgba).convert("RGB")))
write("fit-rgba", np.asarray(rgba.resize((6, 5), Image.LANCZOS)))
