#!/usr/bin/env python3
"""How a step scales with ranks, and what exact sums cost: ratios of medians, runs interleaved because machines are noisy.

Usage: benches/ranks.py SYNCYTIA SHARDS [CONFIG] [ROUNDS]
Each round trains 30 steps with 1, 2 and 4 ranks (as many as there are cores), exact and fast, one kernel thread per rank;
the first 5 steps do not count.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

binary, shards = sys.argv[1:3]
config = sys.argv[3] if len(sys.argv) > 3 else "configs/spackle/paper.toml"
rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
cores = len(os.sched_getaffinity(0))
ranks = [w for w in (1, 2, 4) if w <= cores]
cases = [(w, "exact") for w in ranks] + [(ranks[-1], "fast")]
if config.endswith("paper.toml"):
    shapes = [(8, 32), (16, 16)]
else:
    shapes = [(8, 32)]
seconds: dict = {}
for _ in range(rounds):
    for shape in shapes:
        for w, reduction in cases:
            with tempfile.TemporaryDirectory() as folder:
                sets = {
                    "train.max_steps": 30,
                    "train.validate_every": 1000,
                    "train.digest_every": 1000,
                    "train.reduction": reduction,
                    "train.lanes": shape[0],
                    "train.micro_batch": shape[1],
                    "checkpoint.every": 1000,
                    "log.every": 1000,
                }
                command = [binary, "train", config, "--shards", shards, "--run", f"{folder}/run", "--ranks", str(w)]
                for key, value in sets.items():
                    command += ["--set", f"{key}={value}"]
                subprocess.run(command, check=True, capture_output=True)
                lines = map(json.loads, Path(folder, "run/metrics.jsonl").read_text().splitlines())
                steps = [line["step_s"] for line in lines if line["kind"] == "train" and line["global_step"] > 5]
                seconds.setdefault((shape, w, reduction), []).extend(steps)
median = {case: statistics.median(values) for case, values in seconds.items()}
for (shape, w, reduction), value in median.items():
    alone = median[(shape, 1, "exact")]
    print(f"{shape[0]:>2} lanes × {shape[1]:<2} {w} ranks {reduction:<5} {1e3 * value:7.1f} ms  speed-up {alone / value:.2f}")
for shape in shapes:
    w = ranks[-1]
    print(f"{shape[0]} × {shape[1]}, {w} ranks: exact ÷ fast {median[(shape, w, 'exact')] / median[(shape, w, 'fast')]:.3f}")
