# The link of rank 0 is cut, and with it its store: the others say so.
deadline=6
train3 "$DIR/run" --set train.deadline_s=$deadline
running_midway "$DIR/run"
net cut n1
cut=$(date +%s.%N)
within $((deadline + 12)) ended 0 1 2
for rank in 1 2; do gave_up $rank "rank 0.*its store does not answer"; done
gave_up 0 "rank [12]"
took=$(awk -v cut="$cut" '{printf "%.1f", $2 - cut}' "$life/code-1")
at=$(step_of "$DIR/run")
end_mpirun
net heal n1
train3 "$DIR/run" --resume auto
well 120
same_as_reference "$DIR/run"
proven "link of rank 0 cut after step $at: ranks 1 and 2 said that its store does not answer, after $took s; resumed, same bytes"
