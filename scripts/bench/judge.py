"""Reports how many samples show the requested digit, by a small convolutional network trained on real digits.

usage: judge.py MNIST_FOLDER SAMPLES.safetensors...     needs torch, numpy and safetensors, as scripts/bench/compare.sh installs

Samples are those of `ddpm-dist sample --class all --out FILE.safetensors`, 28x28, with their tensor `labels`. Prints the
network's accuracy on the 10,000 test images, then one line per file.
"""
import sys

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)


def digits(folder, split):
    images = np.frombuffer(open(f"{folder}/{split}-images-idx3-ubyte", "rb").read()[16:], np.uint8)
    labels = np.frombuffer(open(f"{folder}/{split}-labels-idx1-ubyte", "rb").read()[8:], np.uint8)
    images = torch.from_numpy(images.reshape(-1, 1, 28, 28).copy()).float() / 127.5 - 1
    return images, torch.from_numpy(labels.astype(np.int64))


net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
)
x, y = digits(sys.argv[1], "train")
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
for batch in torch.randperm(len(x)).split(128):
    optimizer.zero_grad()
    nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
    optimizer.step()

with torch.no_grad():
    x, y = digits(sys.argv[1], "t10k")
    print(f"real test images: {(net(x).argmax(1) == y).float().mean():.4f}")
    for path in sys.argv[2:]:
        file = load_file(path)
        predicted = net(torch.from_numpy(file["samples"]).clamp(-1, 1)).argmax(1)
        print(f"{path}: {(predicted.numpy() == file['labels']).mean():.4f} of {len(predicted)}")
