# `syncytia submit --chain`: shards, then the run, then its report, each when the one before succeeded.
source "$ROOT/tests/cluster/lib.sh"
cluster 2
unset SYNCYTIA # the scripts name the program that wrote them
# the run is stopped midway and requeued: its successor must go on waiting
printf "[filter]\ntop_moran = 16\n" >"$DIR/shard.toml"
jobs=$("$BINARY" submit "$ROOT/configs/spackle/tiny.toml" --shards "$DIR/shards" --run "$DIR/run" \
    --nodes "${world[0]#*=}" --tasks-per-node "${world[1]#*=}" --cpus-per-task "${world[2]#*=}" --time 30:00 \
    --set train.max_steps="$STEPS" --chain "$ROOT/shards/data/vis5a_cut.h5ad" --shard-config "$DIR/shard.toml" --yes)
read -r shard train evaluate <<<"$(cut -d' ' -f1 <<<"$jobs" | paste -sd' ')"
[ "$(field "$evaluate" JobState)" = PENDING ] || fail "evaluate did not wait: $jobs"
finished "$shard" 60
running_midway "$DIR/run"
scancel --signal=USR1 --batch "$train"
within 30 lives "$train" 1
[ "$(field "$evaluate" JobState)" = PENDING ] || fail "evaluate did not wait for the next life"
finished "$train" 90
finished "$evaluate" 60
same_as_reference "$DIR/run"
[ -s "$DIR/run/report/report.html" ] || [ -s "$DIR/run/report-val/report.html" ] || fail "there is no report"
refusal=$("$BINARY" submit "$ROOT/configs/spackle/tiny.toml" --shards "$DIR/shards" --run "$DIR/other" --partition short \
    --time 2:00:00 --yes 2>&1) && fail "a job longer than its partition allows was submitted"
grep -q "longer than the 1:00:00 of partition short" <<<"$refusal" || fail "$refusal"
proven "shard → train (requeued once) → evaluate by submit --chain, same bytes; what cannot start is refused"
