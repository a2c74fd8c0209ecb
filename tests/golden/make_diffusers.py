"""Writes old-*, old-*.safetensors and the files of crates/torch-pickle/tests/data: models as older versions of diffusers
left them, of few channels and random weights, and what diffusers computes with them.

    pip install torch==2.13.0 diffusers==0.42.1 safetensors
    python tests/golden/make_diffusers.py

What each version wrote is taken from its constructors: UNet2DModel had neither resnet_time_scale_shift nor add_attention
before 0.11, the schedulers no prediction_type before 0.9, attention blocks were query, key, value and proj_attn until 0.16,
and below 0.17 the attention at the bottom had its norm with scale_shift too.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DModel
from safetensors.torch import save_file

GOLDEN = Path(__file__).parent
PICKLES = GOLDEN.parent.parent / "crates/torch-pickle/tests/data"
TODAY = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
SCHEDULER = {"beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001, "num_train_timesteps": 1000}


def network(seed, **config):
    torch.manual_seed(seed)
    model = UNet2DModel(sample_size=16, in_channels=3, out_channels=3, layers_per_block=1, norm_num_groups=4, **config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # So that attention is far from a mean, and norms from their start.
            if "to_q" in name or "to_k" in name:
                parameter.mul_(4)
            elif "norm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
        # Untrained networks are chaotic: ten steps would turn the last bit into the second digit.
        model.conv_out.weight.mul_(0.05)
    return model.eval()


def old_names(tensors):
    def old(name):
        for new, before in TODAY.items():
            if ".attentions." in name:
                name = name.replace(f".{new}.", f".{before}.")
        return name

    return {old(name): tensor for name, tensor in tensors.items()}


def folder(name, files):
    """JSON files of a folder that is made anew."""
    path = GOLDEN / name
    shutil.rmtree(path, ignore_errors=True)
    for file, content in files.items():
        (path / file).parent.mkdir(parents=True, exist_ok=True)
        (path / file).write_text(json.dumps(content, indent=2) + "\n")
    return path


def without(config, *keys):
    return {key: value for key, value in dict(config).items() if key not in keys and not key.startswith("_")}


def expect(name, model, labels=None):
    """One forward pass, and DDIM in ten steps."""
    generator = torch.Generator().manual_seed(7)
    x, t = torch.randn(3, 3, 16, 16, generator=generator), torch.tensor([0, 421, 999])

    def draw(image):
        scheduler = DDIMScheduler(**SCHEDULER)
        scheduler.set_timesteps(10)
        for step in scheduler.timesteps:
            image = scheduler.step(model(image, step, labels).sample, step, image).prev_sample
        return image

    with torch.no_grad():
        y, image = model(x, t, labels).sample, draw(x)
        moved = (draw(x + 1e-6 * torch.randn(x.shape, generator=generator)) - image).abs().max().item()
    print(f"{name}: noise of 1e-6 moves the images by {moved:.2g}")
    assert moved < 2e-4
    tensors = {"x": x, "t": t, "y": y, "ddim10_leading_from_x": image}
    if labels is not None:
        tensors["labels"] = labels
    save_file(tensors, GOLDEN / f"{name}.safetensors")
    return y


def differs(name, y, model, labels=None):
    """The fixture must tell a wrong reading from a right one."""
    generator = torch.Generator().manual_seed(7)
    x, t = torch.randn(3, 3, 16, 16, generator=generator), torch.tensor([0, 421, 999])
    with torch.no_grad():
        distance = (model(x, t, labels).sample - y).abs().max().item()
    print(f"{name}: a wrong reading is off by {distance:.2g}")
    assert distance > 1e-2


def cifar10():
    """As google/ddpm-cifar10-32 is laid out: all files at the root, a .bin, the keys and names of 2022."""
    model = network(
        1,
        block_out_channels=(8, 16, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    new = ["resnet_time_scale_shift", "add_attention", "class_embed_type", "num_class_embeds", "downsample_type"]
    new += ["upsample_type", "dropout", "attn_norm_num_groups", "mid_block_type", "time_embedding_dim", "num_train_timesteps"]
    config = {"_class_name": "UNet2DModel", "_diffusers_version": "0.4.0", **without(model.config, *new)}
    scheduler = {"_class_name": "DDPMScheduler", "_diffusers_version": "0.4.0", **SCHEDULER}
    scheduler |= {"clip_sample": True, "trained_betas": None, "variance_type": "fixed_large"}
    index = {"_class_name": "DDPMPipeline", "_diffusers_version": "0.4.0"}
    index |= {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    path = folder(
        "old-cifar10", {"config.json": config, "scheduler_config.json": scheduler, "model_index.json": index}
    )
    torch.save(old_names(model.state_dict()), path / "diffusion_pytorch_model.bin")
    # diffusers reads it by itself.
    y = expect("old-cifar10", UNet2DModel.from_pretrained(path, use_safetensors=False).eval())
    swapped = UNet2DModel.from_pretrained(path, use_safetensors=False).eval()
    for block in [swapped.mid_block.attentions[0]]:
        block.to_q, block.to_k = block.to_k, block.to_q
    differs("old-cifar10", y, swapped)


def celebahq():
    """A folder each for U-Net and scheduler, half precision under the name of a variant, attention out of 1x1
    convolutions, PNDM, and a configuration with the fewest keys."""
    model = network(
        2,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    kept = ["sample_size", "block_out_channels", "down_block_types", "up_block_types", "layers_per_block"]
    config = {key: model.config[key] for key in [*kept, "norm_num_groups"]}
    path = folder(
        "old-celebahq",
        {
            "unet/config.json": config,
            "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler", **SCHEDULER},
        },
    )
    half = {name: tensor.half() for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: tensor.float() for name, tensor in half.items()})
    convolutions = {
        name: tensor[:, :, None, None].contiguous() if ".attentions." in name and tensor.dim() == 2 else tensor
        for name, tensor in old_names(half).items()
    }
    save_file(convolutions, path / "unet/diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
    expect("old-celebahq", model)


def scale_shift():
    """Version 0.16: the bottom's norm is there and no key says so. bf16, in shards."""
    arguments = dict(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=5,
        attention_head_dim=4,
    )
    model = network(3, attn_norm_num_groups=4, **arguments)
    model.load_state_dict({name: tensor.bfloat16().float() for name, tensor in model.state_dict().items()})
    new = ["downsample_type", "upsample_type", "dropout", "attn_norm_num_groups", "mid_block_type", "time_embedding_dim"]
    config = {"_class_name": "UNet2DModel", "_diffusers_version": "0.16.1"}
    config |= without(model.config, *new, "num_train_timesteps")
    scheduler = {"_class_name": "DDIMScheduler", "_diffusers_version": "0.16.1", **SCHEDULER}
    scheduler |= {"clip_sample": True, "prediction_type": "epsilon", "set_alpha_to_one": True, "steps_offset": 0}
    files = ["diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors"]
    tensors = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    where = {name: files[index % 2] for index, name in enumerate(tensors)}
    path = folder(
        "old-scale-shift",
        {
            "unet/config.json": config,
            "unet/diffusion_pytorch_model.safetensors.index.json": {"metadata": {}, "weight_map": where},
            "scheduler/scheduler_config.json": scheduler,
        },
    )
    for file in files:
        shard = {name: tensor for name, tensor in tensors.items() if where[name] == file}
        save_file(shard, path / "unet" / file, metadata={"format": "pt"})
    labels = torch.tensor([0, 3, 4])
    y = expect("old-scale-shift", model, labels)
    normless = UNet2DModel(sample_size=16, layers_per_block=1, norm_num_groups=4, **arguments).eval()
    normless.load_state_dict(model.state_dict(), strict=False)
    differs("old-scale-shift", y, normless, labels)


