"""What a GPU is asked: each stage gives its lines, name → a call that returns whether it is ok, what was found, and what to keep.

A line may raise anything: its words are then the line's, and `NotHere` is no failure. `run.py` runs them.
"""

import json
import math
import os
import statistics
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

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

# Name, config, data, changes; and what `torch` calls it. As there, SPATIA has no picture from z_cell and no merged tokens.
SPEED = [
    ("SpaCKLE paper, 8 × 64", "spackle/paper", "spots", ["train.lanes=8", "train.micro_batch=64"], "spackle"),
    ("SPATIA small, 1 × 128", "spatia/small", "cells",
     ["train.lanes=1", "train.micro_batch=128", "model.spatia.vector_painter=false", "task.picture=0.0"], "cells"),
    ("generator small, 1 × 64", "spatia/g1-small", "cells",
     ["train.lanes=1", "train.micro_batch=64", "model.generator.dit.token_merging.ratio=0.0", "train.freeze_untrained=true"], "generate"),
]  # fmt: skip

PRODUCTS = ("f32", "tf32", "bf16")
# Peak dense TFLOP/s of each: f32 outside of tensor cores, the others on them (NVIDIA's data sheets).
PEAKS = {"H100": (67, 495, 989), "H200": (67, 495, 989), "A100": (19.5, 156, 312), "L40S": (91.6, 183, 362),
         "4090": (82.6, 82.6, 165), "V100": (15.7, None, None)}  # fmt: skip


SHARED = "NCCL_MULTI_RANK_GPU_ENABLE"


class NotHere(Exception):
    """This machine cannot answer; its argument is what was found instead."""


def doctor(bench):
    def machine():
        found = {what: line["found"] for what, line in bench.findings.items()}
        verdicts = {line["verdict"] for line in bench.findings.values()}
        if "warn" in verdicts and "fail" not in verdicts:
            raise NotHere(found)
        return verdicts == {"ok"}, found

    return {"machine": machine}


def operations(bench):
    def against_cores():
        device, lines = bench.operations
        own = {what: line for what, line in lines.items() if not of_nccl(what)}
        return all(line["ok"] for line in own.values()), {"device": device, **{w: figure(l["worst"]) for w, l in own.items()}}

    def one_rank():
        found = next((what for what in bench.operations[1] if of_nccl(what)), None)
        if found is None:
            raise NotHere("NCCL joins GPUs of CUDA")
        if "cannot be loaded" in found:
            raise NotHere(found)
        return bench.operations[1][found]["ok"], found

    return {"operations": against_cores, "NCCL, one rank": one_rank}


def of_nccl(what):
    return what.startswith("NCCL")


def figure(worst):
    """JSON has no infinity and no NaN: the program writes null."""
    return "no number" if worst is None else f"{worst:.1e}"


def parity(bench):
    def first_step(config, data, changes):
        where = words_of(bench, data)
        words = ["parity", config_of(bench, config), *where, *sets(changes), "--tolerance", TOLERANCE, "--on", bench.on]
        table = bench.table(*words, codes=(0, 6))
        step = table["step"]
        at = ", ".join(map(figure, step["at_points"]))
        found = f"terms {figure(step['terms'])}, gradients {at} ({step['parameter']})"
        # Its own lines; operations and NCCL are asked once, in `operations`.
        own = [line["ok"] for line in table["lines"] if line["what"].startswith(("loss terms", "gradients", "the device against"))]
        far = [f"{l['what']} {figure(l['worst'])}" for l in table["lines"] if not l["ok"] and not of_nccl(l["what"])]
        return len(own) >= 3 and all(own), "; ".join([found, *(f"beyond: {line}" for line in far)])

    return {name: partial(first_step, config, data, changes) for name, config, data, changes in MODELS}


def curve(bench):
    steps = 200

    def trained(config, data, device):
        changes = [f"train.device={device}", f"train.max_steps={steps}", f"train.validate_every={steps}", "log.every=1",
                   f"checkpoint.every={steps}", "train.lanes=2", "train.micro_batch=16"]  # fmt: skip
        losses = [line["loss"] for line in train(bench, config, data, changes)]
        return losses[-1] < losses[0] and len(losses) == steps, f"{losses[0]:.4f} → {losses[-1]:.4f}", {"losses": losses}

    def beside(name, config, data):
        cores = bench.kept("curve", f"{name}, cores")["losses"]
        ok, found, kept = trained(config, data, bench.on)
        apart = differences(cores, kept["losses"])
        # The same draws: rounding alone parts them, and grows with the steps.
        ok &= apart[0] <= TOLERANCE and statistics.fmean(apart[-20:]) <= 0.05
        return ok, f"{found}; apart {apart[0]:.1e} at the first step, at most {max(apart):.1e}", kept

    lines = {}
    for name, config, data in [("SpaCKLE", "spackle/tiny", "spots"), ("SPATIA", "spatia/tiny", "cells")]:
        lines[f"{name}, cores"] = partial(trained, config, data, "cpu")
        lines[f"{name}, GPU"] = partial(beside, name, config, data)
    return lines


