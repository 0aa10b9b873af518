# A link is cut, silently: the others say who is lost, in time, and end with 4; later the run goes on as if nothing had been.
deadline=6
train3 "$DIR/run" --set train.deadline_s=$deadline
running_midway "$DIR/run"
net cut n2
cut=$(date +%s.%N)
within $((deadline + 12)) ended 0 2
for rank in 0 2; do
    gave_up $rank "rank 1"
    took=$(awk -v cut="$cut" '{printf "%.1f", $2 - cut}' "$life/code-$rank")
    awk -v took="$took" -v most=$((deadline + 6)) 'BEGIN {exit !(took < most)}' || fail "rank $rank took $took s"
done
# the one behind the cut, too, does not wait for ever
within 20 ended 1
gave_up 1 "rank 0"
at=$(step_of "$DIR/run")
end_mpirun
net heal n2
train3 "$DIR/run" --resume must
well 120
grep -q "^from step-" "$life/err-0" || fail "it did not go on from a checkpoint"
same_as_reference "$DIR/run"
proven "link of rank 1 cut after step $at: ranks 0 and 2 named it and exited 4 after $took s (deadline $deadline s); resumed, same bytes"
