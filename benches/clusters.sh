#!/bin/bash
# Cohorts with known types: SPATIA's first two stages at tiny beside every fill (benches/CLUSTERS.md).
#
# Usage: benches/clusters.sh SYNCYTIA OUT SEED...     (about 4 minutes a seed on two cores; a stage that is done is not run again)
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
syncytia=$1 out=$2
shift 2
for seed; do
    at=$out/$seed
    mkdir -p "$at"
    [ -e "$at/shards/manifest.json" ] || {
        "$syncytia" synth --cells 6000 --seed "$seed" --out "$at/cohort" >/dev/null
        "$syncytia" shard "$at/cohort" --config "$here/configs/spatia/shard.toml" --set process.crop_px=64 --out "$at/shards"
    }
    "$syncytia" train "$here/configs/spatia/tiny.toml" --shards "$at/shards" --run "$at/cells" --set "train.seed=4$seed"
    "$syncytia" evaluate "$at/cells" | tee "$at/cells.txt"
    [ -e "$at/of-cells/vectors.json" ] || "$syncytia" embed "$at/cells" --shards "$at/shards" --out "$at/of-cells"
    "$syncytia" train "$here/configs/spatia/tiny-niche.toml" --shards "$at/shards" --vectors "$at/of-cells" --from "$at/cells" --run "$at/niches"
    "$syncytia" evaluate "$at/niches" --vectors "$at/of-cells" | tee "$at/niches.txt"
done
