"""Writes exports.json and exports.safetensors: what `ddpm-dist export` writes for each kind of network and process, and
what diffusers computes with it. Stops if diffusers loads an export in any way but completely, or computes other numbers
than with the model that was exported.

    pip install torch==2.13.0 diffusers==0.42.1 accelerate safetensors
    cargo build --release -p ddpm-dist
    python tests/golden/make_export.py target/release/ddpm-dist

Weights are not stored: tests/export.rs fills the same networks with those of numbers_by_name.py.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import diffusers.schedulers.scheduling_ddim
import diffusers.schedulers.scheduling_ddpm
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, UNet2DModel
from numbers_by_name import noise, parameter
from safetensors.torch import load_file, save_file

diffusers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
GOLDEN = Path(__file__).parent
PROGRAM = str(Path(sys.argv[1]).resolve())
BATCH = 2
STEPS = 10
UNET = "unet/config.json"
SCHEDULER = "scheduler/scheduler_config.json"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"

# Changes to the preset `smoke`: images of 1x16x16, two levels, 100 timesteps on the cosine schedule.
CASES = {
    "eps-linear-1000": ["diffusion.schedule=linear", "diffusion.timesteps=1000"],
    "eps-linear-250-as-ho": [
        *["diffusion.schedule=linear", "diffusion.timesteps=250", "diffusion.variance=fixed_large"],
        *["model.downsample_padding=0", "model.freq_shift=1", "model.flip_sin_to_cos=false", "model.norm_eps=1e-6"],
    ],
    "x_start-quadratic-classes": [
        *["diffusion.schedule=quadratic", "diffusion.predict=x_start", "diffusion.label_dropout=0.1"],
        *["model.classes=10", "model.attention=[true,true]", "model.head_dim=4"],
    ],
    "v-cosine-4000-rgb": [
        *["diffusion.timesteps=4000", "diffusion.predict=v", "data.channels=3"],
        *["model.time_scale_shift=true", "model.head_dim=8", "model.dropout=0.1"],
    ],
    "eps-learned-sigmoid-rgb": [
        *["diffusion.schedule=sigmoid", "diffusion.variance=learned_range", "diffusion.loss=hybrid", "data.channels=3"],
        *["model.time_scale_shift=true", "model.layers_per_block=2", "model.channels=[8,16,8]"],
    ],
    "v-learned-classes": [
        *["diffusion.predict=v", "diffusion.variance=learned_range", "diffusion.loss=hybrid", "model.classes=10"],
        "diffusion.label_dropout=0.2",
    ],
    "x_start-constant": [
        *["diffusion.predict=x_start", "diffusion.schedule=constant", "diffusion.beta_end=0.06"],
        *["diffusion.timesteps=50", "model.attention=[false,false]"],
    ],
    "v-zero-terminal-snr": ["diffusion.predict=v", "diffusion.zero_terminal_snr=true"],
    "x_start-sigmoid-zero-terminal-snr": [
        *["diffusion.predict=x_start", "diffusion.zero_terminal_snr=true", "diffusion.schedule=sigmoid"],
    ],
    "eps-list": [
        *["diffusion.schedule=list", "diffusion.timesteps=20", "model.channels=[8]", "model.attention=[false]"],
        f"diffusion.betas={[round(0.01 + 0.02 * t, 9) for t in range(20)]}",
    ],
}


def run(*arguments):
    subprocess.run([PROGRAM, *map(str, arguments)], check=True, capture_output=True)


def load(folder, kind=UNet2DModel):
    """A network of which no key is missing or unexpected, and every tensor is the file's."""
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), (folder, info)
    stored, loaded = load_file(Path(folder) / "diffusion_pytorch_model.safetensors"), model.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    return model


@torch.no_grad()
def draw(pipe, module, image, labels):
    """Images from a pipeline's own scheduler, whose noise is replaced by `noise`."""
    taken = iter(range(STEPS))
    module.randn_tensor = lambda shape, **_: noise(f"noise {next(taken)}", tuple(shape))
    pipe.scheduler.set_timesteps(STEPS)
    for t in pipe.scheduler.timesteps:
        image = pipe.scheduler.step(pipe.unet(image, t, labels).sample, t, image).prev_sample
    return image


def ddim(folder, image, labels):
    """As the model card says."""
    pipe = DDIMPipeline.from_pretrained(folder)
    assert isinstance(pipe.scheduler, DDIMScheduler)
    return draw(pipe, diffusers.schedulers.scheduling_ddim, image, labels)


