#!/bin/bash
# SpotDiff on the FISH embryo: three seeds and the ablation on folds of genes, a small stDiff beside the first, and entries hidden at random,
# more and more of them (benches/SPOTDIFF.md).
#
# Usage: benches/spotdiff.sh SYNCYTIA DATA OUT [--set KEY=VALUE ...]     (2 to 3 minutes a run on four cores, stDiff 10; what is done is not run again)
# DATA: the folder fish-drosophila-embryo. One line a run: name, then mean PCC of the model, smoothed, and of each fill.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
syncytia=$1 data=$2 out=$3
shift 3
mkdir -p "$out"
shards() { # NAME SET...
    local name=$1; shift
    [ -e "$out/$name/manifest.json" ] || "$syncytia" shard "$data/bdtnp.txt" --reference "$data/dge_raw.txt.gz" --config "$here/configs/spotdiff/shard.toml" \
        --set "input.coordinates=$data/geometry.txt" --set input.um_per_unit=1 "$@" --out "$out/$name" >/dev/null 2>&1
}
train() { # CONFIG SHARDS NAME SET...
    local config=$1 shards=$2 name=$3; shift 3
    "$syncytia" train "$here/configs/spotdiff/$config.toml" --shards "$out/$shards" --run "$out/$name" "$@" >"$out/$name.log" 2>&1
}
judge() { # SHARDS NAME OPTION...
    local shards=$1 name=$2; shift 2
    "$syncytia" evaluate "$out/$name" --shards "$out/$shards" --data-set FISH --fast --json "$@" 2>/dev/null | python3 -c '
import json, sys
found = json.load(sys.stdin)
methods = {**{"spotdiff": found["model"]}, **found["baselines"]}
for metric in sorted(m for m in found["model"] if m == "pcc" or m.startswith("pcc_at_")):
    of = [(name, scores[metric]["value"]) for name, scores in methods.items() if metric in scores]
    print(sys.argv[1], metric, *("%s %.4f" % pair for pair in of), sep="  ")' "$name"
}
run() { # SHARDS NAME SET...
    train small "$@" && judge "$1" "$2"
}
shards folds --set data.holdout=gene_folds
shards entries
for seed in 42 43 44; do run folds "both-$seed" --set "train.seed=$seed" "$@"; done
run folds rna --set model.spotdiff.psi.use_text=false "$@"
run folds text --set model.spotdiff.psi.use_rna=false "$@"
run folds none --set model.spotdiff.psi.use_text=false --set model.spotdiff.psi.use_rna=false "$@"
# stDiff within minutes: a seventh of the parameters, 512 cells of 2048, 500 steps of 1800 at a higher rate, 50 steps of sampling of 1500
train stdiff folds stdiff --set model.spotdiff.psi.d=256 --set model.spotdiff.psi.blocks=4 --set model.spotdiff.psi.heads=8 --set train.micro_batch=512 \
    --set train.threads=4 --set train.max_steps=500 --set optim.lr=1e-3 --set 'optim.schedule="cosine"' --set optim.warmup_steps=50 \
    --set optim.schedule_steps=500 --set 'task.solver={ddim=50}'
judge folds both-42 --beside "$out/stdiff"
train entries entries random-entries "$@"
judge entries random-entries --sweep
