#!/usr/bin/env python3
"""SIGKILL at random moments: kills.py SYNCYTIA [N] [SEED], N kills (200), ends with `n of n`.

A run is begun again after every kill, on another number of ranks, as threads or as processes under mpirun (where SYNCYTIA has the
feature `mpi`). Killed is one rank, mpirun, or all; by the step, by the clock, or while a checkpoint is being written. Afterwards
the newest checkpoint is whole (`syncytia verify`), no older than the one before and no further back than what was on its way to
the disk, and the next life goes on from it. The end has the bytes of an undisturbed run, and every step is in metrics.jsonl once.
KEEP=1 keeps the folder. Exit: 0 all proven, 1 not.
"""

import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = 100
EVERY = 5
KILLS_PER_RUN = 8  # then it may end
# One save is being written, one waits, and the trainer waits to hand over a third.
IN_FLIGHT = 3 * EVERY
# Beyond it the ranks that lost one end by themselves; mpirun is usually faster.
DEADLINE_S = 15
SETS = [f"train.max_steps={STEPS}", "train.micro_batch=4", f"checkpoint.every={EVERY}", "train.validate_every=10",
        "train.digest_every=10", f"train.deadline_s={DEADLINE_S}"]
# What rank 0 says before its first step.
BEGUN = re.compile(r"^from (?:step-(\d+)|the start) on", re.MULTILINE)


class Fault(Exception):
    pass


