#!/bin/bash
# A node loses its power: power_off.sh FOLDER NODE. Its slurmd, its step daemons and all that they started end at once, by
# pid; a step daemon is known by the log file it holds open.
dir=$1 node=$2
log=$dir/log/slurmd-$node.log doomed=()
for pid in /proc/[0-9]*; do
    pid=${pid#/proc/}
    [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == slurm* ]] || continue
    find "/proc/$pid/fd" -lname "$log" 2>/dev/null | grep -q . && doomed+=("$pid")
done 2>/dev/null
[ ${#doomed[@]} -gt 0 ] || exit 1
kill -STOP "${doomed[@]}" 2>/dev/null
for ((i = 0; i < ${#doomed[@]}; i++)); do
    for pid in $(cat "/proc/${doomed[i]}/task/"*/children 2>/dev/null); do doomed+=("$pid"); done
done
kill -9 "${doomed[@]}" 2>/dev/null
exit 0
