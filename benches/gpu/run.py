#!/usr/bin/env python3
"""All that a GPU is asked, in stages of at most ten minutes each, on data that the script makes itself.

    benches/gpu/run.py PROGRAM [--out gpu.json] [--stage NAME ...] [--only PART] [--torch PYTHON] [--batches PROGRAM] [--on cpu]

PROGRAM is a build with `cuda` (`benches/gpu/release.sh` packs one with this script). Needs Python 3.9 and nothing else; with
`--torch`, a Python that has PyTorch with CUDA for the stage `torch`; `--batches`, if it is not beside PROGRAM, is the bench program
`step_batches`, which gives PyTorch the batches of ours. `--on cpu` puts the cores on both sides: it shows that the script works, on
any machine and with any build, and says nothing of a GPU (the JSON has which it was). `--on wgpu` (a build with `wgpu`) runs what a
GPU runs on a driver of Vulkan, also on one in software.

    doctor      what the machine has
    operations  our operations, dropout's and the exact sums' integers, one NCCL rank: GPU against cores
    parity      every model's first step: loss terms and gradients, GPU against cores, at most 1e-4
    curve       200 steps of SpaCKLE and of SPATIA on the GPU beside the cores'
    nccl        two processes on two GPUs, or on one where NCCL has that: the same losses as one; what sums beside backward gain
    speed       step time, peak memory, share of the GPU's peak: SpaCKLE `paper`, SPATIA and its generator, f32, TF32 and bf16
    torch       the same networks in PyTorch, eager and compiled

Every line of a stage is in the JSON as soon as it is there. A stage that is out of time says so, and the same command again goes on
with the lines that are missing: on a machine that gives ten minutes a call, ask until the exit code is not 75. A stage that is named
goes on, too, and runs again what failed; where nothing is missing and nothing failed, all of it is measured anew. The exit code is 1
where a line says FAIL; what is not possible here (no PyTorch given, an NCCL that shares no GPU) is no failure. Another program or
device: another --out.
"""

import argparse
import contextlib
import ctypes
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stages import STAGES, NotHere

ROOT = Path(__file__).resolve().parents[2]
FORMAT = 2
OK, FAIL, NOT_HERE = "ok", "FAIL", "not possible here"
AGAIN = 75  # the program's own "run me again"
PR_SET_PDEATHSIG = 1
prctl = ctypes.CDLL(None).prctl


class OutOfTime(Exception):
    """The stage's time is over."""


