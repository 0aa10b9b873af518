#!/bin/bash
# Training jobs on a real Slurm made for the occasion: run.sh [ci|full] SYNCYTIA
#
# Root, Debian's slurmctld, slurmd and munge; iproute2 for the case that cuts a network. SYNCYTIA should be built with the
# feature `mpi` (Open MPI or MPICH): without it the jobs run as one process and the cases about several are left out.
# Each case has its own cluster and compares its last checkpoint, byte for byte, with that of an undisturbed run.
# KEEP=1 keeps the folder with all logs. Exit: 0 all proven, 1 not.
set -uo pipefail

ci=(two_nodes preempted time_limit lost_daemon)
full=("${ci[@]}" resubmitted seeds chain lost_network)
case ${1:-} in
ci) cases=("${ci[@]}"); shift ;;
full) cases=("${full[@]}"); shift ;;
*) cases=("${full[@]}") ;;
esac
BINARY=$(realpath "${1:?usage: run.sh [ci|full] SYNCYTIA [CASE...]}")
shift
[ $# -gt 0 ] && cases=("$@")
ROOT=$(cd "$(dirname "$0")/../.." && pwd)

missing=()
for tool in slurmctld slurmd sbatch munged ip ss; do command -v $tool >/dev/null || missing+=("$tool"); done
[ "$(id -u)" = 0 ] || missing+=("root")
if [ ${#missing[@]} -gt 0 ]; then
    echo "tests/cluster: this machine lacks ${missing[*]} (Debian: slurmctld slurmd slurm-client munge slurm-wlm-basic-plugins" \
        "libpmi2-0 libpmix2 iproute2)" >&2
    [ -n "${SYNCYTIA_REQUIRE_ALL:-}" ] && exit 1
    exit 0
fi

case $(ldd "$BINARY" 2>/dev/null) in
*libmpi*) MPI_BUILD=1 WORLD="--nodes=2 --ntasks-per-node=1 --cpus-per-task=1" ;;
*) MPI_BUILD='' WORLD="--nodes=1 --ntasks-per-node=1 --cpus-per-task=2" ;;
esac
# more ranks than idle cores: waiting ranks give theirs away (5 times faster on a busy machine)
export OMPI_MCA_mpi_yield_when_idle=1
for name in $(compgen -e | grep -E '^(SLURM|SBATCH|SRUN|PMI)'); do unset "$name"; done
unset SYNCYTIA_RANKS SYNCYTIA_THREADS SYNCYTIA_MPI SYNCYTIA_STAGE SYNCYTIA_CONTAINER SYNCYTIA_MAX_REQUEUES

work=$(mktemp -d "${TMPDIR:-/tmp}/cluster-XXXXXX")
down() { for d in "$work"/*/cluster; do [ -d "$d" ] && "$ROOT/tests/cluster/down.sh" "$d"; done; }
tidy() {
    down
    if [ -n "${KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap tidy EXIT
trap 'exit 130' INT TERM

began=$SECONDS
config=$ROOT/configs/spackle/tiny.toml SHARDS=$work/shards REFERENCE=$work/reference
"$BINARY" shard "$ROOT/shards/data/vis5a_cut.h5ad" --set filter.top_moran=16 --out "$SHARDS" >"$work/prepare.log" 2>&1 &&
    before=$(date +%s%N) &&
    "$BINARY" train "$config" --shards "$SHARDS" --run "$work/pace" --ranks 2 --set train.max_steps=300 \
        >>"$work/prepare.log" 2>&1 || { cat "$work/prepare.log"; exit 1; }
# so many steps that two ranks are busy for about 15 s: a run that can be met midway, on any machine
STEPS=$((300 * 15000 / (($(date +%s%N) - before) / 1000000) / 100 * 100))
[ "$STEPS" -ge 500 ] || STEPS=500
"$BINARY" train "$config" --shards "$SHARDS" --run "$REFERENCE" --ranks 1 --set train.max_steps="$STEPS" \
    >>"$work/prepare.log" 2>&1 || { cat "$work/prepare.log"; exit 1; }
echo "undisturbed run of $STEPS steps: $((SECONDS - began)) s"

n=0 passed=0 left_out=0
for case in "${cases[@]}"; do
    n=$((n + 1))
    DIR=$work/$case
    mkdir -p "$DIR"
    export ROOT BINARY SHARDS REFERENCE STEPS DIR WORLD MPI_BUILD
    start=$SECONDS
    timeout -k 10 240 bash "$ROOT/tests/cluster/cases/$case.sh" >"$DIR/log" 2>&1
    code=$?
    took=$((SECONDS - start))
    "$ROOT/tests/cluster/down.sh" "$DIR/cluster"
    case $code in
    0) passed=$((passed + 1)); printf 'ok        %-14s %4d s  %s\n' "$case" "$took" "$(cat "$DIR/proven")" ;;
    99) left_out=$((left_out + 1)); printf 'left out  %-14s %4d s  %s\n' "$case" "$took" "$(cat "$DIR/proven")" ;;
    *)
        printf 'FAILED    %-14s %4d s  exit %d\n' "$case" "$took" "$code"
        tail -n 20 "$DIR/log"
        for out in "$DIR"/*.out "$DIR"/run/log/*.out; do [ -s "$out" ] && echo "--- $(basename "$out")" && tail -n 30 "$out"; done
        ;;
    esac
done
echo "$passed of $n proven in $((SECONDS - began)) s$([ $left_out -gt 0 ] && echo ", $left_out left out")"
[ "$passed" = "$n" ] || { [ $((passed + left_out)) = "$n" ] && [ -z "${SYNCYTIA_REQUIRE_ALL:-}" ]; }
