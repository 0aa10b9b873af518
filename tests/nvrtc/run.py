#!/usr/bin/env python3
"""The kernels of every model's steps, through one NVRTC: run.py [--gpu H100] PROGRAM TOOLKIT FAKE WORK [NAME ...]

TOOLKIT is a CUDA's folder (include, lib); FAKE has the libraries of fake_driver.c and watched_nvrtc.c; WORK keeps the data that
benches/gpu/run.py makes, and what was said. A line per config, `n of n kernels compile`; at the first that does not, the compiler's
words. Called by tests/nvrtc.sh. Exit: 0 all compile, 1 not.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches/gpu"))
import stages  # noqa: E402
from run import Bench  # noqa: E402

NUMERICS = 6  # parity's exit code where numbers differ: zeros are all that there is here
LAUNCH_ERROR = "launch error"  # Burn's warning where a kernel is refused before the compiler sees it
LIMIT_S = 1200
DAY_S = 86400  # nothing of the bench's own is in a hurry here


class Refused(Exception):
    """What does not compile, or stopped before it was asked."""


class Compiler:
    """One toolkit's NVRTC, watched."""

    def __init__(self, program, toolkit, fake, work, gpu):
        self.program, self.toolkit, self.fake, self.gpu = program, toolkit, fake, gpu
        [self.nvrtc] = (toolkit / "lib").glob("libnvrtc.so.*")
        self.version = toolkit.name.removeprefix("cuda-")
        self.name = f"CUDA {self.version}, {gpu}"
        self.said = work / f"said-{self.version}-{gpu}"
        shutil.rmtree(self.said, ignore_errors=True)
        self.once = self.said / "once"
        self.once.mkdir(parents=True)

    def environment(self, seen):
        major, minor = self.version.split(".")[:2]
        return {
            **os.environ,
            "LD_LIBRARY_PATH": f"{self.fake}:{self.toolkit / 'lib'}",
            "SYNCYTIA_LIBCUDA": str(self.fake / "libcuda.so"),
            "CUDA_PATH": str(self.toolkit),
            "SYNCYTIA_NCCL": str(self.fake / "libnccl-that-is-not-there.so"),
            "FAKE_GPU": self.gpu,
            "FAKE_DRIVER_VERSION": f"{major}0{minor}0",
            "NVRTC_REAL": str(self.nvrtc),
            "NVRTC_SEEN": str(seen),
            "NVRTC_ONCE": str(self.once),
        }

    def kernels(self, name, words, code):
        """The kernels that one command on the GPU that is not there asks for, by name; it has to end with `code`."""
        seen = self.said / re.sub(r"[^A-Za-z0-9]+", "-", name)
        seen.mkdir()
        done = subprocess.run([self.program, *map(str, words)], cwd=ROOT, env=self.environment(seen), capture_output=True,
                              text=True, timeout=LIMIT_S)  # fmt: skip
        (seen / "stdout").write_text(done.stdout)
        (seen / "stderr").write_text(done.stderr)
        asked = [line.split() for line in (seen / "kernels").read_text().splitlines()] if (seen / "kernels").exists() else []
        refused = [(kernel, hash) for verdict, kernel, hash in asked if verdict == "refused"]
        if refused:
            kernel, hash = refused[0]
            said = (seen / f"{hash}.words").read_text().strip("\0\n ")
            raise Refused(f"{len(asked) - len(refused)} of {len(asked)} kernels compile; {kernel} ({seen / hash}.cu) does not:\n{said}")
        if (seen / "launches").exists():
            raise Refused(f"a driver refuses to launch {(seen / 'launches').read_text()}")
        if done.returncode != code or not asked or LAUNCH_ERROR in done.stderr:
            raise Refused(f"ended with {done.returncode} ({code} is right) after {len(asked)} kernels:\n{done.stderr[:4000]}")
        return {kernel for _, kernel, _ in asked}


def commands(runs):
    """Name, command, config, data, words, and the exit code that is right: every model's first step, and the sizes that are timed."""
    yield "operations", "parity", None, None, ["--on", "cuda"], NUMERICS
    for name, config, data, changes in stages.MODELS:
        for products in stages.PRODUCTS:
            sets = stages.sets([*changes, f"train.products={products}"])
            yield f"{name}, {products}", "parity", config, data, ["--on", "cuda", *sets], NUMERICS
    for name, config, data, changes, _ in stages.SPEED:
        for products in stages.PRODUCTS:
            always = ["train.device=cuda", f"train.products={products}", "train.max_steps=2", "train.validate_every=2"]
            run = ["--run", runs / f"{config.replace('/', '-')}-{products}"]
            yield f"{name}, {products}", "train", config, data, [*run, *stages.sets(changes + always)], 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("program", "toolkit", "fake", "work"):
        parser.add_argument(name, type=lambda path: Path(path).resolve())
    parser.add_argument("names", nargs="*", help="configs by the start of their names")
    parser.add_argument("--gpu", default="H100", help="one of fake_driver.c")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    asked = {"out": args.work / "none.json", "work": args.work / "data", "torch": None, "batches": None, "on": "cuda", "limit": DAY_S}
    bench = Bench(argparse.Namespace(program=args.program, **asked), {})
    bench.deadline = time.monotonic() + DAY_S
    compiler = Compiler(args.program, args.toolkit, args.fake, args.work, args.gpu)
    compiled, n, began = set(), 0, time.monotonic()
    for name, command, config, data, words, code in commands(compiler.said / "runs"):
        if args.names and not name.startswith(tuple(args.names)):
            continue
        of_config = [stages.config_of(bench, config), *stages.words_of(bench, data)] if config else []
        start = time.monotonic()
        try:
            kernels = compiler.kernels(name, [command, *of_config, *words], code)
        except (Refused, subprocess.TimeoutExpired) as error:
            print(f"{compiler.name}  {name}: {error}", file=sys.stderr)
            sys.exit(1)
        new = len(kernels - compiled)
        compiled |= kernels
        n += 1
        print(f"{compiler.name}  {name:<32} {len(kernels):>4} of {len(kernels)} kernels compile, {new} of them new "
              f"({time.monotonic() - start:.0f} s)", flush=True)  # fmt: skip
    if not n:
        sys.exit(f"no config begins with {', '.join(args.names)}")
    print(f"{compiler.name}  {len(compiled)} of {len(compiled)} kernels of {n} configs compile ({time.monotonic() - began:.0f} s)")


main()
