# Numbers that are not finite end every rank alike, at the same step and in the same words, and never reach a checkpoint.
# By a learning rate: no shard with a NaN can be made from outside (`shard` refuses, and every row group has its checksum);
# records of one rank alone are the matter of tests/stories/steps.rs.
train3 "$DIR/run" --set optim.lr=1e4 --set checkpoint.every=1
within 60 ended 0 1 2
for rank in 0 1 2; do
    [ "$(code $rank)" = 6 ] || fail "rank $rank exited $(code $rank) and not 6: $(tail -n 3 "$life/err-$rank")"
    grep "^error: step [0-9]*: .* is not finite" "$life/err-$rank" >"$life/words-$rank" || fail "rank $rank did not say what it was"
    cmp "$life/words-0" "$life/words-$rank" || fail "rank $rank says something else"
done
"$BINARY" verify "$DIR/run" || fail "the newest checkpoint is not whole"
proven "all ranks exited 6: $(cut -c8-80 "$life/words-0")…"