def end_with_us():
    """In a child: no command goes on beside the next attempt when this script is killed."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def tail(done):
    """The last words of a command."""
    lines = (done.stderr.strip() or done.stdout.strip() or "no word").splitlines()
    return " | ".join(lines[-3:])[-400:]


class Bench:
    """What a line needs: commands within the stage's time, data made once, and what other lines found."""

    def __init__(self, args, found):
        self.program, self.torch, self.on, self.out, self.limit_s = args.program, args.torch, args.on, Path(args.out), args.limit
        self.batches, self.found, self.deadline = args.batches, found, 0.0
        self.got_on = False  # whether this attempt at a stage left anything: a line, or data
        self.work = Path(args.work or self.out.with_suffix(".work")).resolve()
        self.work.mkdir(parents=True, exist_ok=True)

    def command(self, words, env=None, codes=(0,)):
        """Any command; its stdout."""
        words, began = [str(word) for word in words], time.monotonic()
        # GPUs numbered as nvidia-smi does
        env = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **(env or {})}
        left = self.deadline - began
        if left <= 0:
            raise OutOfTime
        try:
            done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=left, preexec_fn=end_with_us)
        except subprocess.TimeoutExpired:
            raise OutOfTime from None
        short = " ".join([Path(words[0]).name, *words[1:]])[:100]
        if done.returncode not in codes:
            raise RuntimeError(f"`{short}` ended with {done.returncode}: {tail(done)}")
        print(f"      {short}  ({time.monotonic() - began:.0f} s)", file=sys.stderr)
        return done.stdout

    def run(self, *words, **how):
        """A command of the program; its stdout."""
        return self.command([self.program, *words], **how)

    def table(self, *words, **how):
        """What a command of the program prints as JSON."""
        said = self.run(*words, "--json", **how)
        try:
            return json.loads(said)
        except ValueError:
            raise RuntimeError(f"`{words[0]}` said no JSON: {said[:100]!r}") from None

    @contextlib.contextmanager
    def fresh(self):
        """A run folder that is not there yet; it stays where the line failed."""
        folder = tempfile.mkdtemp(prefix="run-", dir=self.work)
        yield Path(folder, "run")
        shutil.rmtree(folder, ignore_errors=True)

    def made(self, name, make):
        """A folder that `make` fills, once: it has its name when it is whole."""
        folder = self.work / name
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix="part-", dir=self.work) as part:
                make(Path(part, "whole"))
                os.rename(Path(part, "whole"), folder)
            self.got_on = True
        return folder

    @functools.cached_property
    def findings(self):
        """The doctor's on devices and GPUs: what → its line."""
        table = self.table("doctor", codes=(0, 2, 3, 7))
        return {line["what"]: line for line in table["findings"] if line["area"] in ("devices", "gpu")}

    @functools.cached_property
    def operations(self):
        """Operations against the cores: what → its line; and the device."""
        table = self.table("parity", "--on", self.on, codes=(0, 6))
        return table["device"], {line["what"]: line for line in table["lines"]}

    def lines(self, stage):
        return self.found["stages"].get(stage, {})

    def kept(self, stage, line):
        """What another line found; it must have gone well."""
        kept = self.lines(stage).get(line, {})
        if kept.get("verdict") != OK:
            raise RuntimeError(f"nothing to compare with: “{line}” is {kept.get('verdict', 'not there yet')}")
        return kept

    def write(self):
        beside = self.out.with_name(self.out.name + ".part")
        beside.write_text(json.dumps(self.found, indent=1, ensure_ascii=False))
        os.replace(beside, self.out)


def ask(bench, stage, named, only):
    """Runs the lines of a stage that are missing; of one that is named, also those that failed; all anew where none did."""
    asked, lines = STAGES[stage](bench), bench.lines(stage)
    wanted = [name for name in asked if only in name]
    of = lambda verdict: [name for name in wanted if lines.get(name, {}).get("verdict") == verdict]  # noqa: E731
    # those that are missing first: else one that always fails would keep them from their turn
    todo = of(None) + (of(FAIL) if named else [])
    if named and not todo:
        todo = wanted
    # what was not possible may be by now; where it is not, that is seen at once
    todo += [name for name in of(NOT_HERE) if name not in todo]
    for name in todo:
        lines.pop(name, None)
    bench.write()
    bench.deadline, bench.got_on = time.monotonic() + bench.limit_s, False
    for name in todo:
        began = time.monotonic()
        print(f"== {stage}: {name}", file=sys.stderr)
        try:
            verdict, found, *more = asked[name]()
            line = {"verdict": OK if verdict else FAIL, "found": found, **(more[0] if more else {})}
        except OutOfTime:
            if bench.got_on:
                print("   out of time", file=sys.stderr)
                return
            # it had all the time there is: missing, it would be the first again
            line = {"verdict": FAIL, "found": f"not done within {bench.limit_s:.0f} s"}
        except NotHere as error:
            line = {"verdict": NOT_HERE, "found": error.args[0]}
        except Exception as error:  # whatever went wrong is this line's and no end of the others
            said = str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}"
            line = {"verdict": FAIL, "found": said}
        lines[name] = {**line, "took_s": round(time.monotonic() - began, 1)}
        bench.found["stages"][stage], bench.got_on = lines, True
        compare(bench.found["stages"])
        bench.write()
        print(f"   {line['verdict']}", file=sys.stderr)


