"""Writes guidance.json: schedules rescaled to zero terminal SNR, images that schedulers sample with them, and rescaled
guidance, all computed by diffusers.

    pip install torch==2.13.0 diffusers==0.42.1
    python tests/golden/make_guidance.py

The network is a formula, which tests repeat: `model`.
"""

import json
import math
from pathlib import Path

import diffusers.schedulers.scheduling_ddim
import diffusers.schedulers.scheduling_ddpm
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.guiders.guider_utils import rescale_noise_cfg
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

GOLDEN = Path(__file__).parent


def cosine(steps):
    """squaredcos_cap_v2 in double precision."""
    abar = [math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(steps + 1)]
    return torch.tensor([min(1 - abar[t + 1] / abar[t], 0.999) for t in range(steps)], dtype=torch.float64)


# The betas in double precision, and the arguments with which a scheduler computes them in single precision.
SCHEDULES = {
    "linear-1000": (torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), {"beta_schedule": "linear"}),
    "scaled_linear-1000": (
        torch.linspace(1e-4**0.5, 0.02**0.5, 1000, dtype=torch.float64) ** 2,
        {"beta_schedule": "scaled_linear"},
    ),
    "squaredcos_cap_v2-1000": (cosine(1000), {"beta_schedule": "squaredcos_cap_v2"}),
    "linear-100": (
        torch.linspace(1e-3, 0.2, 100, dtype=torch.float64),
        {"num_train_timesteps": 100, "beta_start": 1e-3, "beta_end": 0.2},
    ),
}
SHAPE = (2, 1, 4, 4)


def image(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def model(x, t):
    """In place of a network: smooth in x, different at every t, and everywhere about as large as x."""
    return torch.sin(1.3 * x + 0.002 * t) - 0.4 * x


def schedule(betas, arguments):
    """Rescaled betas in double precision, and alphas_cumprod as a scheduler computes it."""
    betas = rescale_zero_terminal_snr(betas)
    last = len(betas) - 1
    index = [0, 1, last // 3, last // 2, last - 10, last - 2, last - 1, last]
    abar = DDPMScheduler(**arguments, rescale_betas_zero_snr=True).alphas_cumprod
    assert abar[-1] == 0
    return {
        "index": index,
        "betas": betas[index].tolist(),
        "alphas_cumprod": torch.cumprod(1 - betas, 0)[index].tolist(),
        "scheduler_alphas_cumprod": abar[index].tolist(),
    }


@torch.no_grad()
def draw(kind, prediction, steps):
    scheduler = kind(
        num_train_timesteps=1000,
        prediction_type=prediction,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    scheduler.set_timesteps(steps)
    for module in [diffusers.schedulers.scheduling_ddpm, diffusers.schedulers.scheduling_ddim]:
        # Without noise: it is added by the same formula at every step.
        module.randn_tensor = lambda shape, **_: torch.zeros(shape)
    x, states = image(1), []
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t), t, x).prev_sample
        states.append(x)
    return {"kind": kind.__name__, "prediction": prediction, "steps": steps, "timesteps": scheduler.timesteps.tolist()} | {
        "first": states[0].flatten().tolist(),
        "last": x.flatten().tolist(),
    }


def guided(scale, rescale):
    cond, uncond = image(2), 0.7 * image(3) + 0.1
    result = rescale_noise_cfg(uncond + scale * (cond - uncond), cond, rescale)
    return {"scale": scale, "rescale": rescale, "guided": result.flatten().tolist()}


content = {
    "schedules": {name: schedule(*made) for name, made in SCHEDULES.items()},
    "x": image(1).flatten().tolist(),
    "cond": image(2).flatten().tolist(),
    "uncond": (0.7 * image(3) + 0.1).flatten().tolist(),
    "draws": [
        draw(kind, prediction, steps)
        for kind in [DDIMScheduler, DDPMScheduler]
        for prediction in ["v_prediction", "sample"]
        for steps in [10, 1]
    ],
    "guided": [guided(scale, rescale) for scale in [0.5, 3.0, 7.5] for rescale in [0.0, 0.3, 0.7, 1.0]],
}
(GOLDEN / "guidance.json").write_text(json.dumps(content, indent=1) + "\n")
