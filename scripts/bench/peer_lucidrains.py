"""A peer of `bench step`: one step of denoising-diffusion-pytorch's Trainer, under DistributedDataParallel.

Its Unet differs from our network: it has full attention on the lowest level and linear attention above, so compare
images per second together with `params`. Left out, in its favour: its data loader, its progress bar, and its two
barriers per step.
"""

import peer
import torch
from denoising_diffusion_pytorch import GaussianDiffusion, Unet
from ema_pytorch import EMA


def network(_):
    return GaussianDiffusion(Unet(dim=32, dim_mults=(1, 2, 4), channels=1), image_size=32), (1, 32, 32)


def average(network, rank):
    """On rank 0 only, every 10 steps, as in its Trainer."""
    return EMA(network, beta=0.995, update_every=10).update if rank == 0 else lambda: None


peer.run(
    "denoising-diffusion-pytorch",
    network,
    lambda model, images: model(images),
    lambda network: torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99)),
    average,
)
