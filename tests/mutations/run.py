"""Runs rules.toml; see tests/mutations.sh."""

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RULES = tomllib.loads((Path(__file__).parent / "rules.toml").read_text())["rule"]


def copy_of_tree(to: Path):
    """What git knows and does not ignore, with today's changes."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)  # as new: cargo goes by times, and an earlier copy was built here


def cargo_test(tree: Path, package: str, target: str, name: str):
    """(compiled, number run, number failed) of the tests whose path contains `name`."""
    command = ["cargo", "test", "--release", "--offline", "-p", package, *target.split(), name]
    env = {**os.environ, "CARGO_TERM_COLOR": "never", "CARGO_INCREMENTAL": "1", "RUST_BACKTRACE": "0"}
    env.setdefault("CARGO_TARGET_DIR", str(ROOT / "target" / "mutations"))
    try:
        done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, timeout=900)
    except subprocess.TimeoutExpired:
        return False, 0, 0, "no end within 15 minutes"
    result = re.search(r"test result: .*? (\d+) passed; (\d+) failed", done.stdout)
    if not result:
        return False, 0, 0, done.stderr
    passed, failed = map(int, result.groups())
    return True, passed + failed, failed, done.stdout


def tests_of(rule):
    for test in rule["test"]:
        package, target, name = test.split(" ", 2)
        yield package, {"lib": "--lib", "stories": "--test stories"}[target], name


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", type=int, action="append")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args()
    chosen = [(n, rule) for n, rule in enumerate(RULES, 1) if not args.only or n in args.only]
    if args.list:
        for n, rule in chosen:
            print(f"{n:>2}  {rule['rule']}\n      {rule['file']}: {', '.join(rule['test'])}")
        return 0
    lines = []

    def say(line):
        print(line, flush=True)
        lines.append(line)

    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        copy_of_tree(tree)
        for rule in RULES:  # all of them: a stale edit shows whatever was asked for
            found = (tree / rule["file"]).read_text().count(rule["from"])
            if found != 1:
                sys.exit(f"{rule['rule']}: {rule['file']} holds its text {found} times, once is meant:\n{rule['from']}")
        for test in sorted({t for _, rule in chosen for t in tests_of(rule)}):
            compiled, run, failed, output = cargo_test(tree, *test)
            if not compiled or run == 0 or failed:
                sys.exit(f"unbroken, {' '.join(test)}: {run} tests, {failed} failed\n{output}")
        caught = 0
        for n, rule in chosen:
            path = tree / rule["file"]
            text = path.read_text()
            path.write_text(text.replace(rule["from"], rule["to"]))
            red = []
            for test in tests_of(rule):
                compiled, run, failed, output = cargo_test(tree, *test)
                if not compiled:
                    sys.exit(f"{rule['rule']}: broken, it does not compile or hangs\n{output}")
                red.append(failed > 0)
            path.write_text(text)
            os.utime(path)
            caught += all(red)
            say(f"{n:>2}  {'caught  ' if all(red) else 'SURVIVED'}  {rule['rule']}  [{', '.join(rule['test'])}]")
        say(f"{caught} of {len(chosen)} rules broken and caught")
    if args.log:
        args.log.write_text(f"{datetime.date.today()}, tests/mutations.sh\n" + "\n".join(lines) + "\n")
    return 0 if caught == len(chosen) else 1


sys.exit(main())
