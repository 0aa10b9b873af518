#!/usr/bin/env python3
"""`paper.toml`'s step against the same network and global batch in PyTorch, interleaved in one run: PyTorch ÷ ours.

    benches/torch/spackle_step.py SYNCYTIA SHARDS [ROUNDS]            (python with torch; taskset)

On all cores and on one, as 1 × 256 and as 8 × 32, PyTorch eager and `torch.compile` (needs a C++ compiler), dropout .1 on both
sides, forward, backward and Adam on 256 neighbourhoods. Ours: one rank per core; PyTorch: that many threads. Medians over the
rounds' medians; the first 5 steps of every run (15 compiled) do not count. Peak memory is the whole process's. The verdict takes
PyTorch's best of four against our best of two.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS, WARM_UP = 20, 5
SHAPES = [(8, 32), (1, 256)]


def torch_steps(lanes, micro_batch, threads, compiled, genes, spots):
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)

    class Spackle(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(genes, 128)
            layer = nn.TransformerEncoderLayer(128, 1, 2048, 0.1, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.out = nn.Linear(128, genes)

        def forward(self, x):
            return self.out(self.encoder(self.linear(x)))

    model = Spackle().train()
    n_parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss = lambda x, y: ((model(x) - y) ** 2).sum() / (lanes * micro_batch * spots * genes)  # noqa: E731
    if compiled:
        loss = torch.compile(loss)
    target = torch.randn(lanes, micro_batch, spots, genes) + 9
    hidden = target * (torch.rand_like(target) > 0.3)
    seconds = []
    warm_up = 15 if compiled else WARM_UP
    for _ in range(warm_up + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        for lane in range(lanes):
            loss(hidden[lane], target[lane]).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds[warm_up:], "peak_mb": peak / 1024, "parameters": n_parameters}))


def ours(binary, shards, lanes, micro_batch, cores):
    ranks, threads = (cores, 1) if lanes > 1 else (1, cores)
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            "train.lanes": lanes, "train.micro_batch": micro_batch, "train.ranks": min(ranks, lanes), "train.threads": threads,
            "train.max_steps": WARM_UP + STEPS, "train.validate_every": 1000, "train.digest_every": 1000,
            "checkpoint.every": 1000, "log.every": 1000,
        }  # fmt: skip
        command = pinned(cores) + [binary, "train", "configs/spackle/paper.toml", "--shards", shards, "--run", f"{folder}/run"]
        for key, value in sets.items():
            command += ["--set", f"{key}={value}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, command
        lines = map(json.loads, Path(folder, "run/metrics.jsonl").read_text().splitlines())
        steps = [l["step_s"] for l in lines if l["kind"] == "train" and l["global_step"] > WARM_UP]
    return statistics.median(steps), usage.ru_maxrss / 1024


def theirs(lanes, micro_batch, cores, compiled, genes, spots):
    words = [lanes, micro_batch, cores, int(compiled), genes, spots]
    command = pinned(cores) + [sys.executable, __file__, "--torch", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1:]
    found = json.loads(done.stdout.splitlines()[-1])
    return statistics.median(found["seconds"]), found["peak_mb"]


def pinned(cores):
    return ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))]


def main():
    binary, shards = (os.path.abspath(p) for p in sys.argv[1:3])
    os.chdir(Path(__file__).resolve().parents[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    manifest = json.loads(Path(shards, "manifest.json").read_text())
    genes, spots = len(manifest["panel"]["selected"]), 1 + manifest["n_neighbours"]
    found = {}
    for _ in range(rounds):
        for cores in (len(os.sched_getaffinity(0)), 1):
            for lanes, micro_batch in SHAPES:
                shape = f"{lanes} × {micro_batch}"
                found.setdefault((cores, shape, "syncytia"), []).append(ours(binary, shards, lanes, micro_batch, cores))
                for name, compiled in (("PyTorch eager", False), ("PyTorch compiled", True)):
                    result = theirs(lanes, micro_batch, cores, compiled, genes, spots)
                    found.setdefault((cores, shape, name), []).append(result)
    medians = {}
    for key, results in found.items():
        cores, shape, name = key
        if results[0][0] is None:
            print(f"{cores} cores  {shape:<8} {name:<17} did not run: {results[0][1]}")
            continue
        medians[key] = statistics.median(r[0] for r in results)
        peak = max(r[1] for r in results)
        print(f"{cores} cores  {shape:<8} {name:<17} {1e3 * medians[key]:7.1f} ms  peak {peak:5.0f} MB")
    for cores in sorted({key[0] for key in medians}, reverse=True):
        best = lambda pick: min(v for (c, _, name), v in medians.items() if c == cores and pick(name))  # noqa: B023, E731
        mine, torchs = best(lambda n: n == "syncytia"), best(lambda n: n != "syncytia")
        print(f"{cores} cores: PyTorch's best ÷ our best = {torchs / mine:.2f}")


if sys.argv[1:2] == ["--torch"]:
    lanes, micro_batch, threads, compiled, genes, spots = map(int, sys.argv[2:])
    torch_steps(lanes, micro_batch, threads, bool(compiled), genes, spots)
else:
    main()