def resampling():
    """Residual blocks between the levels, no attention at the bottom, and a model that was saved alone: torch.save as
    before 1.6, and no model_index.json."""
    model = network(
        4,
        block_out_channels=(8, 16, 8),
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        add_attention=False,
    )
    config = {"_class_name": "UNet2DModel", "_diffusers_version": "0.30.0", **without(model.config)}
    scheduler = {"_class_name": "DDPMScheduler"}
    path = folder("old-resampling", {"config.json": config, "scheduler_config.json": scheduler})
    file = path / "diffusion_pytorch_model.bin"
    torch.save(model.state_dict(), file, _use_new_zipfile_serialization=False)
    expect("old-resampling", UNet2DModel.from_pretrained(path, use_safetensors=False).eval())


def pickles():
    """State dicts with every kind of number, views with gaps, and a storage that two tensors share."""
    PICKLES.mkdir(parents=True, exist_ok=True)
    numbers = torch.arange(24).reshape(2, 3, 4)
    shared = torch.arange(10, dtype=torch.float32)
    tensors = torch.nn.Module().state_dict()
    tensors["transposed"] = (numbers.float() / 8).permute(2, 0, 1)
    tensors["sliced"] = numbers.double()[:, 1:, ::2]
    tensors["head"], tensors["tail"] = shared[:4], shared[6:]
    tensors["parameter"] = torch.nn.Parameter(torch.tensor([-1.5, 2.5]))
    tensors["half"], tensors["brain"] = torch.tensor([0.1, -65504.0]).half(), torch.tensor([0.1, 3e38]).bfloat16()
    for kind in [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]:
        tensors[str(kind).removeprefix("torch.")] = torch.tensor([1, 0, 1]).to(kind)
    tensors["scalar"], tensors["empty"] = torch.tensor(7.0), torch.zeros(0, 5)
    torch.save(tensors, PICKLES / "kinds.pt")
    torch.save(tensors, PICKLES / "kinds-legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "model": tensors}, PICKLES / "training.pt")
    torch.save(torch.nn.Linear(2, 3), PICKLES / "module.pt")
    torch.jit.script(torch.nn.Linear(2, 3)).save(PICKLES / "script.pt")


for make in [cifar10, celebahq, scale_shift, resampling, pickles]:
    make()
