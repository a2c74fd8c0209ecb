"""Makes comparisons.safetensors, comparisons.json and npz/: two sets of features, their distances by public
implementations, and statistics as other programs write them.

    pip install numpy scipy safetensors torch torchvision pytorch-fid==0.3.0 torch-fidelity==0.4.0
    python tests/golden/make_comparisons.py PATH/TO/ddpm-dist
"""

import json
import pathlib
import subprocess
import sys
import tempfile
from unittest.mock import MagicMock

import numpy as np
import torch
from pytorch_fid import fid_score
from safetensors.numpy import save_file
from scipy import linalg
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

HERE = pathlib.Path(__file__).parent
DIM, SUBSETS, SIZE, SEED, NEIGHBOURS = 12, 20, 100, 2020, 3

rng = np.random.default_rng(7)
mix = rng.normal(size=(DIM, DIM)) / 3
samples = rng.normal(size=(300, DIM)) @ mix + 0.5
reference = np.concatenate([rng.normal(size=(160, DIM)) @ mix, rng.normal(size=(100, DIM)) @ mix * 2 - 1])

moments = [(features.mean(axis=0), np.cov(features, rowvar=False)) for features in (samples, reference)]
frechet = fid_score.calculate_frechet_distance(*moments[0], *moments[1])
by_torch_fidelity = fid_statistics_to_metric(*[dict(mu=mu, sigma=sigma) for mu, sigma in moments], verbose=False)
(mu_1, sigma_1), (mu_2, sigma_2) = moments
# Heusel et al. 2017, eq. 6, as it is written.
by_equation = ((mu_1 - mu_2) ** 2).sum() + np.trace(sigma_1 + sigma_2 - 2 * linalg.sqrtm(sigma_1 @ sigma_2).real)
for other in (by_torch_fidelity["frechet_inception_distance"], by_equation):
    assert abs(other / frechet - 1) < 1e-9, (frechet, other)

as_torch = [torch.from_numpy(features) for features in (samples, reference)]
kid = kid_features_to_metric(
    *as_torch, kid_subsets=SUBSETS, kid_subset_size=SIZE, kid_kernel="poly", kid_kernel_poly_degree=3,
    kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, rng_seed=SEED, verbose=False,
)  # fmt: skip
precision_recall = prc_features_to_metric(
    *as_torch, prc_neighborhood=NEIGHBOURS, prc_batch_size=10000, save_cpu_ram=False, verbose=False
)
# The subsets that torch-fidelity drew.
draws = np.random.RandomState(SEED)
subsets = [
    [draws.choice(len(features), SIZE, replace=False) for features in (samples, reference)] for _ in range(SUBSETS)
]


def kernel_distance(x, y):
    """Binkowski et al. 2018, eq. 4, as it is written, one pair at a time."""
    kernel = lambda a, b: (a @ b / DIM + 1) ** 3
    pairs = [(i, j) for i in range(SIZE) for j in range(SIZE)]
    within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j)
    return within / (SIZE * (SIZE - 1)) - 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / SIZE**2


distances = [kernel_distance(samples[ours], reference[theirs]) for ours, theirs in subsets]
assert abs(np.mean(distances) / kid["kernel_inception_distance_mean"] - 1) < 1e-9
assert abs(np.std(distances) / kid["kernel_inception_distance_std"] - 1) < 1e-9


def inside(vectors, centres):
    """Kynkäänniemi et al. 2019, eq. 1, as it is written: the share of vectors inside a ball around some centre."""
    distance = lambda a, b: np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))
    radii = np.sort(distance(centres, centres), axis=1)[:, NEIGHBOURS]
    return float((distance(vectors, centres) <= radii).any(axis=1).mean())


results = {
    "frechet": float(frechet),
    "kernel_mean": kid["kernel_inception_distance_mean"],
    "kernel_std": kid["kernel_inception_distance_std"],
    "precision": inside(samples, reference),
    "recall": inside(reference, samples),
}
for key in ("precision", "recall"):
    assert abs(results[key] - precision_recall[key]) < 1e-6, (key, results[key], precision_recall[key])
save_file(
    {"samples": samples, "reference": reference, "subsets": np.array(subsets, dtype=np.int64)},
    HERE / "comparisons.safetensors",
)

files = HERE / "npz"
files.mkdir(exist_ok=True)
mu, sigma = moments[1]
# As pytorch-fid --save-stats writes them.
np.savez_compressed(files / "pytorch-fid.npz", mu=mu, sigma=sigma)
# As EDM's fid.py does.
np.savez(files / "edm.npz", mu=mu, sigma=sigma)
# As ADM's reference batches: images, and statistics of pool_3, of spatial features and of CLIP's.
spatial, clip = ({f"mu_{name}": mu[:dim], f"sigma_{name}": sigma[:dim, :dim]} for name, dim in (("s", 5), ("clip", 4)))
np.savez(files / "adm.npz", arr_0=np.zeros((2, 4, 4, 3), np.uint8), mu=mu, sigma=sigma, **spatial, **clip)
np.savez(files / "single.npz", mu=mu.astype(np.float32), sigma=np.asfortranarray(sigma.astype(np.float32)))
# Files that are refused.
np.savez(files / "no-sigma.npz", mu=mu, cov=sigma)
np.savez(files / "integers.npz", mu=np.arange(DIM), sigma=sigma)
np.savez(files / "not-square.npz", mu=mu, sigma=sigma[:, :-1])
np.savez(files / "not-finite.npz", mu=mu * np.nan, sigma=sigma)

# Exchange with pytorch-fid: statistics that our program wrote, those that pytorch-fid saved after reading them, and the
# distance that it found. It builds its network even for files that need none, here without the weights to download.
fid_score.InceptionV3 = MagicMock()
with tempfile.TemporaryDirectory() as folder:
    train, test, returned = files / "ours.npz", pathlib.Path(folder) / "test.npz", files / "returned.npz"
    for split, path in (("train", train), ("test", test)):
        evaluated = ["--images", "smoke", "--images-set", "data.image_size=4"]
        against = ["--data", "smoke", "--set", "data.image_size=4", "--split", split]
        subprocess.run([sys.argv[1], "eval", "fid", *evaluated, *against, "--write-reference", path], check=True)
    returned.unlink(missing_ok=True)
    how = dict(batch_size=1, device="cpu", dims=2048)
    fid_score.save_fid_stats([str(train), str(returned)], **how)
    results["exchanged"] = float(fid_score.calculate_fid_given_paths([str(test), str(train)], **how))
(HERE / "comparisons.json").write_text(json.dumps(results, indent=1) + "\n")
