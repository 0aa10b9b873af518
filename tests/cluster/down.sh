#!/bin/bash
# Ends what up.sh started: down.sh FOLDER. Jobs first, then the daemons, each by its own pid file.
dir=${1:?the folder given to up.sh}
here=$(cd "$(dirname "$0")" && pwd)
export SLURM_CONF=$dir/slurm.conf
if [ -s "$dir/slurmctld.pid" ] && timeout 10 squeue -h -o %A >"$dir/left" 2>/dev/null; then
    # shellcheck disable=SC2046
    [ -s "$dir/left" ] && timeout 10 scancel $(sort -u "$dir/left") 2>/dev/null
    for _ in $(seq 80); do [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
fi
alive() { for f in "$dir"/slurmd-*.pid "$dir/slurmctld.pid" "$dir/munged.pid"; do
    [ -s "$f" ] && pid=$(cat "$f" 2>/dev/null) && kill -0 "$pid" 2>/dev/null && echo "$pid"; done; }
for pid in $(alive); do kill "$pid" 2>/dev/null; done
for _ in $(seq 50); do [ -z "$(alive)" ] && break; sleep 0.1; done
for pid in $(alive); do kill -9 "$pid" 2>/dev/null; done
# what a cut or a lost daemon left running
for log in "$dir"/log/slurmd-*.log; do
    node=${log##*/slurmd-}
    [ -s "$log" ] && "$here/power_off.sh" "$dir" "${node%.log}"
done
[ -s "$dir/nodes" ] && "$here/net.sh" down "$dir/nodes"
exit 0
