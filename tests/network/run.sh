#!/bin/bash
# Faults of networks and of processes, over three network namespaces made for the occasion: run.sh SYNCYTIA [CASE...]
#
# Root, iproute2, iptables, and the mpirun of the MPI library that SYNCYTIA was built with (feature `mpi`; Open MPI or MPICH). Each
# namespace is a host with a rank of its own. Every case ends with the bytes of an undisturbed run.
# KEEP=1 keeps the folder with all logs. Exit: 0 all proven, 1 not.
set -uo pipefail

cases=(same_bytes cut_link cut_store loss slow_link paused slow_rank not_finite)
BINARY=$(realpath "${1:?usage: run.sh SYNCYTIA [CASE...]}")
shift
[ $# -gt 0 ] && cases=("$@")
ROOT=$(cd "$(dirname "$0")/../.." && pwd)

case $(ldd "$BINARY" 2>/dev/null) in
*libmpi.so*) LIBRARY=openmpi ;;
*libmpich.so*) LIBRARY=mpich ;;
*) echo "tests/network: $BINARY has no MPI: build with --features mpi" >&2; exit 1 ;;
esac
MPIRUN=mpirun.$LIBRARY
command -v "$MPIRUN" >/dev/null || MPIRUN=mpirun
missing=()
for tool in ip tc iptables nsenter unshare python3 "$MPIRUN"; do command -v "$tool" >/dev/null || missing+=("$tool"); done
[ "$(id -u)" = 0 ] || missing+=("root")
if [ ${#missing[@]} -gt 0 ]; then
    echo "tests/network: this machine lacks ${missing[*]} (Debian: iproute2 iptables util-linux openmpi-bin mpich)" >&2
    [ -n "${SYNCYTIA_REQUIRE_ALL:-}" ] && exit 1
    exit 0
fi
for name in $(compgen -e | grep -E '^(SLURM|SBATCH|SRUN|PMI|OMPI|MPI)'); do unset "$name"; done

work=$(mktemp -d "${TMPDIR:-/tmp}/network-XXXXXX")
NODES=$work/nodes
tidy() {
    for pid in /proc/[0-9]*; do # what a case left running carries the name of this folder
        [ "$pid" != "/proc/$$" ] && grep -qzxF "NODES=$NODES" "$pid/environ" 2>/dev/null && kill -9 "${pid#/proc/}" 2>/dev/null
    done
    [ "${1:-}" = processes ] && return
    [ -s "$NODES" ] && "$ROOT/tests/network/net.sh" down "$NODES"
    if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap tidy EXIT
trap 'exit 130' INT TERM

began=$SECONDS
SHARDS=$work/shards REFERENCE=$work/reference STEPS=${STEPS:-250}
sets=(--set train.micro_batch=4 --set checkpoint.every=25 --set train.digest_every=25)
"$BINARY" shard "$ROOT/shards/data/vis5a_cut.h5ad" --config "$ROOT/configs/spackle/shard.toml" --set filter.top_moran=16 \
    --set split.kind=block --out "$SHARDS" >"$work/prepare.log" 2>&1 &&
    "$BINARY" train "$ROOT/configs/spackle/tiny.toml" --shards "$SHARDS" --run "$REFERENCE" --ranks 1 \
        --set train.max_steps="$STEPS" "${sets[@]}" >>"$work/prepare.log" 2>&1 || { cat "$work/prepare.log"; exit 1; }
"$ROOT/tests/network/net.sh" up "$NODES" || exit 1
{ echo "127.0.0.1 localhost"; awk '$1 != "host" {print $2, $1}' "$NODES"; } >"$NODES.hosts"
# one rank each: without a number Open MPI takes the cores of the first host
case $LIBRARY in openmpi) one=' slots=1' ;; mpich) one=:1 ;; esac
awk -v one="$one" '$1 != "host" {print $2 one}' "$NODES" >"$NODES.list"
echo "undisturbed run of $STEPS steps, three hosts, $("$MPIRUN" --version 2>&1 | sed -n '1p; /Version:/p' | paste -sd' '): $((SECONDS - began)) s"

passed=0
for case in "${cases[@]}"; do
    DIR=$work/$case
    mkdir -p "$DIR"
    export ROOT BINARY SHARDS REFERENCE STEPS DIR NODES LIBRARY MPIRUN
    start=$SECONDS
    timeout -k 10 180 bash -c 'SETS=("${@:2}"); source "$ROOT/tests/network/lib.sh"; source "$1"' - \
        "$ROOT/tests/network/cases/$case.sh" "${sets[@]}" >"$DIR/log" 2>&1
    code=$?
    tidy processes
    for node in n1 n2 n3; do "$ROOT/tests/network/net.sh" clear "$NODES" $node; done
    if [ $code = 0 ] && [ -s "$DIR/proven" ]; then
        passed=$((passed + 1))
        printf 'ok        %-12s %4d s  %s\n' "$case" $((SECONDS - start)) "$(cat "$DIR/proven")"
    else
        printf 'FAILED    %-12s %4d s  exit %d\n' "$case" $((SECONDS - start)) "$code"
        tail -n 20 "$DIR/log"
        for said in "$DIR"/life-*/{mpirun,err-*}; do [ -s "$said" ] && echo "--- ${said#"$DIR/"}" && tail -n 15 "$said"; done
    fi
done
echo "$passed of ${#cases[@]} proven in $((SECONDS - began)) s"
[ "$passed" = "${#cases[@]}" ]
