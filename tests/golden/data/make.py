#!/usr/bin/env python3
"""Writes the shards in this folder: twelve images of three classes as the usual tools write them, and their pixels.

usage: python3 tests/golden/data/make.py

The files were made with Python 3.11 and: pip install pyarrow==26.0.1 datasets==5.2.0 webdataset==1.0.2 Pillow==13.0.0
numpy==2.4.6 zstandard==0.25.0. Every data set holds the same images in the same order: sorted by class, then by name.
"""
import gzip, io, json, zipfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset as wds
import zstandard
from PIL import Image

HERE = Path(__file__).parent
CLASSES = ["ant", "bee", "cat"]
SIZE = 16


def picture(i):
    """A smooth image with a different colour and grain for each i."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / (SIZE - 1)
    rng = np.random.default_rng(i)
    base = np.stack([x, y, 1 - (x + y) / 2], -1) * rng.uniform(0.4, 1, 3) + rng.normal(0, 0.03, (SIZE, SIZE, 3))
    return Image.fromarray((np.clip(base, 0, 1) * 255).round().astype(np.uint8))


def encoded(image, ending):
    out = io.BytesIO()
    image.save(out, "PNG" if ending == "png" else "JPEG", **({} if ending == "png" else {"quality": 95}))
    return out.getvalue()


# Name, class and file of each image; every fourth is a JPEG.
ROWS = []
for label, name in enumerate(CLASSES):
    for i in range(4):
        number = label + 3 * i
        ending = "jpg" if i == 3 else "png"
        ROWS.append((f"{name}/{number:02}", ending, label, encoded(picture(number), ending)))

pixels = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for *_, data in ROWS])
(HERE / "pixels.rgb").write_bytes(pixels.tobytes())
(HERE / "labels.json").write_text(json.dumps([label for _, _, label, _ in ROWS]) + "\n")


def hugging_face(rows):
    """As `datasets` embeds images: a struct of bytes and path, and a ClassLabel."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    images = [{"bytes": data, "path": f"{Path(key).name}.{ending}"} for key, ending, _, data in rows]
    return datasets.Dataset.from_dict({"image": images, "label": [row[2] for row in rows]}, features=features)


folder = HERE / "parquet/data"
folder.mkdir(parents=True, exist_ok=True)
hugging_face(ROWS[:7]).to_parquet(folder / "train-00000-of-00002.parquet", batch_size=3)
hugging_face(ROWS[7:]).to_parquet(folder / "train-00001-of-00002.parquet")
hugging_face(ROWS[4:8]).to_parquet(folder / "test-00000-of-00001.parquet")

# Plain binary, names as labels, several pages per row group, zstd, checksums and page indexes.
table = pa.table({
    "id": pa.array(range(12)), "picture": pa.array([row[3] for row in ROWS], pa.binary()),
    "kind": pa.array([CLASSES[row[2]] for row in ROWS]),
})
pq.write_table(table, HERE / "plain.parquet", row_group_size=8, compression="zstd", use_dictionary=["kind"],
               data_page_size=1500, write_batch_size=1, write_page_index=True, write_page_checksum=True)

with wds.TarWriter(str(HERE / "samples-000.tar"), mtime=0, user="u", group="g") as out:
    for key, ending, label, data in ROWS[:8]:
        out.write({"__key__": key, ending: data, "cls": label})
with wds.TarWriter(str(HERE / "samples-001.tar"), mtime=0, user="u", group="g") as out:
    for key, ending, label, data in ROWS[8:]:
        out.write({"__key__": key, ending: data, "cls": label})
plain = io.BytesIO()
with wds.TarWriter(plain, mtime=0, user="u", group="g") as out:
    for key, ending, label, data in ROWS:
        out.write({"__key__": key, ending: data, "json": {"label": label, "kind": CLASSES[label]}})
(HERE / "named.tar.gz").write_bytes(gzip.compress(plain.getvalue(), mtime=0))
(HERE / "named.tar.zst").write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(plain.getvalue()))

# As StyleGAN's and EDM's dataset_tool.py: uncompressed members in numbered folders, labels in dataset.json.
names = [f"00000/img{i:08}.{row[1]}" for i, row in enumerate(ROWS)]
with zipfile.ZipFile(HERE / "edm.zip", "w", zipfile.ZIP_STORED) as out:
    for name, row in zip(names, ROWS):
        out.writestr(zipfile.ZipInfo(name), row[3])
    labels = [[name, row[2]] for name, row in zip(names, ROWS)]
    out.writestr(zipfile.ZipInfo("dataset.json"), json.dumps({"labels": labels}))
# By hand: folders as classes, compressed, in no order, with other files.
with zipfile.ZipFile(HERE / "folders.zip", "w", zipfile.ZIP_DEFLATED) as out:
    for key, ending, label, data in reversed(ROWS):
        info = zipfile.ZipInfo(f"{key}.{ending}")
        info.compress_type = zipfile.ZIP_DEFLATED
        out.writestr(info, data)
    out.writestr(zipfile.ZipInfo("README.txt"), "twelve images")
    out.writestr(zipfile.ZipInfo("__MACOSX/ant/._00.png"), "not an image")
