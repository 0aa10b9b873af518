"""A consumer of the .h5ad files we write: Python anndata opens them, whole and backed.

    python tests/python/test_h5ad.py FILE.h5ad...
"""

import sys

import anndata
import numpy as np


def check(path):
    adata = anndata.read_h5ad(path)
    n_obs, n_vars = adata.shape
    assert n_obs > 0 and n_vars > 0, f"{path}: shape {adata.shape}"
    assert adata.obs_names.is_unique and adata.var_names.is_unique
    assert all(isinstance(name, str) for name in adata.obs_names[:10].tolist() + adata.var_names[:10].tolist())
    if adata.X is not None:
        values = adata.X.data if hasattr(adata.X, "indptr") else np.asarray(adata.X)
        assert values.dtype == np.float32, values.dtype
        if hasattr(adata.X, "indptr"):
            assert adata.X.has_canonical_format and (values != 0).all()
    assert adata.obsm["spatial"].shape[0] == n_obs and np.isfinite(adata.obsm["spatial"]).all()
    for name in adata.layers:
        assert adata.layers[name].shape == adata.shape, name
    for library, slide in adata.uns.get("spatial", {}).items():
        for name, picture in slide["images"].items():
            assert picture.dtype == np.uint8 and picture.ndim == 3, (library, name)
    if adata.raw is not None:
        assert adata.raw.X.shape == (n_obs, len(adata.raw.var_names))
    backed = anndata.read_h5ad(path, backed="r")
    assert backed.shape == adata.shape
    if adata.X is not None:
        dense = [getattr(x[:5], "toarray", lambda x=x: x[:5])() for x in (adata.X, backed.X)]
        assert np.array_equal(*dense, equal_nan=True)
    backed.file.close()
    print(f"{path}: {n_obs} x {n_vars}, obs {list(adata.obs.columns)}, layers {list(adata.layers)}, read back whole")


if __name__ == "__main__":
    assert len(sys.argv) > 1, __doc__
    for path in sys.argv[1:]:
        check(path)
