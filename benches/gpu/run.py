#!/usr/bin/env python3
"""All that a GPU is asked, in stages of at most ten minutes each, on data that the script makes itself.

    benches/gpu/run.py PROGRAM [--out gpu.json] [--stage NAME ...] [--torch PYTHON] [--batches PROGRAM] [--work DIR] [--on cpu]

PROGRAM is a build with `cuda` (`benches/gpu/release.sh` packs one with this script). A stage that was run is read from the JSON
and not run again unless it is named; what fails is a line of the table and no end. Needs Python 3.9 and nothing else; with
`--torch`, a Python that has PyTorch with CUDA for the stage `torch`; `--batches`, if it is not beside PROGRAM, is the bench program
`step_batches`, which gives PyTorch the batches of ours. `--on cpu` puts the cores on both sides: it shows that the
script works, on any machine and with any build, and says nothing of a GPU (the JSON has which it was). `--on wgpu` (a build with
`wgpu`) runs what a GPU runs on a driver of Vulkan, also on one in software.

    doctor      what the machine has
    operations  our operations, dropout's and the exact sums' integers, one NCCL rank: GPU against cores
    parity      every model's first step: loss terms and gradients, GPU against cores, at most 1e-4
    curve       200 steps of SpaCKLE and of SPATIA on the GPU beside the cores'
    nccl        two processes on one GPU (where NCCL has that): the same losses as one process; beside backward, and in bf16
    speed       step time, peak memory, share of the GPU's peak: SpaCKLE `paper`, SPATIA and its generator, f32, TF32 and bf16
    torch       the same networks in PyTorch, eager and compiled
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 600
TOLERANCE = 1e-4

# A new model adds its line: name, config, data, changes.
TINY = ["train.lanes=2", "train.micro_batch=8"]
MODELS = [
    ("SpaCKLE tiny", "spackle/tiny", "spots", TINY),
    ("SpaCKLE paper", "spackle/paper", "spots", TINY),
    ("SpaCKLE best", "spackle/best", "spots", TINY),
    ("SPATIA cells", "spatia/tiny", "cells", TINY),
    ("SPATIA niches", "spatia/tiny-niche", "cells + of-cells", TINY),
    ("SPATIA tissues", "spatia/tiny-tissue", "cells + of-niches", ["train.lanes=1", "train.micro_batch=4"]),
    ("SPATIA fusion", "spatia/tiny-fusion", "cells + of-cells + of-niches", TINY),
    ("generator", "spatia/g1-tiny", "cells", TINY),
    ("SpotDiff, alignment", "WORK/spot-run/omega", "hidden + spot-run/pairs-omega/spots", []),
    ("SpotDiff, imputation", "WORK/spot-run", "hidden + spot-run/pairs/spots", []),
]

PRODUCTS = ("f32", "tf32", "bf16")
# Peak dense TFLOP/s of each: f32 outside of tensor cores, the others on them (NVIDIA's data sheets).
PEAKS = {"H100": (67, 495, 989), "H200": (67, 495, 989), "A100": (19.5, 156, 312), "L40S": (91.6, 183, 362),
         "4090": (82.6, 82.6, 165), "V100": (15.7, None, None)}  # fmt: skip


class Bench:
    def __init__(self, program, out, work, torch, batches, on):
        self.program, self.out, self.torch, self.batches, self.on = str(Path(program).resolve()), Path(out), torch, batches, on
        self.work = Path(work or tempfile.mkdtemp(prefix="gpu-bench-")).resolve()
        self.work.mkdir(parents=True, exist_ok=True)
        self.found = json.loads(self.out.read_text()) if self.out.exists() else {}

    def run(self, *words, env=None, codes=(0,)):
        """One command of the program; its stdout."""
        began = time.monotonic()
        done = subprocess.run(
            [self.program, *map(str, words)], cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True,
            timeout=LIMIT_S,
        )  # fmt: skip
        if done.returncode not in codes:
            said = " | ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])
            raise RuntimeError(f"{' '.join(map(str, words[:2]))} ended with {done.returncode}: {said}")
        print(f"      {' '.join(map(str, words))[:100]}  ({time.monotonic() - began:.0f} s)", file=sys.stderr)
        return done.stdout

    def data(self, name):
        """A folder of shards or vectors, made once."""
        folder = self.work / name
        if folder.exists():
            return folder
        cut = "shards/data/vis5a_cut.h5ad"
        if name == "spots":
            self.run("shard", cut, "--config", "configs/spackle/shard.toml", "--set", "split.kind=block",
                     "--out", folder)  # fmt: skip
        elif name == "hidden":
            self.run("shard", cut, "--reference", cut, "--config", "configs/spotdiff/shard.toml", "--out", folder)
        elif name.startswith("spot-run"):
            # What a run of SpotDiff pairs, and the configs of its stages as it resolved them.
            self.run("train", "configs/spotdiff/tiny.toml", "--shards", self.data("hidden"), "--run", self.work / "spot-run",
                     *sets(["train.max_steps=2", "first.max_steps=2"]))  # fmt: skip
        elif name == "cells":
            self.run("synth", "--cells", 2000, "--crop-px", 32, "--seed", 1, "--out", self.work / "cohort")
            self.run("shard", self.work / "cohort", "--config", "configs/spatia/shard.toml", "--set", "process.crop_px=32",
                     "--out", folder)  # fmt: skip
        elif name == "of-cells":
            shards = self.data("cells")
            run = self.work / "cell-run"
            self.run("train", "configs/spatia/tiny.toml", "--shards", shards, "--run", run, *sets(["train.max_steps=4"]))
            self.run("embed", run, "--shards", shards, "--level", "cell", "--out", folder)
        elif name == "of-niches":
            shards, cells, run = self.data("cells"), self.data("of-cells"), self.work / "niche-run"
            where = ["--shards", shards, "--vectors", cells]
            self.run("train", "configs/spatia/tiny-niche.toml", *where, "--from", self.work / "cell-run", "--run", run,
                     *sets(["train.max_steps=4", "train.lanes=2", "train.micro_batch=8"]))  # fmt: skip
            self.run("embed", run, *where, "--level", "niche", "--out", folder)
        return folder

    def config(self, name):
        """A config of the project, or of a run of ours."""
        return self.work / name.removeprefix("WORK/") / "config.toml" if name.startswith("WORK/") else f"configs/{name}.toml"

    def where(self, data):
        """`--shards` and `--vectors` of `cells + of-cells`."""
        first, *vectors = data.split(" + ")
        words = ["--shards", self.data(first)]
        for name in vectors:
            words += ["--vectors", self.data(name)]
        return words

    def keep(self, stage, result):
        self.found[stage] = result
        self.out.write_text(json.dumps(self.found, indent=1))


def sets(changes):
    return [word for change in changes for word in ("--set", change)]


def doctor(bench):
    table = json.loads(bench.run("doctor", "--json", codes=(0, 2, 3, 7)))
    lines = [line for line in table["findings"] if line["area"] in ("devices", "gpu")]
    return {"ok": all(l["verdict"] == "ok" for l in lines), "lines": {l["what"]: l["found"] for l in lines}}


def operations(bench):
    table = json.loads(bench.run("parity", "--on", bench.on, "--json", codes=(0, 6)))
    return {"ok": table["ok"], "device": table["device"], "lines": {l["what"]: l["worst"] for l in table["lines"]}}


def parity(bench):
    lines, ok = {}, True
    for name, config, data, changes in MODELS:
        try:
            where = bench.where(data)
            words = ["parity", bench.config(config), *where, *sets(changes), "--tolerance", TOLERANCE, "--on", bench.on, "--json"]
            table = json.loads(bench.run(*words, codes=(0, 6)))
            step = table["step"]
            at = ", ".join(f"{worst:.1e}" for worst in step["at_points"])
            lines[name] = f"terms {step['terms']:.1e}, gradients {at} ({step['parameter']})"
            ok &= table["ok"]
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            lines[name], ok = str(error), False
    return {"ok": ok, "lines": lines}


def losses(run):
    lines = map(json.loads, Path(run, "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]


def curve(bench):
    lines, ok = {}, True
    for name, config, data in [("SpaCKLE", "spackle/tiny", "spots"), ("SPATIA", "spatia/tiny", "cells")]:
        try:
            curves = {}
            for side, device in (("cpu", "cpu"), ("cuda", bench.on)):
                run = bench.work / f"curve-{name}-{side}"
                changes = [f"train.device={device}", "train.max_steps=200", "train.validate_every=200", "log.every=1",
                           "checkpoint.every=200", "train.lanes=2", "train.micro_batch=16"]  # fmt: skip
                bench.run("train", f"configs/{config}.toml", *bench.where(data), "--run", run, *sets(changes))
                curves[side] = losses(run)
            apart = [abs(a - b) / abs(a) for a, b in zip(curves["cpu"], curves["cuda"])]
            fell = curves["cuda"][-1] < curves["cuda"][0]
            lines[name] = f"cores {curves['cpu'][0]:.4f} → {curves['cpu'][-1]:.4f}, GPU → {curves['cuda'][-1]:.4f}; " \
                          f"apart {apart[0]:.1e} at the first step, at most {max(apart):.1e}"  # fmt: skip
            # The same draws: rounding alone parts them, and grows with the steps.
            ok &= fell and apart[0] <= TOLERANCE and len(apart) == 200 and statistics.fmean(apart[-20:]) <= 0.05
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            lines[name], ok = str(error)[:200], False
    return {"ok": ok, "lines": lines}


def nccl(bench):
    where, found = bench.where("spots"), {}
    changes = [f"train.device={bench.on}", "train.max_steps=20", "log.every=1", "train.lanes=2", "train.micro_batch=16"]
    two = ["launch", "-n", 2, "--"]
    ways = {
        "one": ([], []),
        "two": (two, []),
        "two, beside backward": (two, ["train.overlap=true"]),
        "two, state on the host": (two, ["train.keep=host"]),
        "two, state on the host, beside backward": (two, ["train.keep=host", "train.overlap=true"]),
        "two, in bf16": (two, ["train.reduction=fast_bf16"]),
    }
    for name, (words, more) in ways.items():
        run = bench.work / f"nccl-{name.replace(', ', '-').replace(' ', '-')}"
        env = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_MAX_CTAS": "4", "NCCL_DEBUG": "WARN"}
        bench.run(*words, "train", "configs/spackle/tiny.toml", *where, "--run", run, *sets(changes + more), env=env)
        found[name] = losses(run)
    apart = {name: max(abs(a - b) / abs(a) for a, b in zip(found["one"], found[name])) for name in list(ways)[1:]}
    # Where state lies on the GPU, sums are exact and all else is a function of shapes: the same bits.
    limits = {name: 0.0 if name in ("two", "two, beside backward") else 2e-2 if "bf16" in name else 1e-3 for name in apart}
    lines = {f"{name}: losses of 20 steps against one process": f"{far:.1e} apart" for name, far in apart.items()}
    return {"ok": all(far <= limits[name] for name, far in apart.items()), "lines": lines}


class Watch:
    """Peak memory of the GPU while it is open, MiB, less what was used before."""

    def __enter__(self):
        self.before, self.peak, self.open = self.used(), 0, True
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def used(self):
        try:
            said = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True,
                                  text=True).stdout  # fmt: skip
            return int(said.split()[0])
        except (OSError, ValueError, IndexError):
            return 0

    def look(self):
        while self.open:
            self.peak = max(self.peak, self.used() - self.before)
            time.sleep(0.2)

    def __exit__(self, *_):
        self.open = False
        self.thread.join()


def gpu_peak(products):
    """TFLOP/s that the first GPU could do."""
    try:
        name = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True).stdout
    except OSError:
        return None
    known = next((peaks for key, peaks in PEAKS.items() if key in name), (None,) * 3)
    return known[PRODUCTS.index(products)]


# Name, config, data, changes; and what `torch` calls it. As there, SPATIA has no picture from z_cell and no merged tokens.
SPEED = [
    ("SpaCKLE paper, 8 × 64", "spackle/paper", "spots", ["train.lanes=8", "train.micro_batch=64"], "spackle"),
    ("SPATIA small, 1 × 128", "spatia/small", "cells",
     ["train.lanes=1", "train.micro_batch=128", "model.spatia.vector_painter=false", "task.picture=0.0"], "cells"),
    ("generator small, 1 × 64", "spatia/g1-small", "cells",
     ["train.lanes=1", "train.micro_batch=64", "model.generator.dit.token_merging.ratio=0.0", "train.freeze_untrained=true"], "generate"),
]  # fmt: skip


def speed(bench):
    lines, steps = {}, 40
    for name, config, data, changes, _ in SPEED:
        for products in PRODUCTS:
            run = bench.work / f"speed-{config.replace('/', '-')}-{products}-{time.time_ns()}"
            always = [f"train.device={bench.on}", f"train.products={products}", f"train.max_steps={steps}", "log.every=1",
                      "train.validate_every=1000", "checkpoint.every=1000", "train.digest_every=1000"]  # fmt: skip
            try:
                with Watch() as watch:
                    bench.run("train", f"configs/{config}.toml", *bench.where(data), "--run", run, *sets(always + changes))
                kept = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
                took = [line["step_s"] for line in kept if line["kind"] == "train" and line["global_step"] > steps // 4]
                lines[f"{name}, {products}"] = {"step_ms": 1e3 * statistics.median(took), "peak_mib": watch.peak}
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                lines[f"{name}, {products}"] = str(error)
    return {"ok": all(isinstance(line, dict) for line in lines.values()), "lines": lines}


def torch(bench):
    if not bench.torch:
        return {"ok": False, "lines": {"": "no --torch PYTHON given"}}
    lines = {}
    for name, config, data, changes, what in SPEED:
        try:
            words = network(bench, config, data, changes, what)
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            lines[name] = str(error)
            continue
        for products in PRODUCTS:
            for how in ("eager", "compiled"):
                lines[f"{name}, {products}, {how}"] = one = timed(bench, [*words, products, how])
                ours, peak = bench.found.get("speed", {}).get("lines", {}).get(f"{name}, {products}"), gpu_peak(products)
                if not isinstance(one, dict):
                    continue
                one["share_of_peak"] = one["tflops"] / peak if peak else None
                if isinstance(ours, dict):
                    ours["pytorch_ms_over_ours"] = {**ours.get("pytorch_ms_over_ours", {}), how: one["step_ms"] / ours["step_ms"]}
                    if peak:
                        ours["share_of_peak"] = one["flops"] / (ours["step_ms"] / 1e3) / 1e12 / peak
    return {"ok": all(isinstance(line, dict) for line in lines.values()), "lines": lines}


def network(bench, config, data, changes, what):
    """The words that start PyTorch's side of a network, but for products and how."""
    here = Path(__file__).parent
    if what == "spackle":
        genes = len(json.loads(Path(bench.data(data), "manifest.json").read_text())["panel"]["selected"])
        return [bench.torch, str(here / "torch_step.py"), "8", "64", str(genes)]
    if not bench.batches:
        raise RuntimeError("no --batches PROGRAM given: what a step of ours reads")
    path = bench.work / f"{what}.safetensors"
    words = [bench.batches, f"configs/{config}.toml", str(bench.data(data)), str(path), "data", *changes]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1])
    weights = json.loads(done.stdout.splitlines()[-1])["weights"]
    return [bench.torch, str(here / "torch_network.py"), what, str(path), json.dumps(weights)]


