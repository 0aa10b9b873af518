# Three hosts, a rank each, nothing shared but the folders: the bytes of one process.
train3 "$DIR/run"
well 120
grep -q "on 3 ranks" "$life/err-0" || fail "rank 0 does not know of 3 ranks"
grep -q '"n3"' "$DIR/run/world.json" || fail "no rank was on n3"
same_as_reference "$DIR/run"
proven "3 processes on 3 hosts over TCP, $STEPS steps: the bytes of one process"
