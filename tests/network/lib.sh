# What the cases stand on, beside tests/cluster/lib.sh (fail, within, reached, step_of, same_as_reference, proven). run.sh sets,
# for each case, what that file asks for, and:
#   NODES the file of net.sh · LIBRARY openmpi or mpich · MPIRUN that library's mpirun
# shellcheck shell=bash
WORLD=''
source "$ROOT/tests/cluster/lib.sh"

net() { "$ROOT/tests/network/net.sh" "$1" "$NODES" "${@:2}"; }

# Starts RUN on three nodes, a rank each, in the background; what the ranks say and how they end lies in the folder $life.
train3() { # RUN [arguments of train…]
    local run=$1 options first command
    shift
    life=$DIR/life-$((++lives)) first=$(awk '$1 == "n1" {print $2}' "$NODES")
    mkdir -p "$life"
    case $LIBRARY in
    # a rank shall end by itself: mpirun's KILL after its TERM comes late; nice: other work on this machine is no part of the story
    openmpi) options=(--allow-run-as-root --hostfile "$NODES.list" --bind-to none --mca plm_rsh_agent "$ROOT/tests/network/rsh.sh"
        --mca odls_base_sigkill_timeout 60 --mca pml ob1 --mca btl self,tcp
        --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0) ;;
    mpich) options=(-f "$NODES.list" -launcher rsh -launcher-exec "$ROOT/tests/network/rsh.sh" -iface eth0
        -genv UCX_TLS tcp,self -genv UCX_NET_DEVICES eth0 -genv FI_PROVIDER tcp) ;;
    esac
    command=("$MPIRUN" "${options[@]}" -n 3 nice -n -10 "$ROOT/tests/network/rank.sh" "$life" "$BINARY"
        train "$ROOT/configs/spackle/tiny.toml" --shards "$SHARDS" --run "$run" --set train.max_steps="$STEPS" "${SETS[@]}" "$@")
    # as with rsh, the words are read by a shell over there
    "$ROOT/tests/network/rsh.sh" "$first" "$(printf '%q ' "${command[@]}")" >"$life/mpirun" 2>&1 &
    mpirun=$!
}
lives=0

pid() { cat "$life/pid-$1"; }
code() { cut -d' ' -f1 "$life/code-$1" 2>/dev/null; }
ended() { local rank; for rank in "$@"; do [ -s "$life/code-$rank" ] || return 1; done; }

# Waits for the end of all ranks and of mpirun, and that all succeeded.
well() { # SECONDS
    within "$1" ended 0 1 2
    local rank
    for rank in 0 1 2; do [ "$(code $rank)" = 0 ] || fail "rank $rank exited $(code $rank): $(tail -n 3 "$life/err-$rank")"; done
    wait "$mpirun" || fail "mpirun exited $?"
}

# A rank ended by the loss of others: its own code, its words, its record.
gave_up() { # RANK WORDS
    [ "$(code "$1")" = 4 ] || fail "rank $1 exited '$(code "$1")' and not 4: $(tail -n 3 "$life/err-$1")"
    grep -qE -- "$2" "$life/err-$1" || fail "rank $1 did not say '$2': $(cat "$life/err-$1")"
    grep -q '"operations"' "$(printf '%s/log/flight-rank-%03d.json' "$DIR/run" "$1")" || fail "rank $1 left no flight record"
}

# mpirun and its daemons wait for what never comes: they and their children end by pid.
end_mpirun() {
    local doomed=() pid i
    for pid in /proc/[0-9]*; do
        grep -qzxF "NODES=$NODES" "$pid/environ" 2>/dev/null || continue
        case $(tr '\0' ' ' <"$pid/cmdline" 2>/dev/null) in *orted* | *mpirun* | *hydra* | *rank.sh*) doomed+=("${pid#/proc/}") ;; esac
    done
    for i in "${doomed[@]}"; do [ "$i" = $$ ] || kill -9 "$i" 2>/dev/null || true; done
    wait "$mpirun" 2>/dev/null || true
}
