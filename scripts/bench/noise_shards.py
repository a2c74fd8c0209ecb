"""Writes tar files of PNGs of noise, which do not compress: noise_shards.py DIR [SHARDS=48] [IMAGES=128] [SIDE=128]."""
import io
import random
import struct
import sys
import tarfile
import zlib
from pathlib import Path


def png(side, rng):
    """A colour PNG of noise: its bytes."""
    rows = b"".join(b"\0" + rng.randbytes(3 * side) for _ in range(side))

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def main():
    folder = Path(sys.argv[1])
    shards, images, side = (int(value) for value in (sys.argv[2:] + ["48", "128", "128"][len(sys.argv) - 2 :]))
    folder.mkdir(parents=True)
    rng = random.Random(1)
    for shard in range(shards):
        with tarfile.open(folder / f"train-{shard:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(images):
                data = png(side, rng)
                member = tarfile.TarInfo(f"{shard:05}{number:05}.png")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


main()
