"""Writes family.json and family.safetensors: UNet2DModel with every argument of its constructor varied, what diffusers
computes, and what `ddpm-dist export` writes after `ddpm-dist import`. Stops if an argument of the constructor is not
varied, or if diffusers loads what was exported in any way but completely or computes something else with it.

    pip install torch==2.13.0 diffusers==0.42.1 accelerate safetensors
    cargo build --release -p ddpm-dist
    python tests/golden/make_family.py target/release/ddpm-dist
"""

import inspect
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import diffusers
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from numbers_by_name import noise, parameter
from safetensors.torch import load_file, save_file

diffusers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
GOLDEN = Path(__file__).parent
PROGRAM = str(Path(sys.argv[1]).resolve())
UNET = "unet/config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
BASE = {
    "sample_size": 16,
    "block_out_channels": [16, 32],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "norm_num_groups": 8,
}
# What is supported, and what is refused.
SUPPORTED = {
    "base": {},
    "size-of-two-numbers": {"sample_size": [16, 16]},
    "oblong": {"sample_size": [16, 24]},
    "grey": {"in_channels": 1, "out_channels": 1},
    "learned-variance": {"out_channels": 6},
    "three-levels": {
        **{"block_out_channels": [8, 24, 16], "layers_per_block": 2, "dropout": 0.2},
        "down_block_types": ["AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D"],
    },
    "resnet-types": {
        "down_block_types": ["ResnetDownsampleBlock2D", "DownBlock2D"],
        "up_block_types": ["ResnetUpsampleBlock2D", "UpBlock2D"],
    },
    "resnet-resampling": {
        **{"downsample_type": "resnet", "upsample_type": "resnet", "block_out_channels": [16, 16, 32]},
        "down_block_types": ["AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D"],
    },
    "time-of-ho": {"freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0, "norm_eps": 1e-6},
    "time-dim-spelt-out": {"time_embedding_type": "positional", "time_embedding_dim": 64, "num_train_timesteps": 1000},
    "swish": {"act_fn": "swish", "mid_block_type": "UNetMidBlock2D", "mid_block_scale_factor": 1},
    "no-attention": {
        **{"add_attention": False, "down_block_types": ["DownBlock2D"] * 2},
        "up_block_types": ["UpBlock2D"] * 2,
    },
    "attention-at-the-bottom-only": {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2},
    "one-head": {"attention_head_dim": None},
    "narrow-heads": {"attention_head_dim": 4},
    "groups-of-attention": {"attn_norm_num_groups": 4, "norm_num_groups": 16},
    "scale-shift": {"resnet_time_scale_shift": "scale_shift"},
    "scale-shift-with-a-norm": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 8},
    "classes": {"num_class_embeds": 5},
}
REFUSED = {
    "center_input_sample": True,
    "time_embedding_type": "fourier",
    "time_embedding_dim": 48,
    "mid_block_scale_factor": 2,
    "mid_block_type": None,
    "act_fn": "gelu",
    "class_embed_type": "timestep",
    "norm_num_groups": None,
    "downsample_padding": 2,
    "freq_shift": 2,
}


def run(*arguments):
    subprocess.run([PROGRAM, *map(str, arguments)], check=True, capture_output=True)


def load(folder):
    """A network of which no key is missing or unexpected."""
    model, info = UNet2DModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), (folder, info)
    return model


@torch.no_grad()
def outputs(model, x, t, labels):
    return model(x, t, labels).sample


@torch.no_grad()
def ddim(pipe, x, labels):
    pipe.scheduler.set_timesteps(10)
    for t in pipe.scheduler.timesteps:
        x = pipe.scheduler.step(pipe.unet(x, t, labels).sample, t, x).prev_sample
    return x


def case(name, arguments, scratch):
    source, held, target = (scratch / name / part for part in ["source", "run", "exported"])
    model = UNet2DModel(**(BASE | arguments)).eval()
    shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    model.load_state_dict({key: parameter(key, shape) for key, shape in shapes.items()})
    learned = model.config.out_channels == 2 * model.config.in_channels
    scheduler = DDPMScheduler(variance_type="learned_range" if learned else "fixed_small")
    DDPMPipeline(unet=model, scheduler=scheduler).save_pretrained(source)
    run("import", source, "--out", held)
    run("export", held, "--out", target, "--no-grid")
    exported = load(target / "unet")
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in exported.state_dict().items())
    assert len(exported.state_dict()) == len(shapes)
    channels, size = model.config.in_channels, model.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    x, t = noise("x", (2, channels, height, width)), torch.tensor([1, 999])
    labels = None if model.config.num_class_embeds is None else torch.tensor([3, 4])
    y = outputs(model, x, t, labels)
    result = {"y": y}
    off = (outputs(exported, x, t, labels) - y).abs().max().item()
    assert off <= 1e-5, (name, off)
    if not learned:
        ours, theirs = (DDIMPipeline.from_pretrained(folder) for folder in [target, source])
        assert isinstance(ours.scheduler, DDIMScheduler)
        result["ddim"] = ddim(theirs, x, labels)
        off = (ddim(ours, x, labels) - result["ddim"]).abs().max().item()
        assert off <= 1e-3, (name, off)
    read = lambda folder, file: json.loads((folder / file).read_text())
    described = {
        "config": read(source, UNET),
        "exported": read(target, UNET),
        "scheduler": read(source, "scheduler/scheduler_config.json"),
        "shapes": shapes,
    }
    return described, {f"{name}/{key}": tensor.contiguous() for key, tensor in result.items()}


def refused(argument, value):
    """The configuration that diffusers would save."""
    config = json.loads(UNet2DModel(**BASE).to_json_string())
    return {"argument": argument, "config": config | {argument: value}}


arguments = set(inspect.signature(UNet2DModel.__init__).parameters) - {"self"}
varied = set(BASE) | set(REFUSED) | {key for case in SUPPORTED.values() for key in case}
assert arguments == varied, arguments ^ varied
files, tensors = {}, {}
with tempfile.TemporaryDirectory() as scratch:
    for name, changed in SUPPORTED.items():
        files[name], found = case(name, changed, Path(scratch))
        tensors |= found
        print(name)
refusals = [refused(*pair) for pair in REFUSED.items()]
(GOLDEN / "family.json").write_text(json.dumps({"supported": files, "refused": refusals}) + "\n")
save_file(tensors, GOLDEN / "family.safetensors")
