#!/usr/bin/env python3
"""What communication costs: our sums against the MPI library's own, how much of a slow network a step hides, and processes
against threads. Ratios of medians, everything compared runs in turn, because machines are noisy.

    benches/comm.py SYNCYTIA [--only reduce hidden ranks curve] [--quick] [--out comm.json]

SYNCYTIA is a build with `--features mpi`; the two programs in benches/comm are built here (CARGO_TARGET_DIR as usual).
As root, ranks run with real-time priority (`chrt -f 5`): on a shared machine nothing else gives numbers that repeat.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PRIORITY = ["chrt", "-f", "5"] if os.geteuid() == 0 and shutil.which("chrt") else []
KIB, MIB = 1 << 10, 1 << 20
SIZES = [(KIB, 200), (4 * KIB, 200), (16 * KIB, 200), (64 * KIB, 200), (256 * KIB, 100), (MIB, 100), (4 * MIB, 60),
         (16 * MIB, 30), (64 * MIB, 16), (256 * MIB, 8)]  # fmt: skip
HIDDEN = [(1, 16, 10), (1, 24, 10), (1, 32, 10), (1, 16, 25), (2, 24, 10)]  # ranks, micro_batch, Gb/s
WORLDS = (2, 3, 4)
ROUNDS = 6
REDUCTIONS = ("exact", "fast", "fast_bf16")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("syncytia", type=Path)
    parser.add_argument("--only", nargs="*", default=["reduce", "hidden", "ranks", "curve"])
    parser.add_argument("--quick", action="store_true", help="a quarter of the rounds")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    share = 4 if args.quick else 1
    found = {"priority": bool(PRIORITY), "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder, "shards")
        section = HERE / "shards/data/vis5a_cut.h5ad"
        run([args.syncytia, "shard", section, "--config", HERE / "configs/spackle/shard.toml", "--out", shards])
        programs = built() if {"reduce", "hidden"} & set(args.only) else {}
        if "reduce" in args.only:
            found["reduce"] = reduce(programs["reduce"], share)
        if "hidden" in args.only:
            found["hidden"] = hidden(programs["hidden"], shards, share)
        if "ranks" in args.only:
            found["ranks"] = ranks(args.syncytia, shards, share)
        if "curve" in args.only:
            found["curve"] = curve(args.syncytia, shards, share)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


def run(command, **options):
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nexit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def built():
    command = ["cargo", "build", "--release", "--features", "mpi", "--bench", "reduce", "--bench", "hidden"]
    lines = run([*command, "--message-format", "json"], cwd=HERE).splitlines()
    messages = [json.loads(line) for line in lines if line.startswith("{")]
    return {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}


def mpirun(n, words):
    """The mpirun of the library that SYNCYTIA was built for is the one to have on PATH."""
    open_mpi = "Open MPI" in run(["mpirun", "--version"]) or "OpenRTE" in run(["mpirun", "--version"])
    options = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"] if open_mpi else []
    return ["mpirun", *options, "-n", n, *PRIORITY, *words]


def reduce(program, share):
    """Ours ÷ the best of the library's forms. The best is chosen on the even rounds and judged on the odd ones: the
    smallest of eight noisy medians would be too small."""
    rows = []
    for size, rounds in SIZES:
        lines = [json.loads(line) for line in run(mpirun(2, [program, max(4, rounds // share), size])).splitlines()]
        library = lines[0]["library"]
        for sum_ in ("i64", "converted", "f32", "bf16"):
            seconds = {line["form"]: line["seconds"] for line in lines[1:] if line["sum"] == sum_}
            own, copy = seconds.pop("ours"), seconds.pop("memcpy", None)
            best = min(seconds, key=lambda form: statistics.median(seconds[form][::2]))
            median = {form: statistics.median(s) for form, s in seconds.items()}
            theirs, ours = statistics.median(seconds[best][1::2]), statistics.median(own[1::2])
            rows.append({"sum": sum_, "bytes": size, "ours_s": statistics.median(own), "best_s": theirs, "best": best,
                         "speed": theirs / ours, "memcpy_s": copy and statistics.median(copy), "forms": median})  # fmt: skip
    print(f"\n{library}, 2 ranks: speed of ours ÷ the library's best (time in brackets), and ÷ memcpy")
    for row in rows:
        name = f"{row['bytes'] // KIB} KiB" if row["bytes"] < MIB else f"{row['bytes'] // MIB} MiB"
        copy = f"  memcpy {row['memcpy_s'] / row['ours_s']:.2f}" if row["memcpy_s"] else ""
        print(f"{row['sum']:<10} {name:>8} {row['speed']:5.2f}  ({1e6 * row['ours_s']:9.1f} µs; {1e6 * row['best_s']:9.1f} µs"
              f" {row['best']}){copy}", flush=True)  # fmt: skip
    return {"library": library, "rows": rows}


def hidden(program, shards, share):
    """1 − (step − compute) ÷ the network alone; compute is the same step on a network that takes no time. Steps of two
    thirds of a second on a shared machine differ by more than what is to be seen, so beside it stands the same of what was
    left to do when backward had ended: all that a network can add."""
    print("\nhidden share of a slow network (SpaCKLE d = 1024, 3 layers, one kernel thread, 50 µs per operation)")
    rows = []
    for ranks_, micro_batch, gbits in HIDDEN:
        words = [program, shards, ranks_, micro_batch, gbits, max(3, 18 // share)]
        row = json.loads(run([*PRIORITY, *words]))
        median = {key: statistics.median(s) for key, s in row.items() if isinstance(s, list)}
        added = lambda a, b: statistics.median(x - y for x, y in zip(row[a], row[b]))  # noqa: E731
        row["hidden"] = 1 - added("left_networked", "left_beside") / row["alone"]
        row["hidden_by_steps"] = 1 - added("networked", "beside") / row["alone"]
        rows.append(row)
        print(f"{ranks_} rank(s), micro_batch {micro_batch:>2}, {gbits} Gb/s: hidden {100 * row['hidden']:.0f} % (by whole steps"
              f" {100 * row['hidden_by_steps']:.0f} %); step {1e3 * median['networked']:.0f} ms, compute"
              f" {1e3 * median['beside']:.0f} (sums at the end {1e3 * median['plain']:.0f}), network alone"
              f" {1e3 * row['alone']:.0f} in {row['operations']} operations, left after backward"
              f" {1e3 * median['left_networked']:.0f}; {row['parameters'] / 1e6:.1f} M parameters", flush=True)  # fmt: skip
    return rows


def ranks(syncytia, shards, share):
    """Step time with W processes ÷ with W thread-ranks, one kernel thread each: the median over rounds of the ratio of
    medians, as what else the machine does changes from round to round."""
    print("\nprocesses ÷ thread-ranks, paper.toml, one kernel thread per rank")
    worlds = [w for w in WORLDS if w <= len(os.sched_getaffinity(0))]
    median, rows = {}, []
    for k in range(max(1, ROUNDS // share)):
        for w in worlds:
            for way in ("threads", "mpi")[:: -1 if k % 2 else 1]:
                median.setdefault((w, way), []).append(statistics.median(steps(syncytia, shards, w, way)))
    for w in worlds:
        threads, mpi = median[(w, "threads")], median[(w, "mpi")]
        ratios = sorted(a / b for a, b in zip(mpi, threads))
        rows.append({"ranks": w, "threads_s": threads, "mpi_s": mpi, "ratios": ratios})
        print(f"{w} ranks: {statistics.median(ratios):.3f}, {ratios[0]:.3f} to {ratios[-1]:.3f} in {len(ratios)} rounds "
              f"({1e3 * statistics.median(mpi):.1f} ms; {1e3 * statistics.median(threads):.1f} ms)", flush=True)  # fmt: skip
    return rows


def steps(syncytia, shards, w, way):
    with tempfile.TemporaryDirectory() as folder:
        config = HERE / "configs/spackle/paper.toml"
        command = [syncytia, "train", config, "--shards", shards, "--run", f"{folder}/run"]
        sets = {"train.max_steps": 45, "train.validate_every": 1000, "train.digest_every": 1000, "train.threads": 1,
                "train.lanes": 2 * w, "checkpoint.every": 1000, "log.every": 1000}  # fmt: skip
        for key, value in sets.items():
            command += ["--set", f"{key}={value}"]
        run([*PRIORITY, *command, "--ranks", w] if way == "threads" else mpirun(w, command))
        lines = map(json.loads, Path(folder, "run/metrics.jsonl").read_text().splitlines())
        return [line["step_s"] for line in lines if line["kind"] == "train" and line["global_step"] > 5]


def curve(syncytia, shards, share):
    """200 steps of tiny.toml on four ranks, with sums of every precision and several seeds: how far the loss is from that of
    exact sums of the same seed, against how far seeds are from each other. Mean of the last 50 steps, and validation."""
    seeds = range(1, 1 + max(2, 8 // share))
    ends = {(way, seed): ended(syncytia, shards, way, seed) for seed in seeds for way in REDUCTIONS}
    print("\nloss after 200 steps (tiny.toml, 4 ranks): relative distance from exact sums of the same seed; seeds apart")
    rows = []
    for k, what in enumerate(("loss, last 50 steps", "validation")):
        exact = [ends[("exact", seed)][k] for seed in seeds]
        mean = statistics.fmean(exact)
        row = {"what": what, "exact": exact, "seeds_apart": statistics.stdev(exact) / mean}
        for way in REDUCTIONS[1:]:
            row[way] = [ends[(way, seed)][k] / ends[("exact", seed)][k] - 1 for seed in seeds]
        rows.append(row)
        said = ", ".join(f"{way} {statistics.fmean(row[way]):+.1e} ± {statistics.stdev(row[way]):.1e}" for way in REDUCTIONS[1:])
        print(f"{what}: exact {mean:.5f}; {said}; seeds ± {row['seeds_apart']:.1e} ({len(seeds)} of them)", flush=True)
    return rows


def ended(syncytia, shards, way, seed):
    with tempfile.TemporaryDirectory() as folder:
        command = [syncytia, "train", HERE / "configs/spackle/tiny.toml", "--shards", shards, "--run", f"{folder}/run", "--ranks", 4]
        sets = {"train.reduction": way, "train.seed": seed, "train.max_steps": 200, "train.validate_every": 200, "log.every": 200}
        for key, value in sets.items():
            command += ["--set", f"{key}={value}"]
        run(command)
        lines = [json.loads(line) for line in Path(folder, "run/metrics.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in lines if line["kind"] == "train"]
        (val,) = [line for line in lines if line["kind"] == "val"]
        return statistics.fmean(losses[-50:]), val["mse"]


main()
