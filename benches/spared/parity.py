#!/usr/bin/env python3
"""What the Python package `spared` 2.2.1 makes of a small data set: the fixture of tests/stories/spared.rs, and its times.

    uv venv --python 3.11 V && VIRTUAL_ENV=$PWD/V uv pip install squidpy==1.3.1 'numpy<1.27' 'pandas<2.2' 'scipy<1.12' \\
        'anndata<0.10' 'scanpy<1.10' 'zarr<3' 'matplotlib<3.8' combat==0.3.3 safetensors
    VIRTUAL_ENV=$PWD/V uv pip install --no-deps squidpy==1.2.3      # the version that spared pins
    pip download --no-deps spared==2.2.1 && python3 -m zipfile -e spared-*.whl W
    V/bin/python benches/spared/parity.py W fixture                 # writes tests/golden/spared.safetensors
    V/bin/python benches/spared/parity.py W times A.h5ad B.h5ad

The package (MIT) is not part of the project and not of CI; its functions are called one by one, because the whole needs a
GPU, a training run of 10,000 steps and a download. What it imports for its models only is stubbed; Moran's 1,000 permutations,
whose result it throws away, are off. The data set: the 150 leftmost and the 150 rightmost spots of the section that ships with
the project, as two slides, the second one val.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
warnings.filterwarnings("ignore")
for name in """torch torch.nn torch.nn.functional torch.utils torch.utils.data torchvision torchvision.models
    torchvision.transforms lightning lightning.pytorch lightning.pytorch.callbacks lightning.pytorch.loggers wandb wget models
    spared.spackle spared.spackle.utils spared.spackle.model spared.spackle.dataset spared.spackle.main
    positional_encodings positional_encodings.torch_encodings torch_geometric torch_geometric.nn cv2""".split():
    sys.modules[name] = MagicMock(__all__=[])
sys.path.insert(0, sys.argv[1])

import anndata as ad  # noqa: E402
import squidpy as sq  # noqa: E402

with_permutations = sq.gr.spatial_autocorr
sq.gr.spatial_autocorr = lambda *a, **k: with_permutations(*a, **{**k, "n_perms": None, "n_jobs": 1, "seed": None})

from spared.denoising import denoising  # noqa: E402
from spared.filtering import filtering  # noqa: E402
from spared.gene_features import gene_features  # noqa: E402
from spared.layer_operations import layer_operations as layers  # noqa: E402

FILTERS = {
    "cell_min_counts": 10, "cell_max_counts": 1e6, "gene_min_counts": 10, "gene_max_counts": 1e6,
    "min_exp_frac": -1, "min_glob_exp_frac": -1, "real_data_percentage": 0.7, "wildcard_genes": "None",
}  # fmt: skip


def collection(slides):
    """Slides as the package's readers leave them: raw counts in X, ids in obs and var, the last slide val."""
    for at, (name, slide) in enumerate(slides.items()):
        slide.obs = slide.obs[[]].assign(slide_id=name, split="val" if at == len(slides) - 1 else "train")
        slide.obs_names = [f"{name}_{barcode}" for barcode in slide.obs_names]
        slide.layers.clear()
    whole = ad.concat(list(slides.values()), merge="same")
    whole.var["gene_ids"] = whole.var_names
    whole.X = whole.X.astype(np.float32)
    whole.uns["spatial"] = {name: {} for name in slides}
    return whole


def ends_of_the_shipped_section():
    section = ad.read_h5ad(ROOT / "shards/data/vis5a_cut.h5ad")
    if "gene_ids" in section.var:
        section.var_names = section.var["gene_ids"].astype(str)
    section.var_names = [name.split(".")[0] for name in section.var_names]
    # Less than a hundredth of a pixel, so that no two distances tie: which of two neighbours wins is scikit-learn's secret.
    row = np.arange(section.n_obs, dtype=np.float64)
    apart = 0.01 * np.stack([row * 0.6180339887 % 1, row * 0.4142135623 % 1], axis=1)
    section.obsm["spatial"] = section.obsm["spatial"].astype(np.float64) + apart
    order = np.argsort(section.obsm["spatial"][:, 0], kind="stable")
    rows = lambda which: section[np.sort(which)].copy()  # noqa: E731
    return collection({"left": rows(order[:150]), "right": rows(order[-150:])})


