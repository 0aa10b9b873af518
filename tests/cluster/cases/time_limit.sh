# Time runs out: Slurm sends USR1 to the script, the run saves and the script requeues it.
source "$ROOT/tests/cluster/lib.sh"
cluster 2
# Slurm looks for limits every 30 s from the start of its controller: the first look shall meet the run midway
sleep 22
job=$(train "$DIR/run" "${world[@]}" --time=1 --signal=B:USR1@50)
within 80 lives "$job" 1
said "$job" "stopped and saved; requeued as life 1"
at=$(step_of "$DIR/run")
[ "$at" -lt "$STEPS" ] || fail "the run was over before its time was"
scontrol update jobid="$job" TimeLimit=30
finished "$job" 90
said "$job" "life 1 on"
said "$job" "^from step-"
same_as_reference "$DIR/run"
proven "warned by USR1 before its limit, saved at step $at of $STEPS, requeued itself, same bytes"
