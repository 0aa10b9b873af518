# The network of a node is cut, silently: Slurm finds it down and requeues the job, which ends on the spare node.
source "$ROOT/tests/cluster/lib.sh"
cluster 3 netns
job=$(train "$DIR/run" "${world[@]}")
running_midway "$DIR/run"
dead=$(nodes_of "$job" | tail -1)
at=$(step_of "$DIR/run")
"$ROOT/tests/cluster/net.sh" cut "$DIR/cluster/nodes" "$dead"
within 120 lives "$job" 1
finished "$job" 90
nodes_of "$job" | grep -qx "$dead" && fail "it ran on $dead again"
said "$job" "life 1 on"
said "$job" "^from step-"
same_as_reference "$DIR/run"
proven "$dead cut off after step $at of $STEPS, job requeued and ended on $(nodes_of "$job" | paste -sd' '), same bytes"
