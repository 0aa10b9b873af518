# Two nodes, two processes each, joined by MPI: the bits of one process.
source "$ROOT/tests/cluster/lib.sh"
[ -n "$MPI_BUILD" ] || { proven "the program has no MPI"; exit 99; }
STEPS=200 REFERENCE=$DIR/alone
"$BINARY" train "$ROOT/configs/spackle/tiny.toml" --shards "$SHARDS" --run "$REFERENCE" --ranks 1 --set train.max_steps="$STEPS"
cluster 2
job=$(train "$DIR/run" --nodes=2 --ntasks-per-node=2 --cpus-per-task=1)
finished "$job" 90
said "$job" "4 ranks, one per process"
said "$job" "on 2 nodes"
same_as_reference "$DIR/run"
proven "4 processes on 2 nodes over MPI give the bytes of one process after $STEPS steps"