def nccl(bench):
    two = ["launch", "-n", 2, "--"]
    always = [f"train.device={bench.on}", "log.every=1"]

    def losses(before, changes, env):
        changes = [*always, "train.max_steps=20", "train.lanes=2", "train.micro_batch=16", *changes]
        return [line["loss"] for line in train(bench, "spackle/tiny", "spots", changes, before, env)]

    def one():
        found = losses([], [], {})
        return True, f"{found[0]:.4f} → {found[-1]:.4f} in {len(found)} steps", {"losses": found}

    def apart(changes, limit):
        env = for_two(bench)
        alone = bench.kept("nccl", "one")["losses"]
        far = max(differences(alone, losses(two, changes, env)))
        return far <= limit, f"losses {far:.1e} apart from one process, at most {limit:.0e}"

    def timed(changes, against):
        env, steps = for_two(bench), 40
        after_backward = against and bench.kept("nccl", against)["found"]["step_ms"]
        changes = [*always, *for_speed(steps), "train.lanes=8", "train.micro_batch=64", *changes]
        found = {"step_ms": step_ms(train(bench, "spackle/paper", "spots", changes, two, env), steps), "one_gpu": SHARED in env}
        if against:
            found["times_as_fast"] = after_backward / found["step_ms"]
        return True, found

    # Where state lies on the GPU, sums are exact and all else is a function of shapes: the same bits.
    return {
        "one": one,
        "two": partial(apart, [], 0.0),
        "two, beside backward": partial(apart, ["train.overlap=true"], 0.0),
        "two, state on the host": partial(apart, ["train.keep=host"], 1e-3),
        "two, state on the host, beside backward": partial(apart, ["train.keep=host", "train.overlap=true"], 1e-3),
        "two, in bf16": partial(apart, ["train.reduction=fast_bf16"], 2e-2),
        "SpaCKLE paper, two": partial(timed, [], None),
        "SpaCKLE paper, two, beside backward": partial(timed, ["train.overlap=true"], "SpaCKLE paper, two"),
    }


def for_two(bench):
    """The environment that two processes with a GPU need here."""
    if bench.on != "cuda":
        raise NotHere("NCCL joins GPUs of CUDA")
    library, driver = bench.findings["NCCL"], bench.findings["driver library"]
    if library["verdict"] != "ok":
        raise NotHere(library["found"])
    if driver["found"].count("capability") >= 2:
        return {"NCCL_DEBUG": "WARN"}
    if "one rank per GPU" in library["found"]:
        raise NotHere(f"one GPU, and NCCL {library['found']}")
    return {SHARED: "1", "NCCL_MAX_CTAS": "4", "NCCL_DEBUG": "WARN"}


def speed(bench):
    steps = 40 if bench.on == "cuda" else 4

    def timed(config, data, changes, products):
        peak_of(bench, products)
        changes = [f"train.device={bench.on}", f"train.products={products}", "log.every=1", *for_speed(steps), *changes]
        where = words_of(bench, data)  # made before memory is watched
        with Watch() as watch:
            kept = train(bench, config, where, changes)
        return True, {"step_ms": step_ms(kept, steps), "peak_mib": watch.peak()}

    return {f"{name}, {products}": partial(timed, config, data, changes, products)
            for name, config, data, changes, _ in SPEED for products in PRODUCTS}  # fmt: skip


def torch(bench):
    def timed(config, data, changes, what, products, how):
        if not bench.torch:
            raise NotHere("no --torch PYTHON given")
        if bench.on == "wgpu":
            raise NotHere("PyTorch computes on CUDA or on the cores")
        peak = peak_of(bench, products)
        words = [bench.torch, *network(bench, config, data, changes, what), products, how, bench.on]
        with Watch() as watch:
            found = json.loads(bench.command(words).splitlines()[-1])
        return True, {**found, "peak_mib": watch.peak(), "share_of_peak": peak and found["tflops"] / peak}

    return {f"{name}, {products}, {how}": partial(timed, config, data, changes, what, products, how)
            for name, config, data, changes, what in SPEED for products in PRODUCTS for how in ("eager", "compiled")}  # fmt: skip


def network(bench, config, data, changes, what):
    """The words that start PyTorch's side of a network, but for products, how and device."""
    here = Path(__file__).resolve().parent
    if what == "spackle":
        genes = len(json.loads(Path(made(bench, data), "manifest.json").read_text())["panel"]["selected"])
        return [here / "torch_step.py", 8, 64, genes]
    if not bench.batches:
        raise NotHere("no --batches PROGRAM given: what a step of ours reads")
    shards = made(bench, data)

    def write(out):
        out.mkdir()
        words = [bench.batches, f"configs/{config}.toml", shards, out / "batches.safetensors", "data", *changes]
        said = json.loads(bench.command(words).splitlines()[-1])
        (out / "weights.json").write_text(json.dumps(said["weights"]))

    folder = bench.made(f"batches-{what}", write)
    return [here / "torch_network.py", what, folder / "batches.safetensors", (folder / "weights.json").read_text()]


