#!/usr/bin/env python3
"""The runs behind README's SpaCKLE table: shards, trainings, evaluations. Stop it at any time; it goes on where it was.

Usage: benches/spackle.py SYNCYTIA DATA OUT [--ranks N] [--only PART ...] [--table]
DATA holds visium-human-dlpfc-151673, -151674 and visium-mouse-muscle-Vis5A_2dpi. `--only` takes parts of run names;
`--table` prints what is there and runs nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
CONFIGS = HERE / "configs/spackle"
DLPFC = ["visium-human-dlpfc-{0}/{0}_counts_5000genes.h5ad".format(i) for i in ("151673", "151674")]
MUSCLE = ["visium-mouse-muscle-Vis5A_2dpi/outs"]
COMBAT = ["process.combat=standard", 'process.layers=["log1p","d_log1p","c_d_log1p"]']
BLOCKS = ["split.kind=block", "split.cuts=[0.7,1.0]"]
SHARDS = {
    "dlpfc": (DLPFC, ["--split", "val=151674"], []),
    "dlpfc-combat": (DLPFC, ["--split", "val=151674"], COMBAT),
    "dlpfc-128": (DLPFC, ["--split", "val=151674"], ["filter.top_moran=128"]),
    "muscle": (MUSCLE, [], BLOCKS),
    "muscle-context": (MUSCLE, [], [*BLOCKS, "filter.context_genes=1000"]),  # every other gene that passed
    "muscle-picture": (MUSCLE, [], [*BLOCKS, "process.picture_features=64"]),
    "muscle-hex-hops": (MUSCLE, [], [*BLOCKS, "process.neighbourhood=hex_hops"]),
}
SEEDS = (42, 43, 44)
RUNS = {}  # name: (shards, config, sets)
for data in ("muscle", "dlpfc"):
    for config in ("best", "paper"):
        for seed in SEEDS:
            RUNS[f"{data}/{config}/seed-{seed}"] = (data, config, [f"train.seed={seed}", "train.max_steps=3000"])
for config in ("best", "paper"):
    RUNS[f"dlpfc-combat/{config}"] = ("dlpfc-combat", config, ["task.layer=c_d_log1p", "train.max_steps=3000"])
    RUNS[f"dlpfc-128/{config}"] = ("dlpfc-128", config, ["train.max_steps=3000"])
for config in ("best", "paper"):  # ablations, one seed, on muscle
    short = "train.max_steps=1000"
    for shards in ("muscle-context", "muscle-picture", "muscle-hex-hops"):
        RUNS[f"{shards}/{config}"] = (shards, config, [short])
    for rule in ("uniform", "prob_median", "scale_factor"):
        RUNS[f"muscle/{config}/mask-{rule}"] = ("muscle", config, [short, f"task.mask_rule={rule}"])
    RUNS[f"muscle/{config}/zero-missing"] = ("muscle", config, [short, "task.zero_missing_in_training=true"])
BATCH = ["model.spackle.attention_axis=batch", "train.lanes=1", "train.micro_batch=256", "train.ranks=1", "train.threads=4"]
RUNS["dlpfc/paper/attention-over-the-batch"] = ("dlpfc", "paper", [*BATCH, "train.max_steps=3000"])
RUNS["dlpfc/paper/10000-steps"] = ("dlpfc", "paper", ["train.max_steps=10000"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("syncytia")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ranks", default="auto")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    chosen = {name: run for name, run in RUNS.items() if not args.only or any(part in name for part in args.only)}
    for name, (data, config, sets) in chosen.items():
        folder = args.out / name
        if args.table or (folder / "report/report.json").exists():
            continue
        shards = args.out / "shards" / data
        if not (shards / "manifest.json").exists():
            inputs, split, changes = SHARDS[data]
            command = [args.syncytia, "shard", *(str(args.data / i) for i in inputs), *split, "--out", str(shards)]
            run([*command, "--config", str(CONFIGS / "shard.toml"), *with_sets(changes)])
        command = [args.syncytia, "train", str(CONFIGS / f"{config}.toml"), "--shards", str(shards), "--run", str(folder)]
        ranks = [] if any(s.startswith("train.ranks") for s in sets) else [f"train.ranks={args.ranks}"]
        run([*command, *with_sets([*sets, *ranks])])
        run([args.syncytia, "evaluate", str(folder), "--shards", str(shards), "--split", "val"])
        print("done:", name, flush=True)
    table(args.out)


def with_sets(sets):
    return [word for s in sets for word in ("--set", s)]


def run(command):
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nexit {done.returncode}\n{done.stderr[-2000:]}")


def table(out):
    groups = {}
    for name in RUNS:
        path = out / name / "report/report.json"
        if path.exists():
            groups.setdefault(name.split("/seed-")[0], []).append(json.loads(path.read_text()))
    for name, reports in groups.items():
        print(f"\n{name} ({len(reports)} run{'s' * (len(reports) > 1)})")
        for title, of in (("paper", lambda r: r), ("strict", lambda r: r["strict"])):
            rows = {"SpaCKLE": [of(r)["model"] for r in reports]}
            fills = set.intersection(*(set(of(r)["baselines"]) for r in reports))  # an older version had fewer
            rows |= {b: [of(r)["baselines"][b] for r in reports] for b in sorted(fills)}
            median = statistics.mean(m["mse"]["value"] for m in rows["median_completion"])
            for method, metrics in sorted(rows.items(), key=lambda row: statistics.mean(m["mse"]["value"] for m in row[1])):
                mse, pcc = ([m[k]["value"] for m in metrics] for k in ("mse", "pcc_gene"))
                spread = f" ± {statistics.stdev(mse):.3f}" if len(mse) > 1 else ""
                against = 100 * (statistics.mean(mse) / median - 1)
                print(f"  {title:<6} {method:<18} {statistics.mean(mse):.3f}{spread} ({statistics.mean(pcc):.3f}) {against:+.1f} % of median")


main()
