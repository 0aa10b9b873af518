#!/usr/bin/env python3
"""Seconds from the start of the process to the first step's line, on existing shards; and how much of it is the step.

Usage: benches/start.py SYNCYTIA SHARDS [CONFIG] [RANKS] [ROUNDS]
"""

import statistics
import subprocess
import sys
import tempfile
import time

binary, shards = sys.argv[1:3]
config = sys.argv[3] if len(sys.argv) > 3 else "configs/spackle/paper.toml"
ranks = sys.argv[4] if len(sys.argv) > 4 else "2"
rounds = int(sys.argv[5]) if len(sys.argv) > 5 else 5
firsts, seconds = [], []
for _ in range(rounds):
    with tempfile.TemporaryDirectory() as folder:
        sets = {"train.max_steps": 2, "log.every": 1}
        command = [binary, "train", config, "--shards", shards, "--run", f"{folder}/run", "--ranks", ranks]
        for key, value in sets.items():
            command += ["--set", f"{key}={value}"]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines = [(time.perf_counter() - start, line) for line in process.stdout if line.startswith("step ")]
        if process.wait() != 0 or len(lines) < 2:
            sys.exit(f"the run failed: {command}")
        firsts.append(lines[0][0])
        seconds.append(lines[1][0] - lines[0][0])
first, second = statistics.median(firsts), statistics.median(seconds)
print(f"start to first step {first:.2f} s (of {rounds}; the second step took {second:.2f} s)")
