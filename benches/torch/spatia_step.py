#!/usr/bin/env python3
"""A training step of SPATIA small against the same network and global batch in PyTorch, interleaved in one run: PyTorch ÷ ours.

    benches/torch/spatia_step.py SYNCYTIA BATCHES SHARDS [--what cells generate] [--cores 4 1] [--rounds N] [--out FILE]

SYNCYTIA is the program, BATCHES the bench program `spatia_batches` (cargo build --release --bench spatia_batches), SHARDS a folder
made of `benches/cohort.py`. `cells`: the encoder's first stage, configs/spatia/small.toml, 256 cells a step, contrast over the step.
`generate`: the diffusion transformer, g1-small.toml without token merging, 128 cells a step.

First both sides compute the loss and the gradient's norm of one step from one set of weights without dropout; they must
agree to 1e-4 or nothing is timed. A step is forward, backward, clip, AdamW, EMA, dropout .1. Ours: `train`, one rank per core,
decoding and drawing of its batches included. PyTorch: batches that lie ready, that many threads, eager and compiled,
the batch whole and in the lanes of ours (`cells`: with the contrast inside a lane only, which is less work). A round runs all
of them in turn; ratios are of a round, its best PyTorch over our best; medians over rounds. Warm-up steps do not count. As root both sides run with
real-time priority: on a shared machine nothing else gives figures that repeat.
Peak memory is the whole process's.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
CONFIGS = {"cells": "configs/spatia/small.toml", "generate": "configs/spatia/g1-small.toml"}
# The picture from z_cell is left out on both sides: PyTorch's network here has no such term.
SETS = {"cells": {"model.spatia.vector_painter": "false", "task.picture": 0.0}, "generate": {"model.generator.dit.token_merging.ratio": 0.0, "train.freeze_untrained": "true"}}
PLAIN = {"cells": {"model.spatia.dropout": 0.0}, "generate": {}}
SHAPES = {"cells": [(8, 32), (16, 16)], "generate": [(8, 16), (16, 8)]}
MOST_BYTES = 12 << 30  # of a PyTorch process: the whole batch at once asks for more than a shared machine has
FEW = {"train.lanes": 2, "train.micro_batch": 4}  # to compare losses
STEPS = {"cells": (3, 2), "generate": (1, 1)}  # that count, that warm up


def load(path, merged):
    """Parameters, and the lanes' batches, as one where `merged`."""
    import torch
    from safetensors.torch import load_file

    parameters, lanes = {}, {}
    for name, tensor in load_file(path).items():
        of, _, name = name.partition(".")
        (parameters if of == "model" else lanes.setdefault(int(of), {}))[name] = tensor
    lanes = [lanes[i] for i in sorted(lanes)]
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
    return parameters, lanes


def network(what, parameters, sets):
    import spatia
    import torch

    whole = tomllib.loads((HERE / CONFIGS[what]).read_text())
    config = whole["model"]["spatia" if what == "cells" else "generator"]
    if "model.spatia.dropout" in sets:
        config["dropout"] = sets["model.spatia.dropout"]
    table = next(t for n, t in parameters.items() if n.endswith("table"))
    with torch.device("cpu"):
        genes = len(table) - 1
        model = spatia.Spatia(config, genes, whole["task"]["contrast"]) if what == "cells" else spatia.Generator(config, genes)
    model.load_state_dict(parameters)  # the same names and shapes, all of them
    return model.train()


def parity(what, path, said):
    import torch

    parameters, lanes = load(path, True)
    model = network(what, parameters, PLAIN[what])
    loss, terms = model(lanes[0], said["weights"])
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    theirs = {"loss": loss.item(), "gradient_norm": norm.item(), **dict(zip(said["terms_order"], [t.item() for t in terms]))}
    ours = {"loss": said["loss"], "gradient_norm": said["gradient_norm"], **said["terms"]}
    found = {"parameters": sum(p.numel() for p in model.parameters()), "ours": ours, "theirs": theirs}
    found["worst"] = max(abs(ours[k] - v) / max(abs(v), 1e-3) for k, v in theirs.items())
    return found


def torch_steps(what, path, merged, threads, compiled, weights):
    import torch

    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    parameters, lanes = load(path, merged)
    model = network(what, parameters, {})
    trained = [p for p in model.parameters() if p.requires_grad]
    optim = tomllib.loads((HERE / CONFIGS[what]).read_text())["optim"]
    betas = optim.get("betas", [0.9, 0.999])
    optimizer = torch.optim.AdamW(trained, lr=optim["lr"], betas=betas, weight_decay=optim["weight_decay"], fused=True)
    average = [p.detach().clone() for p in trained]
    run = torch.compile(model) if compiled else model
    seconds = []
    steps, warm_up = STEPS[what]
    for _ in range(warm_up + steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        for lane in lanes:
            loss, _ = run(lane, weights)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, optim["clip_norm"])
        optimizer.step()
        torch._foreach_lerp_(average, [p.detach() for p in trained], 1 - optim["ema"])
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds[warm_up:], "peak_mb": peak / 1024}))


