"""What the demo leaves, as a Python user meets it.

Usage: test_walk.py DEMO_FOLDER EXPORT_FOLDER COMPLETED.h5ad
"""

import json
import sys
from pathlib import Path

import anndata
import numpy as np
from safetensors import safe_open


def check(what: str, holds: bool) -> None:
    if not holds:
        sys.exit(f"FAILED: {what}")
    checks.append(what)


checks: list[str] = []
demo, export, completed = (Path(p) for p in sys.argv[1:4])

report = json.loads((demo / "run/report/report.json").read_text())
check("report.json has the stable keys", {"task", "split", "protocol", "model", "baselines", "strict", "provenance"} <= set(report))
for metrics in [report["model"], report["strict"]["model"], *report["baselines"].values()]:
    for name in ("mse", "mae", "pcc_gene", "pcc_spot", "r2_gene"):
        check(f"{name} is a number with its counts", np.isfinite(metrics[name]["value"]) and metrics[name]["n_used"] > 0)
fills = "global_mean gene_mean gene_median median_completion ring1_mean ring3_mean ridge_local soft_impute".split()
check("every simple fill stands beside the model", set(fills) <= set(report["baselines"]))

with safe_open(export / "model.safetensors", framework="numpy") as f:
    tensors = {name: f.get_tensor(name) for name in f.keys()}
best = demo / "run/checkpoints/best/model.safetensors"
with safe_open(best, framework="numpy") as f:
    check("the export holds the best checkpoint's weights", all(np.array_equal(f.get_tensor(n), tensors[n]) for n in f.keys()))
genes = report["provenance"]["n_genes"]
check("linear weights are [out, in]", tensors["model.out_linear.weight"].shape == (genes, 32))
panel = (export / "panel.tsv").read_text().splitlines()
check("the panel lists every gene of the output layer", len([line for line in panel if line and not line.startswith("#")]) - 1 == genes)
check("config.json is JSON", isinstance(json.loads((export / "config.json").read_text()), dict))

before, after = anndata.read_h5ad(demo / "vis5a_cut.h5ad"), anndata.read_h5ad(completed)
check("rows and names are unchanged", list(before.obs_names) == list(after.obs_names))
check("var holds the panel's genes", after.n_vars == genes)
check("the full input is in raw", after.raw.shape == before.shape)
layer, x = np.asarray(after.layers["spackle"]), np.asarray(after.X)
check("measured values are never changed", np.array_equal(layer[x != 0], x[x != 0]))
check("missing values were completed", (x == 0).any() and np.isfinite(layer).all() and (layer[x == 0] != 0).mean() > 0.9)
check("provenance is in uns", after.uns["syncytia"]["model"] == "spackle")
check("places are kept", np.allclose(before.obsm["spatial"], after.obsm["spatial"]))
print(f"{len(checks)} of {len(checks)} checks of the walk passed")
