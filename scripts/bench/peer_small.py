"""The small U-Net of `model.kind = "small"` in PyTorch, for presets whose network diffusers does not have.

Its tensors have the names of ddpm-dist's export.
"""

import torch
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn
from torch.nn import functional


class Triple(nn.Module):
    """Three convolutions with group norm and ReLU; the first one's output is added to the last one's."""

    def __init__(self, inputs, outputs):
        super().__init__()
        for number in (1, 2, 3):
            self.add_module(f"conv{number}", nn.Conv2d(inputs if number == 1 else outputs, outputs, 3, padding=1))
            self.add_module(f"norm{number}", nn.GroupNorm(2, outputs))

    def forward(self, x):
        x = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = functional.relu(self.norm2(self.conv2(x)), inplace=True)
        return functional.relu(self.norm3(self.conv3(y)), inplace=True) + x


class UpLevel(Triple):
    """A level on the way up, where the time enters."""

    def __init__(self, time_width, inputs, outputs):
        super().__init__(inputs, outputs)
        self.time_emb_proj = nn.Linear(time_width, inputs)

    def forward(self, x, time):
        return super().forward(x + self.time_emb_proj(time)[:, :, None, None])


class SmallUNet(nn.Module):
    """Built from the description of the network in the export's config.json; called as diffusers' UNet2DModel is."""

    def __init__(self, image, out_channels, channels, time_width):
        super().__init__()
        self.time_width = time_width
        ways_down = zip([image["channels"], *channels], channels)
        self.down_blocks = nn.ModuleList(Triple(inputs, outputs) for inputs, outputs in ways_down)
        self.mid_block = Triple(channels[-1], channels[-1])
        ways_up = zip([channels[-1], *reversed(channels)], reversed(channels))
        self.up_blocks = nn.ModuleList(UpLevel(time_width, below + outputs, outputs) for below, outputs in ways_up)
        self.conv_out = nn.Conv2d(channels[0], out_channels, 1)

    def forward(self, x, t):
        time = get_timestep_embedding(t, self.time_width, flip_sin_to_cos=False, downscale_freq_shift=0)
        skips = []
        for level in self.down_blocks:
            skips.append(level(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.mid_block(x)
        for level in self.up_blocks:
            x = torch.cat([functional.interpolate(x, scale_factor=2, mode="nearest"), skips.pop()], 1)
            x = level(x, time)
        return UNet2DOutput(sample=self.conv_out(x))
