# A job of a higher partition takes the nodes: the run saves, Slurm requeues it, and it ends with the same bits.
source "$ROOT/tests/cluster/lib.sh"
cluster 2
job=$(train "$DIR/run" "${world[@]}")
running_midway "$DIR/run"
urgent=$(sbatch --parsable --partition=high --nodes=2 --exclusive --output=/dev/null --wrap='sleep 2')
within 60 lives "$job" 1
# TERM with a grace time goes to the step alone (the script requeues), without one to the script too (Slurm does)
said "$job" "stopped and saved; "
at=$(step_of "$DIR/run")
finished "$urgent" 60
finished "$job" 90
said "$job" "life 1"
said "$job" "^from step-"
same_as_reference "$DIR/run"
proven "preempted at step $at of $STEPS, requeued, same bytes"
