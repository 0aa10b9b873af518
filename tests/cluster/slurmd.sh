#!/bin/bash
# Starts the slurmd of one node of a cluster made by up.sh: slurmd.sh FOLDER NODE
set -euo pipefail
dir=$1 node=$2
mkdir -p "$dir/spool/$node" "$dir/tmp/$node"
# A host name and shared memory of its own: Open MPI names its segments by host and local rank, and two nodes of one name
# would map each other's (a segmentation fault in MPI_Init).
start='hostname "$2"; mount -t tmpfs shm /dev/shm; exec slurmd -f "$1/slurm.conf" -N "$2"'
if [ -s "$dir/nodes" ]; then
    # nsenter, not `ip netns exec`: that mounts another /sys, in which slurmd finds no cgroups
    space=$(awk -v node="$node" '$1 == node {print $3}' "$dir/nodes")
    nsenter --net="/run/netns/$space" unshare --uts --mount bash -c "$start" - "$dir" "$node"
else
    unshare --uts --mount bash -c "$start" - "$dir" "$node"
fi
