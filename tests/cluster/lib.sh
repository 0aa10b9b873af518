# What the cases stand on. run.sh sets, for each case:
#   ROOT the checkout · BINARY the program · SHARDS · REFERENCE the undisturbed run · STEPS its steps · DIR the case's own folder
#   WORLD the sbatch options of a job that spans two nodes (one process, where the program has no MPI)
# shellcheck shell=bash
set -euo pipefail
export SLURM_CONF=$DIR/cluster/slurm.conf SYNCYTIA=$BINARY
read -ra world <<<"$WORLD"

cluster() { "$ROOT/tests/cluster/up.sh" "$1" "$DIR/cluster" "${2:-}"; }

fail() { echo "$*" >&2; exit 1; }

# Submits the template for a run of STEPS steps; prints the job's id.
train() { # RUN [sbatch options… [-- arguments of train…]]
    local run=$1 options=() shards=${FROM:-$SHARDS}
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
    [ $# -gt 0 ] && shift
    sbatch --parsable --output="$DIR/%j.out" "${options[@]}" "$ROOT/slurm/train.sbatch" \
        "$ROOT/configs/spackle/tiny.toml" "$shards" "$run" --set train.max_steps="$STEPS" "$@"
}

field() { scontrol -o show job "$1" 2>/dev/null | tr ' ' '\n' | sed -n "s/^$2=//p" | head -1; }

step_of() { # the last step that RUN logged
    { tail -n 1 "$1/metrics.jsonl" 2>/dev/null || true; } | grep -o '"global_step":[0-9]*' | grep -o '[0-9]*$' || echo 0
}

# Waits until a command is true, SECONDS at most.
within() { # SECONDS COMMAND…
    local until=$((SECONDS + $1))
    shift
    while ! "$@"; do
        [ "$SECONDS" -lt "$until" ] || fail "not within its time: $*"
        sleep 0.1
    done
}

reached() { [ "$(step_of "$1")" -ge "$2" ]; }
state_is() { [[ $(field "$1" JobState) == "$2" ]]; }
lives() { [ "$(field "$1" Restarts)" -ge "$2" ]; }

# The midst of a run: far from both ends.
running_midway() { within 60 reached "$1" $((STEPS / 10)); }

# Waits until a job is over and succeeded; a requeued one is started at once rather than after its delay.
finished() { # JOB SECONDS
    local until=$((SECONDS + $2)) state
    while :; do
        state=$(field "$1" JobState)
        case $state in
        COMPLETED) return 0 ;;
        PENDING)
            # not at once: a step daemon that still tidies up would keep the new life from the sockets of PMIx
            if [ "$(field "$1" Reason)" = BeginTime ]; then
                sleep 4
                scontrol update jobid="$1" StartTime=now 2>/dev/null || true
            fi
            ;;
        RUNNING | COMPLETING | CONFIGURING | REQUEUED | PREEMPTED | '') ;;
        NODE_FAIL) ;; # on its way to PENDING
        *) fail "job $1 ended as $state, exit $(field "$1" ExitCode)" ;;
        esac
        [ "$SECONDS" -lt "$until" ] || fail "job $1 is still $state after $2 s"
        sleep 0.1
    done
}

# The last checkpoint of a run, byte for byte that of the undisturbed run.
same_as_reference() { # RUN
    local last file
    last=$(printf 'step-%08d' "$STEPS")
    [ -d "$REFERENCE/checkpoints/$last" ] || fail "the undisturbed run has no $last"
    for file in model.safetensors train_state/raw.safetensors train_state/adam_m.safetensors train_state/adam_v.safetensors; do
        cmp "$REFERENCE/checkpoints/$last/$file" "$1/checkpoints/$last/$file" || fail "$file differs from the undisturbed run"
    done
}

said() { grep -q -- "$2" "$DIR/$1.out" || fail "job $1 did not say '$2'"; }

proven() { echo "$*" >"$DIR/proven"; }

power_off() { "$ROOT/tests/cluster/power_off.sh" "$DIR/cluster" "$1" || fail "nothing runs on $1"; }

nodes_of() { scontrol show hostnames "$(field "$1" NodeList)"; }
