#!/bin/bash
# The hidden share with real MPI between two hosts (network namespaces with a limited link): two_hosts.sh HIDDEN SHARDS
# [GBITS [MICRO_BATCH [ROUNDS]]]. As root, with iproute2; HIDDEN is the bench program `hidden`, whose MPI library's mpirun is
# on PATH. Prints its line of JSON, and the shares.
set -euo pipefail
hidden=$(realpath "$1") shards=$(realpath "$2") gbits=${3:-10} micro_batch=${4:-32} rounds=${5:-8}
network=$(cd "$(dirname "$0")/../../tests/network" && pwd)
NODES=$(mktemp)
export NODES
trap '"$network/net.sh" down "$NODES"; rm -f "$NODES"*' EXIT
"$network/net.sh" up "$NODES"
{ echo "127.0.0.1 localhost"; awk '$1 != "host" {print $2, $1}' "$NODES"; } >"$NODES.hosts"
for node in n1 n2; do "$network/net.sh" rate "$NODES" $node "${gbits}gbit"; done
case $(ldd "$hidden") in
*libmpi.so*)
    awk '/^n[12] / {print $2, "slots=1"}' "$NODES" >"$NODES.list"
    command=(mpirun --allow-run-as-root --hostfile "$NODES.list" --bind-to none --mca plm_rsh_agent "$network/rsh.sh"
        --mca pml ob1 --mca btl self,tcp --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0)
    ;;
*)
    awk '/^n[12] / {print $2 ":1"}' "$NODES" >"$NODES.list"
    command=(mpirun.mpich -f "$NODES.list" -launcher rsh -launcher-exec "$network/rsh.sh" -iface eth0
        -genv UCX_TLS tcp,self -genv UCX_NET_DEVICES eth0 -genv FI_PROVIDER tcp)
    ;;
esac
command+=(-n 2 chrt -f 5 "$hidden" "$shards" mpi "$micro_batch" "$gbits" "$rounds")
first=$(awk '$1 == "n1" {print $2}' "$NODES")
"$network/rsh.sh" "$first" "$(printf '%q ' "${command[@]}")" | tee "$NODES.json"
python3 - "$NODES.json" <<'END'
import json, statistics, sys

row = json.loads(open(sys.argv[1]).read().splitlines()[-1])
m = {key: 1e3 * statistics.median(s) for key, s in row.items() if isinstance(s, list)}
print(f"{row['library'].split(',')[0]}, 2 hosts, {row['gbits']} Gb/s, micro_batch {row['micro_batch']}: sums alone {m['alone']:.0f} ms in"
      f" {row['operations']} operations; left after backward {m['left_beside']:.0f} ms (sums at the end {m['left_plain']:.0f}):"
      f" hidden {100 * (1 - m['left_beside'] / m['alone']):.0f} %; step {m['beside']:.0f} ms ({m['plain']:.0f})")
END
