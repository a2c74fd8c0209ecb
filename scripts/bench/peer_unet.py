"""The network that a folder of `ddpm-dist export` describes, in PyTorch with fresh weights."""

import json
from pathlib import Path

from diffusers import UNet2DModel
from peer_small import SmallUNet


def network(folder):
    """The network, and channels, height and width of its images."""
    if (Path(folder) / "unet").exists():
        config = UNet2DModel.load_config(folder, subfolder="unet")
        size = config["sample_size"]
        height, width = size if isinstance(size, list) else (size, size)
        return UNet2DModel.from_config(config), (config["in_channels"], height, width)
    description = json.loads((Path(folder) / "config.json").read_text())["network"]
    kind, image = description.pop("kind"), description["image"]
    if kind != "small":
        raise SystemExit(f"peer_unet: {folder} describes a network of kind {kind}; the peer has unet and small only")
    return SmallUNet(**description), (image["channels"], image["height"], image["width"])
