#!/bin/bash
# Bytes that a step of real MPI sends over a real link, and its time, by `train.reduction`: bytes.sh SYNCYTIA SHARDS [GBITS [STEPS]].
# Two network namespaces are the hosts; what the first one's interface counted in STEPS steps is divided by them (frames with
# their headers, both directions). As root, with iproute2; SYNCYTIA is a build with `--features mpi` on Open MPI.
set -euo pipefail
syncytia=$(realpath "$1") shards=$(realpath "$2") gbits=${3:-1} steps=${4:-40}
root=$(cd "$(dirname "$0")/../.." && pwd)
network=$root/tests/network
NODES=$(mktemp)
runs=$(mktemp -d)
export NODES
trap '"$network/net.sh" down "$NODES"; rm -rf "$NODES"* "$runs"' EXIT
"$network/net.sh" up "$NODES"
{ echo "127.0.0.1 localhost"; awk '$1 != "host" {print $2, $1}' "$NODES"; } >"$NODES.hosts"
awk '/^n[12] / {print $2, "slots=1"}' "$NODES" >"$NODES.list"
for node in n1 n2; do "$network/net.sh" rate "$NODES" $node "${gbits}gbit"; done
first=$(awk '$1 == "n1" {print $2}' "$NODES") space=$(awk '$1 == "n1" {print $3}' "$NODES")
counted() { ip -n "$space" -s -j link show eth0 | python3 -c 'import json, sys; s = json.load(sys.stdin)[0]["stats64"]; print(s["rx"]["bytes"] + s["tx"]["bytes"])'; }
train() { # REDUCTION STEPS: prints the bytes of the run
    local before command
    before=$(counted)
    command=(mpirun.openmpi --allow-run-as-root --hostfile "$NODES.list" --bind-to none --mca plm_rsh_agent "$network/rsh.sh"
        --mca pml ob1 --mca btl self,tcp --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 -n 2
        "$syncytia" train "$root/configs/spackle/paper.toml" --shards "$shards" --run "$runs/$1-$2" --set train.lanes=2
        --set train.micro_batch=8 --set model.spackle.d=512 --set train.reduction="$1" --set train.max_steps="$2"
        --set train.validate_every=100000 --set train.digest_every=100000 --set checkpoint.every=100000)
    "$network/rsh.sh" "$first" "$(printf '%q ' "${command[@]}")" >"$runs/log" 2>&1 || { cat "$runs/log" >&2; exit 1; }
    echo $(($(counted) - before))
}
for reduction in exact fast fast_bf16; do
    few=$(train $reduction 5) many=$(train $reduction $((5 + steps)))
    python3 - "$runs/$reduction-$((5 + steps))" $reduction "$few" "$many" "$steps" "$gbits" <<'END'
import json, statistics, sys

run, reduction, few, many, steps, gbits = sys.argv[1:]
lines = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
took = [line["step_s"] for line in lines if line["kind"] == "train" and line["global_step"] > 5]
print(f"{reduction:<9} {(int(many) - int(few)) / int(steps) / 1e6:7.2f} MB a step and host, step {1e3 * statistics.median(took):6.1f} ms"
      f" at {gbits} Gb/s")
END
done
