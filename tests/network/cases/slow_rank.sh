# One rank gets a fifth of the processor: rank 0 names it and what is slow, within 20 steps.
# a larger model than in the other cases: a few milliseconds more a step are noise by design
train3 "$DIR/run" --set model.spackle.d=96 --set model.spackle.layers=2 --set train.micro_batch=32 --set train.max_steps=200
within 60 reached "$DIR/run" 20
# stopped and continued: four programs that compute beside it leave it half of the core, as the kernel shares between sessions
nice -n -15 python3 -c 'import os, sys, time
while True:
    for signal, seconds in (19, 0.02), (18, 0.005):
        os.kill(int(sys.argv[1]), signal)
        time.sleep(seconds)' "$(pid 1)" 2>/dev/null &
brake=$!
disown
release() { kill -9 $brake 2>/dev/null || true; kill -CONT "$(pid 1)" 2>/dev/null || true; }
trap release EXIT
stopped() { grep -q '^State:.T' "/proc/$(pid 1)/status"; }
within 10 stopped
from=$(step_of "$DIR/run")
said() { grep -q "rank 1 is slow in compute" "$life/err-0"; }
within 60 said
release
well 120
words=$(grep -m 1 "rank 1 is slow in compute" "$life/err-0")
at=$(sed 's/.*step \([0-9]*\):.*/\1/' <<<"$words")
[ "$at" -le $((from + 20)) ] || fail "slow from step $from, named at step $at"
proven "slow from step $from: \"${words#warning: }\""
