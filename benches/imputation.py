#!/usr/bin/env python3
"""The simple fills of SpotDiff's tables on every data set there is: what benches/IMPUTATION.md says.

Usage: benches/imputation.py DATA WORK [--only PART ...] [--seeds N]      (needs numpy, anndata, pyarrow, numcodecs)
DATA holds fish-drosophila-embryo, merfish-visp-268, merfish-hypothalamus, merfish-mop-and-smfish-visp. Tables are written as text
into WORK, then `cargo bench --bench imputation` runs on them.
"""

import argparse
import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np


def embryo(data):
    folder = data / "fish-drosophila-embryo"
    with open(folder / "bdtnp.txt") as lines:
        genes = next(lines).rstrip("\n").split("\t")
        spots = np.array([line.split() for line in lines], float)
    places = np.loadtxt(folder / "geometry.txt", skiprows=1)
    with gzip.open(folder / "dge_raw.txt.gz", "rt") as lines:
        rows = {line.split("\t", 1)[0]: np.array(line.split("\t")[1:], float) for line in lines}
    counts = np.array(list(rows.values())).T
    cells = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    at = {gene: i for i, gene in enumerate(rows)}
    return spots, places, cells[:, [at[gene] for gene in genes]]


def dense(path, places):
    import anndata

    table = anndata.read_h5ad(path)
    values = table.X.toarray() if hasattr(table.X, "toarray") else np.asarray(table.X)
    return np.log1p(values.astype(float)), places(table), None


def visp(data):
    import numcodecs
    import pyarrow.parquet

    root = data / "merfish-visp-268/merfish.zarr"
    layout = json.loads((root / "tables/table/X/.zarray").read_text())
    codec = numcodecs.get_codec(layout["compressor"])
    values, (high, wide) = np.zeros(layout["shape"]), layout["chunks"]
    for i in range(0, values.shape[0], high):
        for j in range(0, values.shape[1], wide):
            raw = codec.decode((root / f"tables/table/X/{i // high}/{j // wide}").read_bytes())
            part = values[i : i + high, j : j + wide]
            part[:] = np.frombuffer(raw, layout["dtype"]).reshape(high, wide)[: part.shape[0], : part.shape[1]]
    shapes = pyarrow.parquet.read_table(root / "shapes/cells/shapes.parquet")["geometry"].to_pylist()
    return np.log1p(values), np.array([struct.unpack("<dd", point[5:21]) for point in shapes]), None


DATA = {
    "fish": embryo,
    "visp": visp,
    "hypothalamus": lambda data: dense(
        data / "merfish-hypothalamus/merfish_mousePOA_animal1_bregma-0.29.h5ad", lambda t: np.asarray(t.obsm["spatial"], float)
    ),
    "mop": lambda data: dense(
        data / "merfish-mop-and-smfish-visp/merfish_mop_slice_253genes.h5ad", lambda t: t.obs[["x_um", "y_um"]].to_numpy(float)
    ),
}


def run(*words):
    subprocess.run(["cargo", "bench", "--bench", "imputation", "--", *map(str, words)], check=True, stderr=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", default=list(DATA))
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        values, places, cells = DATA[name](args.data)
        files = [args.work / f"{name}.{part}.txt" for part in ("values", "places", "cells")]
        for table, file in zip((values, places, cells), files):
            if table is not None:
                np.savetxt(file, table, fmt="%.9g")
        print(f"{name}: {values.shape[0]} x {values.shape[1]}, 30 % of entries", flush=True)
        run("entries", *files[:2])
        for seed in range(args.seeds) if cells is not None else ():
            order = np.random.default_rng(seed).permutation(values.shape[1])
            np.savetxt(args.work / f"{name}.folds.txt", np.argsort(order)[None] % 5, fmt="%d")
            print(f"{name}: 5 gene folds, draw {seed}", flush=True)
            run("folds", *files, args.work / f"{name}.folds.txt")


if __name__ == "__main__":
    sys.exit(main())
