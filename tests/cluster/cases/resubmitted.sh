# scancel saves; the same command on another number of nodes and ranks goes on.
source "$ROOT/tests/cluster/lib.sh"
cluster 2
job=$(train "$DIR/run" "${world[@]}")
running_midway "$DIR/run"
scancel "$job"
within 30 state_is "$job" CANCELLED
said "$job" "ended from outside"
at=$(step_of "$DIR/run")
again=$(train "$DIR/run" --cpus-per-task=3)
finished "$again" 90
said "$again" "^from step-"
said "$again" "on 3 ranks"
same_as_reference "$DIR/run"
proven "cancelled at step $at of $STEPS, submitted again as one process with 3 ranks, same bytes"
