"""Writes openai-*.pt, openai-*.safetensors and openai.json: small models of improved- and guided-diffusion with random
weights, in half precision, and what OpenAI's own code computes with them.

    git clone https://github.com/openai/improved-diffusion && git clone https://github.com/openai/guided-diffusion
    pip install torch==2.13.0 safetensors numpy
    PYTHONPATH=improved-diffusion:guided-diffusion python tests/golden/make_openai.py FOLDER

FOLDER holds the models in full precision, each an openai-NAME.pt with the inputs in openai-NAME.safetensors, and the
arguments of their constructors in openai.json.
"""

import json
import sys
from pathlib import Path

import torch
from guided_diffusion.unet import UNetModel as Guided
from improved_diffusion.unet import UNetModel as Improved
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parent
CODE = {"improved-diffusion": Improved, "guided-diffusion": Guided}
# As the model for 512x512 images: its first level is narrower than the time embedding's sinusoids.
NARROW = dict(
    image_size=8, in_channels=1, model_channels=64, out_channels=1, num_res_blocks=1, attention_resolutions=[1],
    channel_mult=[0.5], num_heads=1,
)


def write(name, described, weights, tensors):
    """Writes a model with these weights rounded, and its output y for x, t and labels of `tensors`; returns y."""
    weights = {key: tensor.half() for key, tensor in weights.items()}
    torch.save(weights, GOLDEN / f"openai-{name}.pt")
    model = CODE[described["code"]](**described["arguments"]).eval()
    model.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
    with torch.no_grad():
        y = model(tensors["x"], tensors["t"], tensors.get("labels"))
    save_file({**tensors, "y": y}, GOLDEN / f"openai-{name}.safetensors")
    return y


source = Path(sys.argv[1])
all_described = json.loads((source / "openai.json").read_text())
for name, described in all_described.items():
    weights = torch.load(source / f"openai-{name}.pt", weights_only=True)
    tensors = load_file(source / f"openai-{name}.safetensors")
    y = write(name, described, weights, tensors)
    print(name, "differs from full precision by", (y - tensors["y"]).abs().max().item())

torch.manual_seed(0)
model = Guided(**NARROW)
weights = {key: 0.1 * torch.randn_like(tensor) for key, tensor in model.state_dict().items()}
described = {
    "code": "guided-diffusion",
    "parameters": sum(tensor.numel() for tensor in weights.values()),
    "arguments": NARROW,
}
write("guided-narrow", described, weights, {"x": torch.randn(3, 1, 8, 8), "t": torch.tensor([0, 250, 999])})
all_described["guided-narrow"] = described
(GOLDEN / "openai.json").write_text(json.dumps(all_described, indent=1) + "\n")
