"""Weights and noise that are functions of a name, so that they need not be stored: tests/common/numbers.rs has the same."""

import math

import numpy as np
import torch


def numbers(name, shape):
    """f32 in [-1, 1), a function of the name and the position: FNV-1a, then MurmurHash3's last rounds."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = (seed ^ byte) * 0x01000193 & 0xFFFFFFFF
    mixed = np.arange(math.prod(shape), dtype=np.uint32) * np.uint32(0x9E3779B9) ^ np.uint32(seed)
    for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35)]:
        mixed = (mixed ^ mixed >> np.uint32(shift)) * np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    values = (mixed >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return torch.from_numpy(values.reshape(shape))


def parameter(name, shape):
    """Weights with which every layer matters and the network is not chaotic."""
    if len(shape) == 1:
        return numbers(name, shape) * np.float32(0.25) + np.float32(name.endswith("weight"))
    gain = 0.2 if name.startswith("conv_out") else 1.5
    return numbers(name, shape) * np.float32(gain / math.sqrt(math.prod(shape[1:])))


def noise(name, shape):
    """Of variance 1."""
    return numbers(name, shape) * np.float32(math.sqrt(3.0))