def timed(bench, words):
    """What PyTorch's side says, with the same peak memory as ours: that of the device while the process lives."""
    on = ["cpu"] if bench.on == "cpu" and "torch_network" in words[1] else []
    try:
        with Watch() as watch:
            done = subprocess.run([*words, *on], capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        return str(error)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no word"])[-1]
    return {**json.loads(done.stdout.splitlines()[-1]), "peak_mib": watch.peak}


STAGES = {f.__name__: f for f in (doctor, operations, parity, curve, nccl, speed, torch)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--out", default="gpu.json")
    parser.add_argument("--stage", action="append", choices=STAGES)
    parser.add_argument("--torch", metavar="PYTHON")
    parser.add_argument("--batches", metavar="PROGRAM")
    parser.add_argument("--work")
    parser.add_argument("--on", default="cuda", choices=("cuda", "wgpu", "cpu"))
    args = parser.parse_args()
    beside = Path(args.program).resolve().parent / "step_batches"
    batches = args.batches or (str(beside) if beside.exists() else None)
    bench = Bench(args.program, args.out, args.work, args.torch, batches and str(Path(batches).resolve()), args.on)
    for name in args.stage or [name for name in STAGES if name not in bench.found]:
        began = time.monotonic()
        print(f"== {name}", file=sys.stderr)
        try:
            result = STAGES[name](bench)
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            result = {"ok": False, "lines": {"": f"{type(error).__name__}: {error}"}}
        bench.keep(name, {**result, "on": args.on, "took_s": round(time.monotonic() - began, 1)})
    for name, result in bench.found.items():
        print(f"{'ok  ' if result['ok'] else 'FAIL'} {name} ({result['took_s']} s)")
        for what, value in result["lines"].items():
            print(f"       {what:<42} {value}")
    sys.exit(0 if all(result["ok"] for result in bench.found.values()) else 1)


main()
