"""What the benches of a training step share: the same weights and batches on both sides, first compared, then timed in turn.

A bench is a table of `Network`s given to `main`. First both sides compute the loss and the gradient's norm of one step from one
set of weights without dropout; they must agree to 1e-4 or nothing is timed. A step is forward, backward, clip, AdamW, EMA.
Ours: `train`, one rank per core, decoding and drawing of its batches included. PyTorch: batches that lie ready, that many
threads, eager and compiled, the batch whole and in lanes. A round runs all of them in turn; ratios are of a round, its best
PyTorch over our best; medians over rounds. Warm-up steps do not count. As root both sides run with real-time priority: on
a shared machine nothing else gives figures that repeat. Peak memory is the whole process's.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
MOST_BYTES = 12 << 30  # of a PyTorch process: the whole batch at once may ask for more than a shared machine has
PRIORITY = ["chrt", "-r", "1"] if os.geteuid() == 0 and shutil.which("chrt") else []


@dataclass(frozen=True)
class Network:
    """A network whose step is timed."""

    config: str  # of ours, from the root of the repository
    terms: list[str]  # of its loss, as PyTorch's side gives them
    build: Callable  # (config, parameters, without dropout?) → the network, whose forward takes a lane and the weights
    lanes: Callable  # (parameters, lanes as read, as one?) → what that forward takes
    shapes: list[tuple[int, int]]  # lanes × micro-batch of ours; PyTorch in lanes has the first
    steps: tuple[int, int]  # that count, that warm up
    sets: dict = field(default_factory=dict)  # of the config, always
    plain: dict = field(default_factory=dict)  # that switch dropout off
    few: dict = field(default_factory=lambda: {"train.lanes": 2, "train.micro_batch": 4})  # to compare losses
    part: str = "."  # where in the run folder it trains

    def resolved(self):
        text = (HERE / self.config).read_text()
        try:
            import tomllib
        except ModuleNotFoundError:  # before Python 3.11
            return tables(text)
        return tomllib.loads(text)


def tables(text):
    """TOML as far as SPATIA's configs of one stage go: tables and values on a line each, no `#` in a text. Raises ValueError beyond."""
    whole = here = {}
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("[["):
            raise ValueError(f"Python 3.11 reads this config: {line}")
        if line.startswith("["):
            here = whole
            for name in line.strip("[]").split("."):
                here = here.setdefault(name, {})
        elif line:
            name, value = line.split(" = ", 1)
            here[name] = json.loads(re.sub(r"(\w+) = ", r'"\1": ', value))
    return whole


def tensors(path):
    """What `batches.rs` wrote: safetensors of f32. Read here, so that a machine that has PyTorch alone can."""
    import torch

    whole = Path(path).read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    for name, entry in json.loads(whole[8:begin]).items():
        if name != "__metadata__":
            assert entry["dtype"] == "F32", entry
            first, end = (begin + at for at in entry["data_offsets"])
            values = torch.frombuffer(bytearray(whole[first:end]), dtype=torch.float32) if end > first else torch.empty(0)
            yield name, values.reshape(entry["shape"])


def load(network, path, merged):
    """Parameters, and the lanes' batches, as one where `merged`."""
    parameters, lanes = {}, {}
    for name, tensor in tensors(path):
        of, _, name = name.partition(".")
        (parameters if of == "model" else lanes.setdefault(int(of), {}))[name] = tensor
    return parameters, network.lanes(parameters, [lanes[i] for i in sorted(lanes)], merged)


def built(network, parameters, plain):
    model = network.build(network.resolved(), parameters, plain)
    model.load_state_dict(parameters)  # the same names and shapes, all of them
    return model.train()


def parity(network, path, said):
    import torch

    parameters, lanes = load(network, path, True)
    model = built(network, parameters, True)
    loss, terms = model(lanes[0], said["weights"])
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    theirs = {"loss": loss.item(), "gradient_norm": norm.item(), **dict(zip(network.terms, [t.item() for t in terms]))}
    ours = {"loss": said["loss"], "gradient_norm": said["gradient_norm"], **said["terms"]}
    found = {"parameters": sum(p.numel() for p in model.parameters()), "ours": ours, "theirs": theirs}
    found["worst"] = max(abs(ours[k] - v) / max(abs(v), 1e-3) for k, v in theirs.items())
    return found


