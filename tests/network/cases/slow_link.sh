# A link of 200 Mbit/s beside fast ones: the run ends right, and nobody is called slow who is not.
net rate n2 200mbit
train3 "$DIR/run" --set train.deadline_s=60
well 150
if grep -h "is slow in" "$life"/err-? | grep -v "rank 1 is slow in reduce"; then fail "that is not the slow one"; fi
! grep -iE 'error|panicked' "$life"/err-? || fail "a rank complained"
same_as_reference "$DIR/run"
proven "200 Mbit/s at n2, $STEPS steps: same bytes, $(grep -hc "is slow in" "$life/err-0" || true) warnings, none false"
