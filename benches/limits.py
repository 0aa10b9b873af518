#!/usr/bin/env python3
"""What a completion can reach at all: boosted trees on the inputs of `ridge_local`, and how much of the error is counting noise.

    benches/limits.py SYNCYTIA TRAIN.h5ad VAL.h5ad       (python with anndata, scikit-learn, scipy)

`syncytia process` makes the layers. Masks by the rule `release`, ρ = .3, drawn here (three assays). The trees see what the ridge
sees: own visible values or the mean of three rings, the mean of one ring and of three, each less the section's mean; one model per
gene, fitted on the training section's hidden entries. Noise: every measured count is thinned binomially to a share p and scaled
back; what that adds is (1 − p)/p of what counting itself has put in, so (squared change) · p/(1 − p) estimates the part of the MSE
that no model can predict. It is rough, and no bound: entries thinned to 0 are left out, which takes from it, and the spread at
a small count is more than at the expectation behind it, which adds.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import anndata
import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from sklearn.ensemble import HistGradientBoostingRegressor

RHO, PENALTY = 0.3, 30.0


def layers_of(syncytia, train, val):
    name = Path(val).stem.split("_")[0]
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/x.h5ad"
        command = [syncytia, "process", train, val, "--split", f"val={name}", "--out", out, "--json"]
        subprocess.run(command, check=True, capture_output=True)
        return anndata.read_h5ad(out)


def rings(xy, hops):
    """Sparse 0/1 matrices of the spots within 1 and within `hops` hops on the symmetrised graph of six nearest."""
    nearest = cKDTree(xy).query(xy, k=7)[1][:, 1:]
    n = len(xy)
    graph = csr_matrix((np.ones(6 * n), (np.repeat(np.arange(n), 6), nearest.ravel())), shape=(n, n))
    graph = ((graph + graph.T) > 0).astype(np.float64)
    within, step = graph.copy(), graph.copy()
    for _ in range(hops - 1):
        step = ((step @ graph) > 0).astype(np.float64)
        within = ((within + step) > 0).astype(np.float64)
    within.setdiag(0)
    within.eliminate_zeros()
    return graph, within


def features(section, hidden):
    values, visible = section["values"], section["measured"] & ~hidden
    seen = np.where(visible, values, 0.0)
    mean = np.array([seen[visible[:, g], g].mean() if visible[:, g].any() else 0.0 for g in range(seen.shape[1])])
    median = np.array([np.median(seen[visible[:, g], g]) if visible[:, g].any() else 0.0 for g in range(seen.shape[1])])
    near, far = (ring_mean(w, seen, visible, median) for w in section["rings"])
    own = np.where(visible, values, far)
    return np.hstack([own - mean, near - mean, far - mean]), mean


def ring_mean(weights, seen, visible, fallback):
    n = weights @ visible.astype(np.float64)
    return np.where(n > 0, (weights @ seen) / np.maximum(n, 1), fallback)


def ridge(x, y):
    centre = x.mean(0)
    z = x - centre
    w = np.linalg.solve(z.T @ z + PENALTY * np.eye(x.shape[1]), z.T @ (y - y.mean()))
    return lambda q: (q - centre) @ w + y.mean()


def trees(x, y):
    model = HistGradientBoostingRegressor(learning_rate=0.05, max_iter=300, max_leaf_nodes=15, min_samples_leaf=30,
                                          l2_regularization=1.0, early_stopping=True, random_state=0)  # fmt: skip
    return model.fit(x, y).predict


def main():
    syncytia, train, val = sys.argv[1:4]
    adata = layers_of(syncytia, train, val)
    probability = np.minimum(1, RHO / adata.var["glob_exp_frac"].to_numpy())
    rng = np.random.default_rng(42)
    sections = {}
    for split in ("train", "val"):
        part = adata[adata.obs["split"] == split]
        sections[split] = {
            "values": np.asarray(part.layers["d_log1p"], dtype=np.float64),
            "measured": np.asarray(part.layers["mask"]),
            "rings": rings(np.asarray(part.obsm["spatial"], dtype=np.float64), 3),
        }
    hide = lambda s: s["measured"] & (rng.random(s["measured"].shape) < probability)  # noqa: E731
    genes = adata.n_vars
    fitted = hide(sections["train"])
    x, mean = features(sections["train"], fitted)
    models = {"ridge_local": ridge, "boosted trees": trees}
    fits = {name: [] for name in models}
    for g in range(genes):
        rows = fitted[:, g]
        for name, fit in models.items():
            fits[name].append(fit(x[rows], sections["train"]["values"][rows, g] - mean[g]))
    errors = {name: [] for name in models}
    for _ in range(3):
        hidden = hide(sections["val"])
        x, mean = features(sections["val"], hidden)
        for name in models:
            squares = [(fits[name][g](x[hidden[:, g]]) + mean[g] - sections["val"]["values"][hidden[:, g], g]) ** 2
                       for g in range(genes)]  # fmt: skip
            errors[name].append(np.concatenate(squares).mean())
    for name, found in errors.items():
        print(f"{name:<14} MSE {np.mean(found):.3f} ± {np.std(found, ddof=1):.3f} over three assays")
    noise(adata[adata.obs["split"] == "val"], probability, rng)


def noise(part, probability, rng):
    counts, tpm = np.asarray(part.layers["counts"]).astype(np.int64), np.asarray(part.layers["tpm"], dtype=np.float64)
    full = np.log2(tpm + 1)
    weight = np.where(counts > 0, probability, 0.0)
    for p in (0.5, 0.7, 0.9):
        estimates, lost = [], []
        for _ in range(5):
            thinned = rng.binomial(counts, p)
            scaled = np.where(counts > 0, tpm * thinned / (p * np.maximum(counts, 1)), 0)
            left = (thinned > 0) * weight
            change = (np.log2(scaled + 1) - full) ** 2
            estimates.append((change * left).sum() / left.sum() * p / (1 - p))
            lost.append(1 - left.sum() / weight.sum())
        print(f"noise floor by thinning to {p:.0%}: MSE {np.mean(estimates):.3f}; {np.mean(lost):.0%} of the entries thinned to 0")


main()