PRIORITY = ["chrt", "-r", "1"] if os.geteuid() == 0 and shutil.which("chrt") else []


def pinned(cores):
    return PRIORITY + ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))]


def ours(binary, shards, what, lanes, micro_batch, cores):
    steps, warm_up = STEPS[what]
    with tempfile.TemporaryDirectory() as folder:
        sets = SETS[what] | {
            "train.lanes": lanes, "train.micro_batch": micro_batch, "train.ranks": min(cores, lanes), "train.threads": 1,
            "train.max_steps": warm_up + steps, "train.validate_every": 1000, "train.digest_every": 1000,
            "checkpoint.every": 1000, "log.every": 1000,
        }  # fmt: skip
        command = pinned(cores) + [binary, "train", str(HERE / CONFIGS[what]), "--shards", shards, "--run", f"{folder}/run"]
        for key, value in sets.items():
            command += ["--set", f"{key}={value}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        complaint = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, (command, complaint)
        lines = map(json.loads, Path(folder, "run/metrics.jsonl").read_text().splitlines())
        seconds = [l["step_s"] for l in lines if l["kind"] == "train" and l["global_step"] > warm_up]
    return {"seconds": seconds, "peak_mb": usage.ru_maxrss / 1024}


def theirs(what, path, merged, cores, compiled, weights):
    words = [what, path, int(merged), cores, int(compiled), json.dumps(weights)]
    command = pinned(cores) + [sys.executable, __file__, "--torch", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:]}
    return json.loads(done.stdout.splitlines()[-1])


def measure(args, what, folder):
    order = ["denoise", "mvc", "dissimilarity", "reconstruction", "contrast"] if what == "cells" else ["flow"]
    path = f"{folder}/{what}.safetensors"

    def batches(of, sets):
        words = PRIORITY + [args.batches, HERE / CONFIGS[what], args.shards, path, of]
        words += [f"{key}={value}" for key, value in (SETS[what] | sets).items()]
        return json.loads(subprocess.run([str(w) for w in words], check=True, capture_output=True, text=True).stdout)

    said = batches("step", PLAIN[what] | FEW)
    same = parity(what, path, said | {"terms_order": order})
    print(json.dumps({what: same, "said": {"parameters": said["parameters"], "trained": said["trained"]}}, indent=1), flush=True)
    assert same["parameters"] == said["parameters"] and same["worst"] < 1e-4, "not the same network"
    weights = batches("data", {})["weights"]
    found = {}
    for number in range(args.rounds):
        for cores in args.cores:
            times = {}
            for lanes, micro_batch in SHAPES[what]:
                times[f"syncytia {lanes} × {micro_batch}"] = ours(args.syncytia, args.shards, what, lanes, micro_batch, cores)
            for merged in (True, False):
                lanes, micro_batch = SHAPES[what][0]
                shape = f"1 × {lanes * micro_batch}" if merged else f"{lanes} × {micro_batch}"
                for name, compiled in (("eager", False), ("compiled", True)):
                    if name in args.torch:
                        times[f"PyTorch {name} {shape}"] = theirs(what, path, merged, cores, compiled, weights)
            for name, one in times.items():
                if "failed" in one:
                    print(f"{what} {cores} cores {name}: did not run: {one['failed']}", flush=True)
                    continue
                found.setdefault((cores, name), []).append((statistics.median(one["seconds"]), one["peak_mb"]))
            ran = {name: statistics.median(one["seconds"]) for name, one in times.items() if "failed" not in one}
            best = lambda who: min(seconds for name, seconds in ran.items() if name.startswith(who))  # noqa: B023, E731
            ratio = best("PyTorch") / best("syncytia")
            found.setdefault((cores, "ratio"), []).append((ratio, 0))
            print(f"{what} {cores} cores round {number}: PyTorch's best ÷ our best = {ratio:.2f}, load {os.getloadavg()[0]:.1f}", flush=True)
    for (cores, name), results in found.items():
        middle = statistics.median(r[0] for r in results)
        if name == "ratio":
            print(f"{what}  {cores} cores  PyTorch's best ÷ our best: median {middle:.2f}, {[round(r[0], 2) for r in results]}")
        else:
            print(f"{what}  {cores} cores  {name:<26} {1e3 * middle:8.0f} ms  peak {max(r[1] for r in results):6.0f} MB")
    return {f"{cores} cores, {name}": results for (cores, name), results in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("syncytia", type=os.path.abspath)
    parser.add_argument("batches", type=os.path.abspath)
    parser.add_argument("shards", type=os.path.abspath)
    parser.add_argument("--what", nargs="*", default=["cells", "generate"], choices=CONFIGS)
    parser.add_argument("--cores", nargs="*", type=int, default=[len(os.sched_getaffinity(0)), 1])
    parser.add_argument("--torch", nargs="*", default=["eager", "compiled"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {what: measure(args, what, folder) for what in args.what}
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if sys.argv[1:2] == ["--torch"]:
    what, path, merged, threads, compiled, weights = sys.argv[2:]
    torch_steps(what, path, bool(int(merged)), int(threads), bool(int(compiled)), json.loads(weights))
else:
    main()
