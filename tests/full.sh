#!/bin/bash
# Everything that is too big for CI, on one machine: full.sh [LOG]. As root, with Slurm, both MPI libraries and iproute2.
#
# PARTS="build-openmpi build-mpich stories-openmpi … kills-mpich" chooses (all by default); SYNCYTIA_OPENMPI and
# SYNCYTIA_MPICH name programs built elsewhere, for when no part builds. KILLS=200 and SYNCYTIA_SCHEDULES=200 are how often with
# Open MPI; with MPICH a tenth of that: what is new there is the library, not the schedule.
# A part that is not proven within its time has failed. Writes docs/full.log: the date, the machine, a line per part with its own `n of n` and its time; what
# the parts said lies in target/full. Exit: 0 all proven, 1 not.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export SYNCYTIA_REQUIRE_ALL=1 CARGO_TERM_COLOR=never
kills=${KILLS:-200} schedules=${SYNCYTIA_SCHEDULES:-200}
said=target/full

all=(build-openmpi build-mpich stories-openmpi stories-mpich cluster-openmpi cluster-mpich network-openmpi network-mpich
    kills-openmpi kills-mpich)
declare -A minutes=([build]=30 [stories]=60 [cluster]=30 [network]=20 [kills]=40)
declare -A linked=([openmpi]='libmpi\.so' [mpich]='libmpich\.so')
declare -A program=([openmpi]=${SYNCYTIA_OPENMPI:-target/openmpi/release/syncytia})
program[mpich]=${SYNCYTIA_MPICH:-target/mpich/release/syncytia}

part() { # PART: runs one, in this process
    local library=${1#*-} share=1
    [ "$library" = mpich ] && share=10
    export SYNCYTIA_SCHEDULES=$((schedules / share))
    case $1 in
    build-*)
        # an object of an earlier build may stay linked with the other library, so it is looked at
        MPICC=mpicc.$library cargo build --release --features mpi --target-dir "target/$library" &&
            ldd "target/$library/release/syncytia" | grep "${linked[$library]}" && echo "1 of 1 programs linked with $library"
        ;;
    stories-*) # of those marked `ignored` one is a part of the others, under mpirun
        export MPICC=mpicc.$library
        local stories=(cargo test --release --features mpi --target-dir "target/$library" --test stories -- --show-output)
        "${stories[@]}" engines processes && "${stories[@]}" --ignored ten_thousand
        ;;
    cluster-*) tests/cluster/run.sh full "${program[$library]}" ;;
    network-*) tests/network/run.sh "${program[$library]}" ;;
    kills-*) tests/kills.py "${program[$library]}" $((kills / share)) ;;
    esac
}

proof() { # PART: its `n of n`; cargo has another way to say it
    case $1 in
    stories-*)
        awk '/^test result:/ {p += $4; f += $6} / of [0-9]+ schedules / {more = ", " $0} END {print p " of " p + f " stories" more}' \
            "$said/$1"
        ;;
    *) grep -oE '[0-9]+ of [0-9]+ .*' "$said/$1" | tail -n 1 ;;
    esac
}

all_of_them() { [[ $1 =~ ^([1-9][0-9]*)\ of\ ([0-9]+) ]] && [ "${BASH_REMATCH[1]}" = "${BASH_REMATCH[2]}" ]; }

version() { "$@" 2>&1 | grep -m 1 -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' || echo none; }

machine() {
    date -u '+%Y-%m-%d %H:%M UTC'
    echo "commit $(git rev-parse --short HEAD)$(git diff --quiet HEAD -- . ':!docs' || echo ', changed')"
    echo "$(nproc) cores of $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)," \
        "$(awk '/MemTotal/ {print int($2 / 2^20)}' /proc/meminfo) GiB, load $(cut -d' ' -f1 /proc/loadavg) at the start"
    echo "Linux $(uname -r), $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
    echo "Open MPI $(version mpirun.openmpi --version), MPICH $(version mpirun.mpich --version)," \
        "Slurm $(version slurmctld -V), rustc $(version rustc --version)"
}

if [ "${1:-}" = --part ]; then
    part "$2"
    exit
fi
log=${1:-docs/full.log}
read -ra parts <<<"${PARTS:-${all[*]}}"
for name in "${parts[@]}"; do
    [[ " ${all[*]} " == *" $name "* ]] || { echo "full.sh: no part $name; there are ${all[*]}" >&2; exit 2; }
done
rm -rf "$said"
mkdir -p "$said"
machine | tee "$log"
proven=0 began=$SECONDS
for name in "${parts[@]}"; do
    start=$SECONDS limit=$((60 * ${minutes[${name%-*}]}))
    # timeout ends the whole group of a part, and the part's own traps tidy up
    timeout -k 120 $limit tests/full.sh --part "$name" >"$said/$name" 2>&1 &
    running=$!
    trap 'kill $running; wait $running; exit 130' INT TERM
    wait $running
    code=$?
    [ $code = 124 ] && echo "not within $limit s" >>"$said/$name"
    words=$(proof "$name")
    if [ $code = 0 ] && all_of_them "$words"; then word=ok proven=$((proven + 1)); else word=FAILED; fi
    printf '%-7s %-16s %5d s  %s\n' $word "$name" $((SECONDS - start)) "${words:-nothing proven}" | tee -a "$log"
    [ $word = ok ] && continue
    { echo "exit $code"; grep -aE '^FAILED|^test .* FAILED' "$said/$name"; tail -n 8 "$said/$name"; } | sed 's/^/        /' |
        tee -a "$log"
done
echo "$proven of ${#parts[@]} parts proven in $(((SECONDS - began) / 60)) min" | tee -a "$log"
[ $proven = ${#parts[@]} ]
