# A node dies with everything on it: Slurm finds it down and requeues the job, which ends on the spare node.
source "$ROOT/tests/cluster/lib.sh"
cluster 3
job=$(train "$DIR/run" "${world[@]}")
running_midway "$DIR/run"
dead=$(nodes_of "$job" | tail -1)
at=$(step_of "$DIR/run")
power_off "$dead"
within 90 lives "$job" 1
finished "$job" 90
nodes_of "$job" | grep -qx "$dead" && fail "it ran on $dead again"
said "$job" "life 1 on"
said "$job" "^from step-"
same_as_reference "$DIR/run"
proven "$dead killed after step $at of $STEPS, job requeued and ended on $(nodes_of "$job" | paste -sd' '), same bytes"