class Place:
    """The program, its shards and the bytes to end with."""

    def __init__(self, program, folder):
        self.program, self.folder = str(Path(program).resolve()), folder
        linked = subprocess.run(["ldd", self.program], capture_output=True, text=True).stdout
        self.mpirun = None
        if "libmpi.so" in linked:
            self.mpirun = ["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
        elif "libmpich.so" in linked:
            self.mpirun = ["mpirun.mpich"]
        if self.mpirun and not shutil.which(self.mpirun[0]):
            self.mpirun[0] = "mpirun"
        shard = ["shard", str(ROOT / "shards/data/vis5a_cut.h5ad"), "--config", str(ROOT / "configs/spackle/shard.toml"),
                 "--set", "filter.top_moran=16", "--set", "split.kind=block", "--out", str(folder / "shards")]
        self.done([self.program, *shard])
        self.done(self.command(folder / "undisturbed", ("threads", 1)))
        self.expected = last_bytes(folder / "undisturbed")

    def done(self, command):
        end = subprocess.run(command, capture_output=True, text=True)
        if end.returncode:
            sys.exit(f"{command} exited {end.returncode}:\n{end.stdout}{end.stderr}")

    def command(self, run, world):
        kind, ranks = world
        train = [self.program, "train", str(ROOT / "configs/spackle/tiny.toml"), "--shards", str(self.folder / "shards"),
                 "--run", str(run)]
        for value in SETS:
            train += ["--set", value]
        if kind == "threads":
            return [*train, "--ranks", str(ranks)]
        return [*self.mpirun, "-n", str(ranks), *train]

    def worlds(self):
        kinds = ["threads", "processes", "processes"] if self.mpirun else ["threads"]
        return [(kind, ranks) for kind in kinds for ranks in (1, 2, 3, 4)]


def last_bytes(run):
    last = run / "checkpoints" / f"step-{STEPS:08}"
    files = {str(path.relative_to(last)): path.read_bytes() for path in sorted(last.rglob("*.safetensors"))}
    if len(files) < 3:
        raise Fault(f"{last} has {sorted(files)}")
    return files


def pids(program, run):
    """Processes of this run, by their command line: never those of another."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                if words[0] == program.encode() and str(run).encode() in words:
                    found.append(int(entry.name))
            except OSError:
                pass
    return sorted(found)


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def metrics(run):
    """The whole lines; a kill may leave half of one."""
    try:
        lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def steps_logged(run):
    return max((line["global_step"] for line in metrics(run) if line["kind"] == "train"), default=0)


def listed(run):
    try:
        return os.listdir(run / "checkpoints")
    except FileNotFoundError:
        return []


def being_saved(run):
    return [name for name in listed(run) if name.endswith(".tmp")]


def newest(run):
    return max((int(name[5:]) for name in listed(run) if name.startswith("step-")), default=None)


def wait_for_moment(draw, run, said, child):
    """The moment of the blow, in words; None when the run had ended before it came. The clock meets lives that have not begun."""
    began, at = time.monotonic(), min(newest(run) or 0, STEPS - 1)
    kind = draw.choice(["step", "save", "save", "clock"])
    target = draw.randint(at + 1, min(at + 30, STEPS))
    patience = draw.uniform(0, 1.5) if kind == "clock" else 60
    while child.poll() is None:
        waited = time.monotonic() - began
        begun = kind != "clock" and said.stat().st_size and BEGUN.search(said.read_text())
        reached = begun and (being_saved(run) if kind == "save" else steps_logged(run) >= target)
        if reached or waited > patience:
            time.sleep(draw.choice([0, draw.uniform(0, 0.003), draw.uniform(0, 0.02)]))
            return None if child.poll() is not None else kind
        time.sleep(0.0005 if kind == "save" else 0.004)  # a save of this model takes 10 ms
    return None


def strike(draw, place, run, world, child):
    """Kills; says whom."""
    ranks = pids(place.program, run)
    if world[0] == "threads":
        kill(child.pid)
        return "the process"
    whom = draw.choice(["a rank", "a rank", "mpirun", "all"])
    if whom == "a rank" and ranks:
        kill(draw.choice(ranks))
    elif whom == "all" and ranks:
        for pid in draw.sample([*ranks, child.pid], len(ranks) + 1):
            kill(pid)
    else:
        whom = "mpirun"
        kill(child.pid)
    return whom


def end_of_all(place, run, child):
    """The others end by themselves, at the latest a little after the deadline."""
    began = time.monotonic()
    while child.poll() is None or pids(place.program, run):
        if time.monotonic() - began > DEADLINE_S + 10:
            left = pids(place.program, run)
            for pid in [*left, child.pid]:
                kill(pid)
            child.wait()
            raise Fault(f"{len(left)} ranks still ran {DEADLINE_S + 10} s after the blow")
        time.sleep(0.01)
    return time.monotonic() - began


def look(place, run, before):
    """The newest checkpoint after a blow; None where there is none yet."""
    at, logged = newest(run), steps_logged(run)
    end = subprocess.run([place.program, "verify", str(run)], capture_output=True, text=True)
    said = (end.stdout + end.stderr).strip()
    if at is None:
        if before is not None or logged > IN_FLIGHT:
            raise Fault(f"no checkpoint, at step {logged}")
        if end.returncode not in (2, 5):
            raise Fault(f"verify exited {end.returncode} and there is no checkpoint: {said}")
        return None
    if end.returncode or f"step-{at:08}" not in said:
        raise Fault(f"verify exited {end.returncode}, newest is step {at}: {said}")
    if at < (before or 0):
        raise Fault(f"the newest checkpoint is of step {at}, before it was of {before}")
    if logged - at > IN_FLIGHT:
        raise Fault(f"{logged - at} steps lost: {logged} in metrics.jsonl, newest checkpoint {at}")
    return at


def goes_on_from(said, at):
    """The life that is over, if it came so far as to say so, began at the newest checkpoint of the one before."""
    began = BEGUN.search(said.read_text())
    if began and int(began[1] or 0) != (at or 0):
        raise Fault(f"it went on {began[0]!r}, the newest checkpoint was of step {at}")


def one_run(place, draw, run, left, counts):
    """A run with its kills, to its end; how many there were."""
    kills, at, story = 0, None, []
    said = run.with_suffix(".err")
    try:
        while True:
            world = draw.choice(place.worlds())
            with open(said, "w") as words:
                child = subprocess.Popen(place.command(run, world), stdout=words, stderr=words, start_new_session=True)
            moment = wait_for_moment(draw, run, said, child) if kills < min(KILLS_PER_RUN, left) else None
            if moment is None:
                code = child.wait(timeout=180)
                story.append(f"{world} ended {code}")
                if code:
                    raise Fault(f"exit {code} without a blow")
                goes_on_from(said, at)
                break
            halfway = bool(being_saved(run))
            whom = strike(draw, place, run, world, child)
            story.append(f"{world} {whom} killed, {moment}, step {steps_logged(run)}")
            took = end_of_all(place, run, child)
            goes_on_from(said, at)
            at = look(place, run, at)
            kills += 1
            counts[f"{world[0]}"] += 1
            counts[whom] += 1
            counts["during a save"] += halfway or bool(being_saved(run))
            counts["slowest end, s"] = max(counts["slowest end, s"], round(took, 1))
        if last_bytes(run) != place.expected:
            raise Fault("the bytes differ from the undisturbed run's")
        steps = [line["global_step"] for line in metrics(run) if line["kind"] == "train"]
        if steps != list(range(1, STEPS + 1)):
            raise Fault(f"metrics.jsonl has steps {steps}")
        if being_saved(run):
            raise Fault(f"left behind: {being_saved(run)}")
    except (Fault, subprocess.TimeoutExpired) as fault:
        print(f"FAILED {run.name}: {fault}\n  " + "\n  ".join(story) + f"\n  last words: {said.read_text()[-1500:]}", flush=True)
        for pid in pids(place.program, run):
            kill(pid)
        return kills, False
    shutil.rmtree(run)
    said.unlink()
    return kills, True


def main():
    if len(sys.argv) not in (2, 3, 4):
        sys.exit(__doc__)
    program, wanted, seed = [*sys.argv[1:], *["200", "1"][len(sys.argv) - 2:]]
    wanted, draw = int(wanted), random.Random(int(seed))
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    began, counts, proven, kills, runs = time.monotonic(), collections.Counter(), 0, 0, 0
    try:
        place = Place(program, folder)
        while kills < wanted and runs < wanted:
            runs += 1
            struck, well = one_run(place, draw, folder / f"run-{runs}", wanted - kills, counts)
            kills += struck
            proven += struck if well else 0
            print(f"run {runs}: {kills} kills, {time.monotonic() - began:.0f} s", flush=True)
    finally:
        if "KEEP" in os.environ:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(", ".join(f"{what}: {n}" for what, n in sorted(counts.items())))
    print(f"{proven} of {kills} kills changed nothing, {runs} runs, {time.monotonic() - began:.0f} s")
    return 0 if proven == kills >= wanted else 1


if __name__ == "__main__":
    sys.exit(main())