def compare(stages):
    """Our steps and PyTorch's, where both are there: their ratio, and ours as a share of the GPU's peak."""
    for name, ours in stages.get("speed", {}).items():
        for how in ("eager", "compiled"):
            theirs = stages.get("torch", {}).get(f"{name}, {how}", {})
            if OK == ours["verdict"] == theirs.get("verdict"):
                ratio = theirs["found"]["over_ours"] = theirs["found"]["step_ms"] / ours["found"]["step_ms"]
                share = theirs["found"]["share_of_peak"]
                ours["found"]["share_of_peak"] = share and share * ratio


def table(bench):
    """Prints what there is; the exit code."""
    code = 0
    for stage in (stage for stage in STAGES if bench.lines(stage)):
        asked, lines = STAGES[stage](bench), bench.lines(stage)
        missing = [name for name in asked if name not in lines]
        verdicts = [line["verdict"] for line in lines.values()]
        if FAIL in verdicts:
            verdict, code = FAIL, 1
        elif missing:
            verdict, code = "not done", code or AGAIN
        else:
            verdict = OK if OK in verdicts else NOT_HERE
        print(f"{verdict:<17} {stage} ({sum(line['took_s'] for line in lines.values()):.0f} s)")
        for name, line in ((name, lines[name]) for name in asked if name in lines):
            print(f"    {line['verdict']:<17} {name:<42} {in_words(line['found'])}")
        if missing:
            print(f"    out of time or not asked, ask again: {'; '.join(missing)}")
    return code


def in_words(found):
    if not isinstance(found, dict):
        return found
    each = [f"{what} {value:.4g}" if isinstance(value, float) else f"{what} {value}" for what, value in found.items()]
    return ", ".join(each) if len(each) <= 8 and not any(", " in one for one in each) else "".join(f"\n{'':26}{one}" for one in each)


def read(out, head):
    """What an earlier call left. Raises ValueError where it is something else."""
    if not Path(out).exists():
        return {**head, "stages": {}}
    found = json.loads(Path(out).read_text())
    if not isinstance(found, dict) or not isinstance(found.get("stages"), dict) or {key: found.get(key) for key in head} != head:
        raise ValueError("of another program, device or version of this script")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("--out", default="gpu.json")
    parser.add_argument("--stage", action="append", choices=STAGES)
    parser.add_argument("--only", metavar="PART", default="", help="lines alone whose name has this part")
    parser.add_argument("--torch", metavar="PYTHON", type=lambda given: os.path.abspath(given) if "/" in given else given)
    parser.add_argument("--batches", metavar="PROGRAM", type=os.path.abspath)
    parser.add_argument("--work", help="where data and runs go; beside the JSON")
    parser.add_argument("--limit", type=float, default=570, metavar="SECONDS", help="of a stage, of each attempt at it")
    parser.add_argument("--on", default="cuda", choices=("cuda", "wgpu", "cpu"))
    args = parser.parse_args()
    beside = Path(args.program).parent / "step_batches"
    args.batches = args.batches or (str(beside) if beside.exists() else None)
    for program in filter(None, (args.program, args.batches)):
        if not (os.path.isfile(program) and os.access(program, os.X_OK)):
            parser.error(f"{program} is no program")
    head = {"format": FORMAT, "on": args.on, "program": hashlib.sha256(Path(args.program).read_bytes()).hexdigest()[:16]}
    try:
        bench = Bench(args, read(args.out, head))
    except ValueError as error:
        parser.error(f"{args.out} cannot be gone on with: name another --out ({error})")
    asked = [name for stage in args.stage or STAGES for name in STAGES[stage](bench)]
    if not any(args.only in name for name in asked):
        parser.error(f"no line has “{args.only}” in its name; there are: {'; '.join(asked)}")
    for stage in args.stage or STAGES:
        ask(bench, stage, bool(args.stage), args.only)
    sys.exit(table(bench))


if __name__ == "__main__":
    main()
