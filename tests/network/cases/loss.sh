# A bad cable: 5 % of the packets from and to one host are lost. TCP sends them again; the run is slow and right.
net loss n3 5
train3 "$DIR/run" --set train.deadline_s=60
well 150
lost=$(nsenter --net="/run/netns/$(awk '$1 == "n3" {print $3}' "$NODES")" iptables -nvxL | awk '$3 == "DROP" {n += $1} END {print n + 0}')
[ "$lost" -gt 20 ] || fail "only $lost packets were lost"
! grep -iE 'error|panicked' "$life"/err-? || fail "a rank complained"
same_as_reference "$DIR/run"
proven "$lost packets of n3 lost (5 % each way), $STEPS steps: same bytes"