def made(bench, name):
    """A folder of shards or vectors, or a run that they come from, made once."""
    cut = "shards/data/vis5a_cut.h5ad"

    def make(out):
        if name == "spots":
            bench.run("shard", cut, "--config", "configs/spackle/shard.toml", "--set", "split.kind=block", "--out", out)
        elif name == "hidden":
            bench.run("shard", cut, "--reference", cut, "--config", "configs/spotdiff/shard.toml", "--out", out)
        elif name == "spot-run":
            # What a run of SpotDiff pairs, and the configs of its stages as it resolved them.
            bench.run("train", "configs/spotdiff/tiny.toml", *words_of(bench, "hidden"), "--run", out,
                      *sets(["train.max_steps=2", "first.max_steps=2"]))  # fmt: skip
        elif name == "cells":
            cohort = out.with_name("cohort")
            bench.run("synth", "--cells", 2000, "--crop-px", 32, "--seed", 1, "--out", cohort)
            bench.run("shard", cohort, "--config", "configs/spatia/shard.toml", "--set", "process.crop_px=32", "--out", out)
        elif name == "cell-run":
            bench.run("train", "configs/spatia/tiny.toml", *words_of(bench, "cells"), "--run", out, *sets(["train.max_steps=4"]))
        elif name == "of-cells":
            bench.run("embed", made(bench, "cell-run"), *words_of(bench, "cells"), "--level", "cell", "--out", out)
        elif name == "niche-run":
            where = words_of(bench, "cells + of-cells")
            bench.run("train", "configs/spatia/tiny-niche.toml", *where, "--from", made(bench, "cell-run"), "--run", out,
                      *sets(["train.max_steps=4", *TINY]))  # fmt: skip
        elif name == "of-niches":
            bench.run("embed", made(bench, "niche-run"), *words_of(bench, "cells + of-cells"), "--level", "niche", "--out", out)
        else:
            raise KeyError(name)

    whole, _, inside = name.partition("/")
    return bench.made(name, make) if not inside else made(bench, whole) / inside


def config_of(bench, name):
    """A config of the project, or of a run of ours."""
    return bench.work / name[len("WORK/"):] / "config.toml" if name.startswith("WORK/") else f"configs/{name}.toml"  # fmt: skip


def words_of(bench, data):
    """`--shards` and `--vectors` of `cells + of-cells`."""
    first, *vectors = data.split(" + ")
    return ["--shards", made(bench, first), *(word for name in vectors for word in ("--vectors", made(bench, name)))]


def sets(changes):
    return [word for change in changes for word in ("--set", change)]


def train(bench, config, data, changes, before=(), env=None):
    """The lines of a training's steps, from a folder that nobody trained in."""
    where = words_of(bench, data) if isinstance(data, str) else data
    with bench.fresh() as run:
        bench.run(*before, "train", f"configs/{config}.toml", *where, "--run", run, *sets(changes), env=env)
        kept = map(json.loads, Path(run, "metrics.jsonl").read_text().splitlines())
        lines = [line for line in kept if line["kind"] == "train"]
        if not lines:
            raise RuntimeError(f"no step in {run}/metrics.jsonl")
        return lines


def for_speed(steps):
    return [f"train.max_steps={steps}", "train.validate_every=1000", "checkpoint.every=1000", "train.digest_every=1000"]


def step_ms(kept, steps):
    return 1e3 * statistics.median(line["step_s"] for line in kept if line["global_step"] > steps // 4)


def differences(ours, theirs):
    """Relative, of losses of as many steps."""
    if len(ours) != len(theirs):
        raise RuntimeError(f"losses of {len(ours)} and of {len(theirs)} steps")
    if not all(map(math.isfinite, [*ours, *theirs])):
        raise RuntimeError("a loss that is no number")
    return [abs(a - b) / abs(a) for a, b in zip(ours, theirs)]


def smi(what):
    """What nvidia-smi says of the first GPU that CUDA shows here; None where it says nothing."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    words = ["nvidia-smi", "-i", gpu, f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def peak_of(bench, products):
    """TFLOP/s that the GPU could do, None where nobody knows; raises where it has no such products."""
    name = smi("name") if bench.on == "cuda" else None
    known = next((peaks for key, peaks in PEAKS.items() if key in (name or "")), None)
    if products != "f32" and (bench.on != "cuda" or known and known[PRODUCTS.index(products)] is None):
        raise NotHere(f"no products in {products} on {name or bench.on}")
    return known and known[PRODUCTS.index(products)]


class Watch:
    """Peak memory of the GPU while it is open, less what was used before."""

    def __enter__(self):
        self.before, self.most, self.open = self.used(), None, True
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def used(self):
        said = smi("memory.used")
        return int(said) if said and said.isdigit() else None

    def look(self):
        while self.open:
            used = self.used()
            if used is not None:
                self.most = max(used, self.most or 0)
            time.sleep(0.2)

    def __exit__(self, *_):
        self.open = False
        self.thread.join()

    def peak(self):
        """MiB; None where nvidia-smi does not tell."""
        return None if self.before is None or self.most is None else self.most - self.before


STAGES = {f.__name__: f for f in (doctor, operations, parity, curve, nccl, speed, torch)}
