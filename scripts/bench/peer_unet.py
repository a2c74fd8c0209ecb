"""The network of compare.toml in diffusers' parts, for the peers that use them."""

from diffusers import UNet2DModel


def network():
    kinds = ["", "Attn", ""]
    return UNet2DModel(
        sample_size=32,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        norm_num_groups=32,
        attention_head_dim=None,  # one head
    )
