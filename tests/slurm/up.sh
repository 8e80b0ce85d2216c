#!/bin/sh
# Start a SLURM of one node, this machine, for tests/slurm; says in a line where that cannot be, and then exits with 1.
#
#   sh tests/slurm/up.sh         needs root, and installs Debian's packages if they are not there
#   sh tests/slurm/up.sh down    stops it again
#
# A cluster that is already there, of whatever kind, is left as it is.
set -eu

etc=/etc/slurm
state=/var/lib/slurm-one-node
conf=$etc/slurm.conf
mark="# Written by tests/slurm/up.sh"

cannot() {
    echo "no SLURM: $*"
    exit 1
}

runs() {
    [ -s "$state/$1.pid" ] && kill -0 "$(cat "$state/$1.pid")" 2>/dev/null
}

if [ "${1:-}" = down ]; then
    grep -qs "^$mark" $conf || cannot "the one on this machine was not started by this script"
    for daemon in slurmd slurmctld; do
        if runs $daemon; then kill "$(cat $state/$daemon.pid)"; fi
    done
    exit
fi

# Answers already: nothing to do.
if timeout 10 sinfo --noheader --format=%T 2>/dev/null | grep -qE "idle|mixed|alloc"; then
    echo "SLURM is up: $(sbatch --version)"
    exit
fi

[ "$(id -u)" = 0 ] || cannot "it takes root to start one"
if ! { command -v slurmctld && command -v slurmd && command -v sbatch && command -v munged; } >/dev/null; then
    command -v apt-get >/dev/null || cannot "it is not installed, and there is no apt-get to install it with"
    echo "installing SLURM (once) ..."
    export DEBIAN_FRONTEND=noninteractive
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends slurmctld slurmd slurm-client munge; } \
        >/dev/null 2>&1 || cannot "apt-get cannot install slurmctld, slurmd, slurm-client and munge"
fi
if [ -s $conf ] && ! grep -qs "^$mark" $conf && ! grep -qs "^SlurmctldHost=.*127.0.0.1" $conf; then
    cannot "$conf belongs to another cluster, which does not answer"
fi

# The daemons find the node by its name.
host=$(hostname -s)
getent hosts "$host" >/dev/null || echo "127.0.0.1 $host" >>/etc/hosts

# Memory is for sbatch --mem, and not limited: no plugin here needs cgroups.
memory=$(awk '/^MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
mkdir -p $etc $state/controller $state/node
cat >$conf <<CONF
$mark
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/node
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
# A node that was away is taken back, and a job that ended badly is given 10 seconds to save.
ReturnToService=2
KillWait=10
CONF

# Who is who: munge signs what the commands and the daemons tell each other.
mkdir -p /run/munge /var/log/munge /var/lib/munge
[ -s /etc/munge/munge.key ] || { (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key); }
chown -R munge:munge /etc/munge /run/munge /var/log/munge /var/lib/munge
munge -n >/dev/null 2>&1 || runuser -u munge -- munged || cannot "munged does not start"

runs slurmctld || slurmctld || cannot "slurmctld does not start; see $state/slurmctld.log"
runs slurmd || slurmd -N "$host" || cannot "slurmd does not start; see $state/slurmd.log"
for _ in $(seq 60); do
    if sinfo --noheader --format=%T 2>/dev/null | grep -qE "idle|mixed|alloc"; then
        echo "SLURM is up: $(sbatch --version)"
        exit
    fi
    sleep 1
done
cannot "the node does not come up; see $state"