def processed(adata, organism, top, took=None):
    def timed(what, run):
        start = time.perf_counter()
        result = run()
        if took is not None:
            took[what] = took.get(what, 0.0) + time.perf_counter() - start
        return result

    adata.layers["counts"] = adata.X.toarray()
    adata = layers.tpm_normalization(adata, organism, from_layer="counts", to_layer="tpm")
    adata = adata[:, sorted(adata.var_names)].copy()  # the package leaves them in the order of a Python set
    adata = layers.log1p_transformation(adata, from_layer="tpm", to_layer="log1p")
    adata = timed("median", lambda: denoising.median_cleaner(adata, "log1p", "d_log1p", n_hops=4, hex_geometry=True))
    adata = timed("moran", lambda: gene_features.compute_moran(adata, hex_geometry=True, from_layer="d_log1p"))
    adata = filtering.filter_by_moran(adata, n_keep=top, from_layer="d_log1p").copy()
    for layer in ("log1p", "d_log1p"):
        combat = lambda: layers.combat_transformation(adata, "slide_id", layer, f"c_{layer}")  # noqa: B023, E731
        adata = timed("combat", combat)
    for layer in ("", "d_", "c_", "c_d_"):
        adata = layers.get_deltas(adata, from_layer=f"{layer}log1p", to_layer=f"{layer}deltas")
    adata.layers["mask"] = adata.layers["tpm"] != 0
    for layer in ("c_d_log1p", "c_d_deltas"):
        adata = layers.add_noisy_layer(adata=adata, prediction_layer=layer)
    return adata


def cut_by_the_prefix(adata):
    """Genes of one expressed fraction of which some pass the prefix and some do not."""
    fractions = gene_features.get_exp_frac(adata.copy()).var["exp_frac"]
    overall = gene_features.get_glob_exp_frac(adata.copy()).var["glob_exp_frac"]
    kept = set(filtering.filter_dataset(adata.copy(), FILTERS).var_names)
    totals = np.asarray(adata.X.sum(axis=0)).ravel()
    judged = fractions[(totals > FILTERS["gene_min_counts"]) & (totals < FILTERS["gene_max_counts"])]
    border = judged[[name in kept for name in judged.index]].min()
    tied = list(judged.index[judged == border])
    if 0 < sum(name in kept for name in tied) < len(tied):
        return tied
    after = judged[judged < border].max()  # in another order one of these might have come first, and passed
    total = sum(overall[name] for name in kept)
    passes = lambda name: total + overall[name] >= FILTERS["real_data_percentage"] * (len(kept) + 1)  # noqa: E731
    return [name for name in judged.index[judged == after] if passes(name)]


def fixture():
    from safetensors.numpy import save_file

    whole, left_out = ends_of_the_shipped_section(), []
    while tied := cut_by_the_prefix(whole):  # which of equal fractions stay is the secret of an unstable sort
        left_out += tied
        whole = whole[:, [name not in tied for name in whole.var_names]].copy()
    adata = processed(filtering.filter_dataset(whole, FILTERS), "mouse", 32)
    kept = "tpm log1p d_log1p c_log1p c_d_log1p c_d_deltas noisy_c_d_deltas".split()
    tensors = {name: np.ascontiguousarray(np.asarray(adata.layers[name]), dtype=np.float32) for name in kept}
    columns = ["exp_frac", "glob_exp_frac", "d_log1p_moran", "gene_length", "log1p_avg_exp", "c_d_log1p_avg_exp"]
    tensors |= {f"var/{name}": adata.var[name].to_numpy(dtype=np.float64) for name in columns}
    names = {"genes": " ".join(adata.var_names), "spots": " ".join(adata.obs_names), "left_out": " ".join(left_out)}
    save_file(tensors, ROOT / "tests/golden/spared.safetensors", metadata=names)
    print(adata)


def times(paths):
    slides = {Path(p).name.split("_")[0]: ad.read_h5ad(p) for p in paths}
    for slide in slides.values():
        slide.var_names = [str(i).split(".")[0] for i in slide.var.get("gene_ids", slide.var_names)]
        slide.var_names_make_unique()
    adata = filtering.filter_dataset(collection(slides), FILTERS)
    ours, theirs = [], []
    for _ in range(3):
        took = {}
        processed(adata.copy(), "human", 32, took)
        theirs.append(took)
        command = ["cargo", "bench", "-q", "-p", "syncytia-shards", "--bench", "process", "--", *map(os.path.abspath, paths)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        ours.append(json.loads(done.stdout))
    for what in ("median", "moran", "combat"):
        a, b = (sorted(run[what] for run in runs)[1] for runs in (theirs, ours))
        print(f"{what:<8} spared {a:8.3f} s   syncytia {b:7.4f} s   {a / b:6.1f} ×")
    a, b = (sorted(sum(run[w] for w in ("median", "moran", "combat")) for run in runs)[1] for runs in (theirs, ours))
    print(f"{'all':<8} spared {a:8.3f} s   syncytia {b:7.4f} s   {a / b:6.1f} ×   ({adata.n_obs} spots, {adata.n_vars} genes)")


if __name__ == "__main__":
    fixture() if sys.argv[2] == "fixture" else times(sys.argv[3:])
