#!/usr/bin/env python3
"""A training step of SPATIA small against the same network and global batch in PyTorch, interleaved in one run: PyTorch ÷ ours.

    benches/torch/spatia_step.py SYNCYTIA BATCHES SHARDS [--what cells generate] [--cores 4 1] [--rounds N] [--out FILE]

SYNCYTIA is the program, BATCHES the bench program `step_batches` (cargo build --release --bench step_batches), SHARDS a folder
made of `benches/cohort.py`. `cells`: the encoder's first stage, configs/spatia/small.toml, 256 cells a step, contrast over the step,
dropout .1; in lanes PyTorch has the contrast inside a lane only, which is less work. `generate`: the diffusion transformer,
g1-small.toml without token merging, 128 cells a step. How it is measured: `steps.py`.
"""

from steps import Network, main


def lanes(parameters, lanes, merged):
    import torch

    if merged:
        longest = max(lane["genes"].shape[1] for lane in lanes)
        last = {"genes": float(parameters[next(n for n in parameters if n.endswith("table"))].shape[0] - 1), "padding": 1.0}
        pad = torch.nn.functional.pad
        for lane in lanes:
            for name in ("genes", "values", "counts", "padding"):
                if name in lane:
                    lane[name] = pad(lane[name], (0, longest - lane[name].shape[1]), value=last.get(name, 0.0))
        lanes = [{name: torch.cat([lane[name] for lane in lanes]) for name in lanes[0]}]
    for lane in lanes:
        lane["genes"], lane["padding"] = lane["genes"].long(), lane["padding"] > 0
        if "kept" in lane:
            lane["kept"] = kept = lane["kept"].long()
            seen = torch.zeros(len(kept), 64, dtype=torch.bool).scatter(1, kept, True)
            lane["hidden"] = torch.where(~seen)[1].view(len(kept), -1)
    return lanes


def encoder(config, parameters, plain):
    import spatia

    model = config["model"]["spatia"] | ({"dropout": 0.0} if plain else {})
    return spatia.Spatia(model, n_genes(parameters), config["task"]["contrast"])


def generator(config, parameters, plain):
    import spatia

    return spatia.Generator(config["model"]["generator"], n_genes(parameters))


def n_genes(parameters):
    return len(next(t for n, t in parameters.items() if n.endswith("table"))) - 1


NETWORKS = {
    "cells": Network(
        config="configs/spatia/small.toml",
        terms=["denoise", "mvc", "dissimilarity", "reconstruction", "contrast"],
        build=encoder,
        lanes=lanes,
        shapes=[(8, 32), (16, 16)],
        steps=(3, 2),
        # The picture from z_cell is left out on both sides: PyTorch's network here has no such term.
        sets={"model.spatia.vector_painter": "false", "task.picture": 0.0},
        plain={"model.spatia.dropout": 0.0},
    ),
    "generate": Network(
        config="configs/spatia/g1-small.toml",
        terms=["flow"],
        build=generator,
        lanes=lanes,
        shapes=[(8, 16), (16, 8)],
        steps=(1, 1),
        sets={"model.generator.dit.token_merging.ratio": 0.0, "train.freeze_untrained": "true"},
    ),
}


if __name__ == "__main__":
    main(__doc__, NETWORKS)
