"""A processed AnnData holds what SpaRED's users look for, under the package's names, and its layers agree with one another.

Usage: test_process.py PROCESSED.h5ad [LAYER...]   (LAYERs beyond the usual that must be there, such as t_log1p)
"""

import sys

import anndata
import numpy as np

adata = anndata.read_h5ad(sys.argv[1])
layers = {name: np.asarray(adata.layers[name]) for name in adata.layers}
usual = "counts tpm log1p d_log1p deltas d_deltas noisy_d_log1p noisy_d_deltas mask".split()
absent = {*usual, *sys.argv[2:]} - set(layers)
assert not absent, f"no layer {absent}"
for name in "slide_id split patient unique_id in_tissue n_genes_by_counts total_counts".split():
    assert name in adata.obs, name
for name in "gene_ids feature_types exp_frac glob_exp_frac total_counts gene_length d_log1p_moran d_log1p_avg_exp".split():
    assert name in adata.var, name
assert set(adata.obs["split"]) <= {"train", "val", "test"} and (adata.obs["in_tissue"] == 1).all()
assert list(adata.obs_names) == list(adata.obs["unique_id"]) and adata.obsm["spatial"].shape == (adata.n_obs, 2)
assert set(adata.uns["spatial"]) == set(adata.obs["slide_id"])

mask = layers["mask"]
assert mask.dtype == bool and 0 < mask.mean() < 1
assert np.array_equal(mask, layers["tpm"] != 0) and np.array_equal(mask, layers["counts"] != 0)
assert np.array_equal(np.asarray(adata.X), layers["counts"])
np.testing.assert_allclose(layers["log1p"], np.log2(layers["tpm"].astype(np.float64) + 1), rtol=1e-5)
assert np.array_equal(layers["d_log1p"][mask], layers["log1p"][mask]), "the median changed a measured value"
assert (layers["d_log1p"][~mask] > 0).any(), "the median completed nothing"
train = (adata.obs["split"] == "train").to_numpy()
for letters in ("", "d_", "c_", "c_d_", "t_", "c_t_"):
    values, deltas = layers.get(f"{letters}log1p"), layers.get(f"{letters}deltas")
    if values is None:
        continue
    mean = values[train].mean(0, dtype=np.float64)
    np.testing.assert_allclose(adata.var[f"{letters}log1p_avg_exp"], mean, atol=1e-5)
    np.testing.assert_allclose(deltas, values - mean, atol=2e-5)
    if "d" in letters or "t" in letters:
        assert np.array_equal(layers[f"noisy_{letters}log1p"], np.where(mask, values, 0))
        restored = layers[f"noisy_{letters}deltas"] + mean
        np.testing.assert_allclose(restored, np.where(mask, values, 0), atol=2e-5)
for name in [n for n in layers if n in ("t_log1p", "c_t_log1p")]:
    base = layers[name.replace("t_", "d_")]
    assert np.array_equal(layers[name][mask], base[mask]), f"{name} changed a measured value"
    assert (layers[name][~mask] != base[~mask]).mean() > 0.9, f"{name} is the median"
print(f"{sys.argv[1]}: {adata.n_obs} x {adata.n_vars}, layers {sorted(layers)}")
