#!/usr/bin/env python3
"""Makes tests/golden/leiden.json: small graphs, and the best partition that leidenalg finds of each over 100 seeds.

Usage: python tests/golden/leiden.py > tests/golden/leiden.json     (needs leidenalg, python-igraph, numpy)
`modularity` is that of the definition in src/evaluate/graph.rs: leidenalg's RBConfiguration quality over twice the weight of
all edges.
"""

import json
import random
import sys

import igraph
import leidenalg
import numpy as np

SEEDS = 100


def planted(groups, size, inside, between, seed):
    drawn = random.Random(seed)
    n = groups * size
    pairs = ((a, b) for a in range(n) for b in range(a + 1, n))
    return n, [(a, b) for a, b in pairs if drawn.random() < (inside if a // size == b // size else between)]


def cloud(n, k, seed):
    points = np.random.default_rng(seed).normal(size=(n, 3)) + 3 * np.eye(3)[np.arange(n) % 3]
    distance = ((points[:, None] - points[None]) ** 2).sum(-1)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return n, sorted({(min(a, int(b)), max(a, int(b))) for a in range(n) for b in nearest[a]})


karate = igraph.Graph.Famous("Zachary")
GRAPHS = {
    "karate": (karate.vcount(), [edge.tuple for edge in karate.es]),
    "planted_4x16": planted(4, 16, 0.5, 0.05, 1),
    "planted_8x12": planted(8, 12, 0.6, 0.08, 2),
    "nearest_150": cloud(150, 10, 3),
}
out = []
for name, (n, edges) in GRAPHS.items():
    graph = igraph.Graph(n, edges)
    for resolution in (0.5, 1.0, 1.8):
        best = None
        for seed in range(SEEDS):
            found = leidenalg.find_partition(
                graph, leidenalg.RBConfigurationVertexPartition, resolution_parameter=resolution, seed=seed, n_iterations=-1
            )
            if best is None or found.quality() > best.quality():
                best = found
        out.append(
            {
                "name": name,
                "n": n,
                "edges": [list(edge) for edge in edges],
                "resolution": resolution,
                "modularity": best.quality() / (2 * len(edges)),
                "membership": best.membership,
            }
        )
json.dump({"leidenalg": leidenalg.version, "graphs": out}, sys.stdout, separators=(",", ":"))
sys.stdout.write("\n")
