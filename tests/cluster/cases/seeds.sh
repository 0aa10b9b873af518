# An array over seeds on staged shards; one element is sent away and requeued under its own name.
source "$ROOT/tests/cluster/lib.sh"
cluster 3
export SYNCYTIA_STAGE=$DIR/disk
array=$(train "$DIR/run" --array=42-44 --cpus-per-task=2 | cut -d_ -f1)
running_midway "$DIR/run/seed-42"
scancel --signal=USR1 --batch "${array}_42"
within 30 lives "${array}_42" 1
for seed in 42 43 44; do finished "${array}_$seed" 120; done
same_as_reference "$DIR/run/seed-42"
last=$(printf 'step-%08d' "$STEPS")
[ "$(sha256sum "$DIR"/run/seed-*/checkpoints/"$last"/model.safetensors | cut -c1-64 | sort -u | wc -l)" = 3 ] ||
    fail "two seeds gave the same weights"
cat "$DIR"/*.out | grep -q "were copied to" || fail "nothing was staged"
[ -z "$(find "$DIR/disk" -type f)" ] || fail "left on the disk: $(find "$DIR/disk" -type f)"
proven "three seeds, one requeued as ${array}_42 with the same bytes, shards staged and tidied away"
