#!/bin/bash
# A real Slurm of N nodes on this host: up.sh N FOLDER [netns]. Root, no systemd; needs slurmctld, slurmd, munge.
#
# Everything lies in FOLDER (absolute), also munge's key and socket: nothing of the host's own Slurm is touched. Clients take
# SLURM_CONF=FOLDER/slurm.conf. With `netns` each node has a network of its own (names and addresses in FOLDER/nodes).
# Partitions: main (default), high (preempts main), short (one hour at most).
set -euo pipefail
n=${1:?how many nodes} dir=${2:?an absolute folder} net=${3:-}
case $dir in /*) ;; *) echo "up.sh: $dir is not absolute: slurmd starts, but cannot launch a step" >&2; exit 2 ;; esac
here=$(cd "$(dirname "$0")" && pwd)
host=$(hostname -s)
memory=$(awk '/MemTotal/{print int($2/1024*0.8)}' /proc/meminfo)
mkdir -p "$dir"/{state,log,spool,tmp}
touch "$dir/log/jobcomp.txt"

# ports nobody listens on (other clusters may run beside this one), below those the kernel gives to clients
while :; do
    port=$((20000 + RANDOM % 1200 * 10))
    ss -ltnH | awk '{print $4}' | grep -qE ":($(seq -s '|' "$port" $((port + n + 1))))$" || break
done

dd if=/dev/urandom bs=1 count=1024 of="$dir/munge.key" status=none
chmod 400 "$dir/munge.key"
munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/log/munged.log" --seed-file="$dir/munge.seed" 2>"$dir/log/munged.err"
for _ in $(seq 50); do munge -n --socket="$dir/munge.socket" >/dev/null 2>&1 && break; sleep 0.1; done

if [ "$net" = netns ]; then
    "$here/net.sh" up "$n" "$dir/nodes"
    controller=$(awk '$1 == "host" {print $2}' "$dir/nodes")
    nodes=$(awk -v port=$((port + 1)) -v rest="CPUs=4 RealMemory=$memory State=UNKNOWN" \
        '$1 != "host" {print "NodeName=" $1 " NodeAddr=" $2 " Port=" port " " rest}' "$dir/nodes")
else
    controller=127.0.0.1
    nodes="NodeName=n[1-$n] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + n))] \
CPUs=4 RealMemory=$memory State=UNKNOWN"
fi

# MessageTimeout: a busy host answers late. cred_expire: how long a requeued job waits (121 s by default). TmpFS per node:
# two slurmd of one host would make the same folder for PMIx.
cat >"$dir/slurm.conf" <<CONF
ClusterName=ci
SlurmctldHost=$host($controller)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=10
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$dir/log/jobcomp.txt
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
SlurmdTimeout=10
MessageTimeout=30
TmpFS=$dir/tmp/%n
SlurmctldTimeout=30
InactiveLimit=0
KillWait=5
MinJobAge=300
OverTimeLimit=0
Waittime=0
SlurmdParameters=config_overrides
$nodes
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=5
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=short Nodes=ALL MaxTime=01:00:00 State=UP PriorityTier=1
CONF
# a container without cgroups: slurmd would not start
grep -q ' cgroup' /proc/mounts || echo "CgroupPlugin=cgroup/v1" >"$dir/cgroup.conf"

export SLURM_CONF=$dir/slurm.conf
slurmctld -f "$dir/slurm.conf" -c
for i in $(seq "$n"); do "$here/slurmd.sh" "$dir" "n$i"; done
until=$((SECONDS + 30))
while [ "$SECONDS" -lt "$until" ]; do
    [ -s "$dir/slurmctld.pid" ] && ! kill -0 "$(cat "$dir/slurmctld.pid")" && break
    [ "$(timeout 5 sinfo -h -N -p main -t idle -o %N 2>/dev/null | sort -u | wc -l)" = "$n" ] && exit 0
    sleep 0.1
done
echo "up.sh: not all of $n nodes came up" >&2
tail -n 3 "$dir/log/slurmctld.log" >&2
timeout 5 sinfo -N -l >&2 || true
exit 1
