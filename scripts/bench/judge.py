"""Judges samples by a small convolutional network that is trained on the real images and their classes.

    judge.py --judge FILE.pt --data FOLDER classes SAMPLES.safetensors...
    judge.py --judge FILE.pt --data FOLDER distance [--reference 10000] SAMPLES.safetensors...
    judge.py --judge FILE.pt --data FOLDER real [--reference 10000] [--count 2000]

FILE.pt is the network. It is trained if it does not exist, always with the same draws, so that all figures of a machine
come from the same judge; delete it after a change of this file. It is a TorchScript module from images to 128 features,
which `ddpm-dist eval fid --features` also takes. FOLDER is data/mnist, data/fashion-mnist or data/emoji. Samples are
those of `ddpm-dist sample --out FILE.safetensors`, of the same size as the images.

    classes     how many samples show the requested class; of `sample --class all`, whose files have `labels`
    distance    the Fréchet distance between the features of the samples and those of the first 10,000 training images
    real        the same of real test images: of 2,000 spread evenly over the test set, and of its first 2,000, which in
                MNIST are easier than the rest. What a perfect model would score

`distance` and `real` print one JSON object per set. Needs torch, numpy and safetensors, as scripts/bench/compare.sh
installs; for emoji Pillow.
"""

import argparse
import hashlib
import json
import math
import os

import torch
from real_images import read, to_network
from safetensors.torch import load_file
from torch import nn

# As many images as one pass over MNIST, also of smaller sets.
IMAGES = 60_000


class Judge(nn.Module):
    def __init__(self, channels: int, height: int, width: int, classes: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), 128), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(128, classes)

    def forward(self, images):
        return self.features(images)

    @torch.jit.export
    def classes(self, images):
        return self.head(self.features(images))


def load(path, data):
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        # Under its name only once it is whole.
        torch.jit.save(torch.jit.script(train(data)), f"{path}.{os.getpid()}")
        os.replace(f"{path}.{os.getpid()}", path)
    judge = torch.jit.load(path)
    weights = b"".join(tensor.numpy().tobytes() for tensor in judge.state_dict().values())
    return judge, hashlib.sha256(weights).hexdigest()[:12]


def train(data):
    torch.manual_seed(0)
    images, labels = read(data)
    judge = Judge(*images.shape[1:], int(labels.max()) + 1)
    optimizer = torch.optim.Adam(judge.parameters(), 1e-3)
    for _ in range(math.ceil(IMAGES / len(images))):
        for batch in torch.randperm(len(images)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(judge.classes(to_network(images[batch])), labels[batch]).backward()
            optimizer.step()
    return judge.eval()


def in_parts(function, images):
    return torch.cat([function(part) for part in images.split(500)])


def samples(path):
    file = load_file(path)
    # Rounded to the levels of an image file, as in `eval fid`.
    levels = ((file["samples"].clamp(-1, 1) + 1) * 127.5).round()
    return to_network(levels), file.get("labels")


def distance(features, reference):
    """The Fréchet distance of Gaussians fitted to two sets of features (Heusel et al. 2017)."""
    a, b = features.double(), reference.double()
    of_a, of_b = a.T.cov(), b.T.cov()
    values, vectors = torch.linalg.eigh(of_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    both = torch.linalg.eigvalsh(root @ of_b @ root).clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + of_a.trace() + of_b.trace() - 2 * both).item()


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--judge", required=True)
    options.add_argument("--data", required=True)
    modes = options.add_subparsers(dest="mode", required=True)
    modes.add_parser("classes").add_argument("samples", nargs="+")
    mode = modes.add_parser("distance")
    mode.add_argument("samples", nargs="+")
    mode.add_argument("--reference", type=int, default=10_000)
    mode = modes.add_parser("real")
    mode.add_argument("--reference", type=int, default=10_000)
    mode.add_argument("--count", type=int, default=2000)
    options = options.parse_args()
    torch.set_num_threads(1)
    judge, identity = load(options.judge, options.data)

    def correct(images, labels):
        return (in_parts(judge.classes, images).argmax(1) == labels).float().mean().item()

    with torch.no_grad():
        test, labels = read(options.data, "test")
        if options.mode == "classes":
            if len(test):
                print(f"real test images: {correct(to_network(test), labels):.4f}")
            for path in options.samples:
                images, requested = samples(path)
                print(f"{path}: {correct(images, requested):.4f} of {len(images)}")
            return
        reference = in_parts(judge, to_network(read(options.data)[0][: options.reference]))
        if options.mode == "distance":
            sets = [(path, samples(path)[0]) for path in options.samples]
        elif len(test) < options.count:
            raise SystemExit(f"{options.data} has {len(test)} test images, and --count asks for {options.count}")
        else:
            every = len(test) // options.count
            spread = to_network(test[::every][: options.count])
            first = to_network(test[: options.count])
            sets = [("real test images, spread", spread), ("real test images, first", first)]
        for name, images in sets:
            measured = distance(in_parts(judge, images), reference)
            print(json.dumps({"of": name, "samples": len(images), "distance": measured, "judge": identity}))


main()
