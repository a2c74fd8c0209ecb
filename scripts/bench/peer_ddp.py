"""A peer of `bench step`: diffusers' UNet2DModel under DistributedDataParallel over gloo, with AdamW, clipping and EMA."""

import peer
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel


def network():
    kinds = ["", "Attn", ""]
    return UNet2DModel(
        sample_size=peer.SIZE,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        norm_num_groups=32,
        attention_head_dim=None,  # one head
    )


process = DDPMScheduler(1000)


def loss(model, images):
    images = images * 2 - 1
    noise, t = torch.randn_like(images), torch.randint(0, 1000, (len(images),))
    return torch.nn.functional.mse_loss(model(process.add_noise(images, noise, t), t).sample.float(), noise)


def average(network, rank):
    ema = EMAModel(network.parameters(), decay=0.9999)
    return lambda: ema.step(network.parameters())


peer.run("diffusers", network, loss, lambda network: torch.optim.AdamW(network.parameters(), lr=1e-4), average)
