# A process stops for 3 s and goes on: a pause, no more.
train3 "$DIR/run" --set train.deadline_s=30
running_midway "$DIR/run"
kill -STOP "$(pid 1)"
at=$(step_of "$DIR/run")
sleep 3
kill -CONT "$(pid 1)"
well 120
longest=$(grep -o '"step_s":[0-9.e-]*' "$DIR/run/metrics.jsonl" | cut -d: -f2 | sort -g | tail -1)
awk -v longest="$longest" 'BEGIN {exit !(longest > 2.5 && longest < 5)}' || fail "the longest step took $longest s"
! grep -E 'error|panicked|slow in (data|compute)' "$life"/err-? || fail "somebody complained"
same_as_reference "$DIR/run"
proven "rank 1 stopped for 3 s at step $at: the longest step took ${longest:0:4} s, no word of it, same bytes"
