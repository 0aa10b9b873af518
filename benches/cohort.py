#!/usr/bin/env python3
"""A cohort for the speed benches: cells of 64 × 64 pixels with about 80 expressed genes of 1,024, as `.h5ad` + image.

    benches/cohort.py CELLS OUT [SEED]                                (python with numpy, anndata, Pillow)

Sections of 10,000 cells. Genes of a cell: log-normal about 80, σ .3, as lists of real tissues vary; their counts geometric.
Pictures: blobs and noise that zstd brings to about half, as the tissues of CROPS.md. Nothing in it can be learned:
`syncytia synth` makes cells with a truth, of 64 genes.

    syncytia shard OUT --config configs/spatia/shard.toml --set process.crop_px=64 --set process.niches=none \\
        --set split.kind=section --out SHARDS
"""

import sys
from pathlib import Path

import anndata
import numpy as np
from PIL import Image
from scipy import sparse

GENES, EXPRESSED, SPREAD, SECTION, PITCH = 1024, 80, 0.3, 10_000, 48


def main():
    cells, out, seed = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    out.mkdir(parents=True)
    for at, first in enumerate(range(0, cells, SECTION)):
        section(np.random.default_rng([seed, at]), min(SECTION, cells - first), out / f"bench-{at:03}")


def section(random, n, path):
    side = int(np.ceil(np.sqrt(n)))
    row, column = np.divmod(np.arange(n), side)
    places = (np.stack([column, row], 1) + 0.5) * PITCH + 32 + random.uniform(-4, 4, (n, 2))
    lengths = np.clip(np.exp(random.normal(np.log(EXPRESSED) - SPREAD**2 / 2, SPREAD, n)), 10, 400).astype(int)
    popular = np.log(random.gamma(2.0, 1.0, GENES))
    drawn = np.argsort(-(popular + random.gumbel(size=(n, GENES))), 1).astype(np.int32)
    kept = np.arange(GENES) < lengths[:, None]
    genes = np.sort(np.where(kept, drawn, GENES), 1)[kept]
    counts = random.geometric(0.4, len(genes)).astype(np.float32)
    matrix = sparse.csr_matrix((counts, genes, np.concatenate([[0], np.cumsum(lengths)])), (n, GENES))
    table = anndata.AnnData(matrix)
    table.obs_names = [f"{path.name}-{i}" for i in range(n)]
    table.var_names = [f"GENE{i}" for i in range(GENES)]
    table.obsm["spatial"] = places
    table.write_h5ad(path.with_suffix(".h5ad"))
    picture(random, side * PITCH + 64).save(path.with_suffix(".png"), compress_level=1)


def picture(random, side):
    coarse = random.integers(20, 200, (side // 12 + 2, side // 12 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.BICUBIC))
    return Image.fromarray(smooth + random.integers(0, 12, smooth.shape, dtype=np.uint8))


main()
