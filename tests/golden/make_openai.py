"""Writes openai-*.pt, openai-*.safetensors and openai.json: small models of improved- and guided-diffusion with random
weights, in half precision, and what OpenAI's own code computes with them.

    git clone https://github.com/openai/improved-diffusion && git clone https://github.com/openai/guided-diffusion
    pip install torch==2.13.0 safetensors numpy
    PYTHONPATH=improved-diffusion:guided-diffusion python tests/golden/make_openai.py FOLDER

FOLDER holds the models in full precision, each an openai-NAME.pt with the inputs in openai-NAME.safetensors, and the
arguments of their constructors in openai.json.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from guided_diffusion.unet import UNetModel as Guided
from improved_diffusion.unet import UNetModel as Improved
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parent
CODE = {"improved-diffusion": Improved, "guided-diffusion": Guided}

source = Path(sys.argv[1])
shutil.copyfile(source / "openai.json", GOLDEN / "openai.json")
for name, described in json.loads((source / "openai.json").read_text()).items():
    weights = torch.load(source / f"openai-{name}.pt", weights_only=True)
    weights = {key: tensor.half() for key, tensor in weights.items()}
    torch.save(weights, GOLDEN / f"openai-{name}.pt")
    model = CODE[described["code"]](**described["arguments"]).eval()
    model.load_state_dict({key: tensor.float() for key, tensor in weights.items()})
    tensors = load_file(source / f"openai-{name}.safetensors")
    with torch.no_grad():
        y = model(tensors["x"], tensors["t"], tensors.get("labels"))
    print(name, "differs from full precision by", (y - tensors["y"]).abs().max().item())
    save_file({**tensors, "y": y}, GOLDEN / f"openai-{name}.safetensors")
