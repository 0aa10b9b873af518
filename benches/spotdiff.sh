#!/bin/bash
# SpotDiff on the FISH embryo: three seeds and the ablation on folds of genes, and entries hidden at random (benches/SPOTDIFF.md).
#
# Usage: benches/spotdiff.sh SYNCYTIA DATA OUT [--set KEY=VALUE ...]     (2 to 3 minutes a run on four cores; what is done is not run again)
# DATA: the folder fish-drosophila-embryo. One line a run: name, mean PCC of the model and smoothed, of k-NN or spatial k-NN.
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
run() { # SHARDS NAME SET...
    local shards=$1 name=$2; shift 2
    "$syncytia" train "$here/configs/spotdiff/small.toml" --shards "$out/$shards" --run "$out/$name" "$@" >"$out/$name.log" 2>&1
    "$syncytia" evaluate "$out/$name" --shards "$out/$shards" --data-set FISH --fast --json 2>/dev/null | python3 -c '
import json, sys
found = json.load(sys.stdin)
pcc = {**{"spotdiff": found["model"]}, **found["baselines"]}
print(sys.argv[1], *("%s %.4f" % (name, of["pcc"]["value"]) for name, of in pcc.items() if "pcc" in of), sep="  ")' "$name"
}
shards folds --set data.holdout=gene_folds
shards entries
for seed in 42 43 44; do run folds "both-$seed" --set "train.seed=$seed" "$@"; done
run folds rna --set model.spotdiff.psi.use_text=false "$@"
run folds text --set model.spotdiff.psi.use_rna=false "$@"
run folds none --set model.spotdiff.psi.use_text=false --set model.spotdiff.psi.use_rna=false "$@"
run entries random-entries "$@"
