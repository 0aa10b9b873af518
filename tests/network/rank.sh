#!/bin/bash
# One rank: rank.sh LIFE PROGRAM… leaves in LIFE what it says, its pid and its exit code, also where mpirun no longer hears it.
# mpirun's TERM is for the program, not for this witness.
life=$1 rank=${OMPI_COMM_WORLD_RANK:-$PMI_RANK}
shift
trap : TERM INT
"$@" >"$life/out-$rank" 2>"$life/err-$rank" &
echo $! >"$life/pid-$rank"
while wait $!; code=$?; [ $code -gt 128 ] && kill -0 $! 2>/dev/null; do :; done
echo "$code $(date +%s.%N)" >"$life/code-$rank"
exit "$code"
