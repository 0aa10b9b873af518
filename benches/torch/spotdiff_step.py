#!/usr/bin/env python3
"""A training step of SpotDiff's ψ base against the same network and global batch in PyTorch, interleaved in one run: PyTorch ÷ ours.

    benches/torch/spotdiff_step.py SYNCYTIA BATCHES SHARDS [--what base base-512 patches patches-512] [--cores 4 1] [--rounds N] [--out FILE]

SYNCYTIA is the program, BATCHES the bench program `step_batches` (cargo build --release --bench step_batches), SHARDS the FISH embryo's
with data.holdout = gene_folds (benches/spotdiff.sh OUT leaves them in OUT/folds); fold 0 is trained. `base`:
configs/spotdiff/base.toml with its own global batch, 128 spots and as many cells; `base-512`: the same with 512 spots, the specification's
batch; `patches`, `patches-512`: tokens of four genes instead of one of all. Prompts by `hash`, no dropout (the config has none), ω as it began. How it is measured: `steps.py`.
"""

from steps import Network, main


def lanes(_, lanes, merged):
    import torch

    if merged:
        lanes = [{name: torch.cat([lane[name] for lane in lanes]) for name in lanes[0]}]
    for lane in lanes:
        lane["genes"], lane["buckets"] = lane["genes"].long(), lane["buckets"].long()
        present = 1 - lane["absent"]
        lane["shares"] = present / present.sum(1, keepdim=True).clamp(min=1)
    return lanes


def build(config, parameters, plain):
    import spotdiff

    config["model"]["spotdiff"]["psi"].setdefault("tokens", "spot" if parameters["psi.positions"].shape[0] > 1 else "whole")
    return spotdiff.Spotdiff(config, len(parameters["omega.last.bias"]))


def network(shapes, **sets):
    return Network(
        config="configs/spotdiff/base.toml",
        terms=["spots", "cells"],
        build=build,
        lanes=lanes,
        shapes=shapes,
        steps=(8, 3),
        sets={"data.view.fold": 0} | sets,
        part="fold-0",
    )


if __name__ == "__main__":
    of_patches = {"model.spotdiff.psi.tokens": "spot"}
    networks = {
        "base": network([(8, 16), (4, 32)]),
        "base-512": network([(8, 64), (4, 128)]),
        "patches": network([(8, 16), (4, 32)], **of_patches),
        "patches-512": network([(8, 64), (16, 32), (32, 16)], **of_patches),
    }
    main(__doc__, networks)