def stepper(network, model, lanes, weights, compiled):
    """A step: forward and backward of every lane, clip, AdamW, EMA."""
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    optim = network.resolved()["optim"]
    betas = optim.get("betas", [0.9, 0.999])
    optimizer = torch.optim.AdamW(trained, lr=optim["lr"], betas=betas, weight_decay=optim["weight_decay"], fused=True)
    average = [p.detach().clone() for p in trained]
    run = torch.compile(model) if compiled else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        for lane in lanes:
            loss, _ = run(lane, weights)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, optim["clip_norm"])
        optimizer.step()
        torch._foreach_lerp_(average, [p.detach() for p in trained], 1 - optim["ema"])

    return step


def torch_steps(network, path, merged, threads, compiled, weights):
    import torch

    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    parameters, lanes = load(network, path, merged)
    step = stepper(network, built(network, parameters, False), lanes, weights, compiled)
    seconds = []
    steps, warm_up = network.steps
    for _ in range(warm_up + steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds[warm_up:], "peak_mb": peak / 1024}))


def pinned(cores):
    return PRIORITY + ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))]


def ours(network, binary, shards, lanes, micro_batch, cores):
    steps, warm_up = network.steps
    with tempfile.TemporaryDirectory() as folder:
        sets = network.sets | {
            "train.lanes": lanes, "train.micro_batch": micro_batch, "train.ranks": min(cores, lanes), "train.threads": 1,
            "train.max_steps": warm_up + steps, "train.validate_every": 1000, "train.digest_every": 1000,
            "checkpoint.every": 1000, "log.every": 1000,
        }  # fmt: skip
        command = pinned(cores) + [binary, "train", str(HERE / network.config), "--shards", shards, "--run", f"{folder}/run"]
        for key, value in sets.items():
            command += ["--set", f"{key}={value}"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        complaint = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, (command, complaint)
        lines = map(json.loads, Path(folder, "run", network.part, "metrics.jsonl").read_text().splitlines())
        seconds = [l["step_s"] for l in lines if l["kind"] == "train" and l["global_step"] > warm_up]
    return {"seconds": seconds, "peak_mb": usage.ru_maxrss / 1024}


def theirs(what, path, merged, cores, compiled, weights, environment):
    words = [what, path, int(merged), cores, int(compiled), json.dumps(weights)]
    command = pinned(cores) + [sys.executable, sys.argv[0], "--torch", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:]}
    return json.loads(done.stdout.splitlines()[-1])


def measure(args, what, network, folder):
    path = f"{folder}/{what}.safetensors"
    lanes, micro_batch = network.shapes[0]

    def batches(of, sets):
        words = PRIORITY + [args.batches, HERE / network.config, args.shards, path, of]
        words += [f"{key}={value}" for key, value in (network.sets | sets).items()]
        return json.loads(subprocess.run([str(w) for w in words], check=True, capture_output=True, text=True).stdout)

    said = batches("step", network.plain | network.few)
    same = parity(network, path, said)
    print(json.dumps({what: same, "said": {"parameters": said["parameters"], "trained": said["trained"]}}, indent=1), flush=True)
    assert same["parameters"] == said["parameters"] and same["worst"] < 1e-4, "not the same network"
    weights = batches("data", {"train.lanes": lanes, "train.micro_batch": micro_batch})["weights"]
    environment = dict(one.split("=", 1) for one in args.torch_env)
    found = {}
    for number in range(args.rounds):
        for cores in args.cores:
            times = {}
            for shape in network.shapes:
                times[f"syncytia {shape[0]} × {shape[1]}"] = ours(network, args.syncytia, args.shards, *shape, cores)
            for merged in (True, False):
                shape = f"1 × {lanes * micro_batch}" if merged else f"{lanes} × {micro_batch}"
                for name, compiled in (("eager", False), ("compiled", True)):
                    if name in args.torch:
                        times[f"PyTorch {name} {shape}"] = theirs(what, path, merged, cores, compiled, weights, environment)
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


def main(doc, networks):
    """The command line; `--torch` is how it starts itself for PyTorch's side of a round."""
    if sys.argv[1:2] == ["--torch"]:
        what, path, merged, threads, compiled, weights = sys.argv[2:]
        torch_steps(networks[what], path, bool(int(merged)), int(threads), bool(int(compiled)), json.loads(weights))
        return
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("syncytia", type=os.path.abspath)
    parser.add_argument("batches", type=os.path.abspath)
    parser.add_argument("shards", type=os.path.abspath)
    parser.add_argument("--what", nargs="*", default=list(networks), choices=networks)
    parser.add_argument("--cores", nargs="*", type=int, default=[len(os.sched_getaffinity(0)), 1])
    parser.add_argument("--torch", nargs="*", default=["eager", "compiled"])
    parser.add_argument("--torch-env", nargs="*", default=[], metavar="NAME=VALUE", help="for PyTorch's processes alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {what: measure(args, what, networks[what], folder) for what in args.what}
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
