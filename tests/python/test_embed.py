"""A consumer of `syncytia embed --input`: Python anndata finds the vectors in obsm.

    python tests/python/test_embed.py INPUT.h5ad EMBEDDED.h5ad X_spatia...
"""

import sys

import anndata
import numpy as np


def check(source, path, names):
    before, adata = anndata.read_h5ad(source), anndata.read_h5ad(path)
    assert (adata.obs_names == before.obs_names).all() and (adata.var_names == before.var_names).all()
    dense = [getattr(x, "toarray", lambda x=x: x)() for x in (adata.X, before.X)]
    assert np.array_equal(*dense), "the counts are as they were"
    for name in names:
        vectors = adata.obsm[name]
        assert vectors.shape[0] == adata.n_obs and vectors.shape[1] > 1, (name, vectors.shape)
        missing = np.isnan(vectors)
        assert (missing.all(axis=1) == missing.any(axis=1)).all(), f"{name}: a row is whole or missing"
        assert len(np.unique(vectors[~missing[:, 0]], axis=0)) > 1, f"{name}: cells differ"
    said = adata.uns["syncytia"]
    for key in ["model", "task", "read", "scale", "checkpoint", "data_hash", "version"]:
        assert isinstance(said[key], str) and said[key], key
    assert said["model"] == "spatia" and int(said["global_step"]) > 0
    print(f"{path}: {', '.join(names)} of {adata.n_obs} cells, {said['read']}")


if __name__ == "__main__":
    assert len(sys.argv) > 3, __doc__
    check(sys.argv[1], sys.argv[2], sys.argv[3:])
