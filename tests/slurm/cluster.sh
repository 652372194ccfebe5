#!/usr/bin/env bash
# A private SLURM cluster on one machine: a controller and two nodes with 4 processors and 2 fake GPUs each.
#     cluster.sh start FOLDER     cluster.sh stop FOLDER     cluster.sh node FOLDER NAME     cluster.sh sweep
# Needs root and slurmctld, slurmd, slurm-client, munge. `stop` undoes its changes outside FOLDER
# (/etc/slurm/slurm.conf, /etc/hosts). `sweep` stops what a killed run left behind, and nothing else.
set -euo pipefail

command=$1 folder=$(realpath -m "${2:-.}")
mark="# milco test cluster"

start() {
    if [ -e /etc/slurm/slurm.conf ]; then
        echo "cluster.sh: /etc/slurm/slurm.conf exists: this machine belongs to a cluster, it is left alone" >&2
        exit 1
    fi
    mkdir -p "$folder"/{state,node1,node2,munge} /etc/slurm
    for name in node1 node2; do
        for number in 0 1; do mknod -m 666 "$folder/$name-gpu$number" c 1 3; done
        echo "127.0.0.1 $name $mark" >>/etc/hosts
    done
    dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
    chmod 700 "$folder/munge" && chmod 600 "$folder/munge/key"
    configure
    ln -s "$folder/slurm.conf" /etc/slurm/slurm.conf
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge.socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge/seed"
    slurmctld -f "$folder/slurm.conf"
    for name in node1 node2; do node "$name"; done
    for _ in $(seq 60); do
        [ "$(sinfo -h -N -o %T | grep -c '^idle$')" -eq 2 ] && return
        sleep 0.5
    done
    echo "cluster.sh: the nodes did not come up" >&2
    tail -n 20 "$folder"/*.log >&2
    exit 1
}

configure() {
    cat >"$folder/slurm.conf" <<CONF
ClusterName=milco
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CryptoType=crypto/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5
GresTypes=gpu
JobRequeue=1
MinJobAge=3600
SlurmdTimeout=20
KillWait=5
NodeName=node1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=16821 CPUs=4 RealMemory=8000 Gres=gpu:2
NodeName=node2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=16822 CPUs=4 RealMemory=8000 Gres=gpu:2
PartitionName=gpu Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
CONF
    cat >"$folder/gres.conf" <<CONF
AutoDetect=off
NodeName=node1 Name=gpu File=$folder/node1-gpu[0-1]
NodeName=node2 Name=gpu File=$folder/node2-gpu[0-1]
CONF
    echo "CgroupAutomount=no" >"$folder/cgroup.conf"
}

node() { slurmd -N "$1" -f "$folder/slurm.conf"; }

stop() {
    for pid in "$folder"/*.pid; do
        if [ -e "$pid" ]; then kill -KILL "$(cat "$pid")" 2>/dev/null || true; fi
    done
    pkill -KILL -f "slurmstepd: \[" || true # job steps that outlived their node's daemon
    if [ "$(readlink /etc/slurm/slurm.conf)" = "$folder/slurm.conf" ]; then rm /etc/slurm/slurm.conf; fi
    # /etc/hosts may be a mount, which can be written but not replaced
    hosts=$(grep -v "$mark" /etc/hosts) && echo "$hosts" >/etc/hosts
    if [ -d "$folder/munge" ]; then rm -rf "$folder"; fi
}

# A killed run leaves its lines in /etc/hosts and a link to its configuration, whose controller no longer runs.
sweep() {
    grep -q "$mark" /etc/hosts || return 0
    folder=$(dirname "$(readlink /etc/slurm/slurm.conf || echo /nonexistent/slurm.conf)")
    if [ -e "$folder/slurmctld.pid" ] && kill -0 "$(cat "$folder/slurmctld.pid")" 2>/dev/null; then return; fi
    echo "cluster.sh: what an interrupted run left is taken back" >&2
    stop
}

case $command in
sweep) sweep ;;
start) start ;;
stop) stop ;;
node) node "$3" ;;
esac
