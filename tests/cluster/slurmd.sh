#!/bin/bash
# Starts the slurmd of one node of a cluster made by up.sh: slurmd.sh FOLDER NODE
set -euo pipefail
dir=$1 node=$2
mkdir -p "$dir/spool/$node" "$dir/tmp/$node"
if [ -s "$dir/nodes" ]; then
    # nsenter, not `ip netns exec`: that mounts another /sys, in which slurmd finds no cgroups
    space=$(awk -v node="$node" '$1 == node {print $3}' "$dir/nodes")
    nsenter --net="/run/netns/$space" unshare -u bash -c 'hostname "$2"; exec slurmd -f "$1/slurm.conf" -N "$2"' - "$dir" "$node"
else
    slurmd -f "$dir/slurm.conf" -N "$node"
fi
