#!/usr/bin/env bash
# A Slurm of one node on this machine, for tests: no systemd, all traffic on the loopback, root only.
#   slurm.sh install            Debian's packages
#   slurm.sh start DIRECTORY    daemons, with all their files in DIRECTORY; prints the SLURM_CONF to use
#   slurm.sh stop DIRECTORY
set -euo pipefail
action=${1:?install, start or stop}
if [ "$action" = install ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm
    exit
fi
here=${2:?a directory}
pid_files=("$here"/slurmd.pid "$here"/slurmctld.pid "$here"/munged.pid)

if [ "$action" = stop ]; then
    for file in "${pid_files[@]}"; do
        [ ! -s "$file" ] || kill "$(cat "$file")" 2>/dev/null || true
    done
    exit
fi

node=$(hostname -s)
port=$((20000 + $$ % 5000 * 2))                    # so that two can run side by side
mkdir -p "$here"/state "$here"/spool "$here"/log
chmod 755 "$here"
(umask 077; head -c 1024 /dev/urandom >"$here/munge.key")
munged --key-file="$here/munge.key" --socket="$here/munge.sock" --pid-file="$here/munged.pid" \
    --log-file="$here/log/munged.log" --seed-file="$here/munge.seed" --num-threads=2
cat >"$here/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$here/munge.sock,cred_expire=20    # also the delay after which a requeued job starts
CredType=cred/munge
StateSaveLocation=$here/state
SlurmdSpoolDir=$here/spool
SlurmctldPidFile=$here/slurmctld.pid
SlurmdPidFile=$here/slurmd.pid
SlurmdParameters=config_overrides
SlurmctldLogFile=$here/log/slurmctld.log
SlurmdLogFile=$here/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0
MpiDefault=none
SwitchType=switch/none
MailProg=/bin/true
ReturnToService=2
KillWait=2
# more CPUs than there may be cores: a driver and its labels are in the queue at the same time
NodeName=$node NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=test Nodes=$node Default=YES MaxTime=1:00:00 State=UP
END
export SLURM_CONF="$here/slurm.conf"
slurmctld
slurmd -N "$node"
for _ in $(seq 100); do
    if [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ]; then
        echo "$SLURM_CONF"
        exit
    fi
    sleep 0.1
done
echo "Slurm did not come up within 10 s: see $here/log" >&2
exit 1