def case(name, options, scratch):
    source, target = scratch / name / "run", scratch / name / "exported"
    sets = [part for option in options for part in ("--set", option)]
    sets += ["--set", f"run.dir={source}", "--set", "monitor.sample_every=0"]
    run("train", "--config", "smoke", "--steps", 2, *sets)
    run("export", source, "--out", target, "--no-grid")
    load(target / "unet")
    assert not torch.equal(
        DDPMPipeline.from_pretrained(target, variant="raw").unet.conv_out.weight,
        DDPMPipeline.from_pretrained(target).unet.conv_out.weight,
    )
    files = {"set": options}
    for file in [UNET, SCHEDULER, f"ddim/{UNET}", f"ddim/{SCHEDULER}"]:
        if (target / file).exists():
            files[file] = json.loads((target / file).read_text())

    # The same export with other weights.
    learned = (target / "ddim").exists()
    tensors = {key: parameter(key, tuple(tensor.shape)) for key, tensor in load_file(target / WEIGHTS).items()}
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    if learned:
        load(target / "ddim/unet")
        channels = files[UNET]["in_channels"]
        half = {key: tensor[:channels] if "conv_out." in key else tensor for key, tensor in tensors.items()}
        save_file(half, target / "ddim" / WEIGHTS, metadata={"format": "pt"})
    pipe = DDPMPipeline.from_pretrained(target)
    shape = (BATCH, files[UNET]["in_channels"], files[UNET]["sample_size"], files[UNET]["sample_size"])
    x = noise("x", shape)
    # A class and, if there is one, the null class.
    classes = files[UNET]["num_class_embeds"]
    labels = None if classes is None else torch.tensor([3, classes - 1])
    last = files[SCHEDULER]["num_train_timesteps"] - 1
    with torch.no_grad():
        y = pipe.unet(x, torch.tensor([1, last]), labels).sample
    ancestral = lambda x: draw(pipe, diffusers.schedulers.scheduling_ddpm, x, labels)
    quick = lambda x: ddim(target / "ddim" if learned else target, x, labels)
    result = {"y": y, "ancestral": ancestral(x), "ddim": quick(x)}
    moved = [(f(x + 1e-6 * noise("other", shape)) - f(x)).abs().max().item() for f in [ancestral, quick]]
    print(f"{name}: |y| {y.abs().mean():.3f}; noise of 1e-6 moves the images by {max(moved):.1g}")
    assert max(moved) < 2e-4
    return files, {f"{name}/{key}": tensor.contiguous() for key, tensor in result.items()}


@torch.no_grad()
def pipeline(name, scratch):
    """A pipeline that diffusers saved, exported again."""
    source, target = GOLDEN / f"pipeline-{name}", scratch / f"pipeline-{name}"
    run("export", source, "--out", target, "--no-grid")
    for file in ["model_index.json", UNET, SCHEDULER]:
        ours, theirs = (json.loads((folder / file).read_text()) for folder in [target, source])
        assert ours == theirs, (name, file)
    ours, theirs = load(target / "unet"), load(source / "unet")
    assert all(torch.equal(ours.state_dict()[key], tensor) for key, tensor in theirs.state_dict().items())
    expected = load_file(GOLDEN / f"unet-{name}.safetensors")
    labels = expected.get("labels")
    forward = (ours(expected["x"], expected["t"], labels).sample - expected["y"]).abs().max().item()
    where = target / "ddim" if (target / "ddim").exists() else target
    start = {"noise": expected["x"]} | ({"labels": labels} if labels is not None else {})
    save_file(start, scratch / "noise.safetensors")
    options = ["--init-noise", scratch / "noise.safetensors", "-n", len(expected["x"]), "--sampler", "ddim"]
    run("sample", "--model", source, *options, "--steps", STEPS, "--out", scratch / "samples.safetensors")
    images = ddim(where, expected["x"], labels)
    distance = (images - load_file(scratch / "samples.safetensors")["samples"]).abs().max().item()
    print(f"pipeline-{name}: forward is off by {forward:.1g}, DDIM by {distance:.1g}")
    assert forward <= 1e-5 and distance <= 1e-3


with tempfile.TemporaryDirectory() as scratch:
    for name in ["digits", "ho", "improved"]:
        pipeline(name, Path(scratch))
    files, tensors = {}, {}
    for name, options in CASES.items():
        files[name], found = case(name, options, Path(scratch))
        tensors |= found
    (GOLDEN / "exports.json").write_text(json.dumps(files, indent=1) + "\n")
    save_file(tensors, GOLDEN / "exports.safetensors")
