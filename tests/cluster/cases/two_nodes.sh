# Two nodes, several processes each, joined by MPI: the bits of one process.
source "$ROOT/tests/cluster/lib.sh"
[ -n "$MPI_BUILD" ] || { proven "left out: the program has no MPI"; exit 99; }
cluster 2
job=$(train "$DIR/run" "${world[@]}")
finished "$job" 90
said "$job" "4 ranks, one per process"
said "$job" "on 2 nodes"
same_as_reference "$DIR/run"
proven "4 processes on 2 nodes over MPI give the bytes of one process"
