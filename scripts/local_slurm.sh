#!/usr/bin/env bash
# A real Slurm on this machine, for tests: bash scripts/local_slurm.sh start|stop|status
#
# One node with all cores and one partition, "debug"; no accounting. Needs Debian or
# Ubuntu and root: installs the packages slurm-wlm and munge where they are missing.
# `start` writes all of its files below a folder (SPARSEJAX_SLURM, by default
# /tmp/sparsejax-slurm), and prints the line that lets sbatch and squeue find it:
#
#   eval "$(bash scripts/local_slurm.sh start)"
#   srun -n1 hostname
#
# Only what this script started is stopped by it. Exit codes: 0 done (status: it runs),
# 1 a daemon did not start or status: it does not run, 2 the command is at fault.
set -euo pipefail

folder=${SPARSEJAX_SLURM:-/tmp/sparsejax-slurm}
configuration=$folder/slurm.conf
export SLURM_CONF=$configuration

say() { echo "local_slurm.sh: $*" >&2; }

install_packages() {
  if command -v slurmctld slurmd munged sbatch >/dev/null; then return; fi
  say "installing slurm-wlm and munge"
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge; } \
    >"$folder/apt.log" 2>&1; then
    say "they could not be installed: see $folder/apt.log"
    exit 1
  fi
}

is_up() { [[ -f $configuration ]] && timeout 10 scontrol ping 2>/dev/null | grep -q UP; }

alive() { [[ -f $1 ]] && kill -0 "$(cat "$1")" 2>/dev/null; }

start_munge() {
  if munge -n </dev/null >/dev/null 2>&1; then return; fi
  install -d -o munge -g munge -m 755 /run/munge
  # Without a login shell, and as the user that its key belongs to.
  su -s /bin/sh munge -c /usr/sbin/munged
  touch "$folder/started-munge"
}

write_configuration() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
  mkdir -p "$folder/state" "$folder/spool"
  cat >"$configuration" <<CONF
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/none
KillWait=5
NodeName=localhost NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=debug Nodes=localhost Default=YES MaxTime=600 State=UP OverSubscribe=YES:4
CONF
}

start() {
  if ((EUID != 0)); then
    say "start it as root: it installs packages and runs daemons"
    exit 2
  fi
  mkdir -p "$folder"
  install_packages
  if ! is_up; then
    write_configuration
    start_munge
    alive "$folder/slurmctld.pid" || slurmctld -f "$configuration" >&2
    alive "$folder/slurmd.pid" || slurmd -f "$configuration" -N localhost >&2
    for _ in $(seq 60); do
      if sinfo --noheader --format=%T 2>/dev/null | grep -qE 'idle|mixed|alloc'; then
        break
      fi
      sleep 0.5
    done
    if ! timeout 60 srun -n1 true >/dev/null 2>"$folder/srun.log"; then
      say "no job runs: see $folder/srun.log, slurmctld.log and slurmd.log beside it"
      exit 1
    fi
  fi
  say "running; its files are in $folder"
  echo "export SLURM_CONF=$configuration"
}

stop() {
  local daemon
  for daemon in slurmd slurmctld; do
    if alive "$folder/$daemon.pid"; then kill "$(cat "$folder/$daemon.pid")"; fi
  done
  if [[ -f $folder/started-munge ]]; then
    su -s /bin/sh munge -c '/usr/sbin/munged --stop' >/dev/null 2>&1 || true
    rm -f "$folder/started-munge"
  fi
  say "stopped"
}

status() {
  if ! is_up; then
    say "not running"
    exit 1
  fi
  sinfo
  squeue
}

case ${1:-} in
start | stop | status) "$1" ;;
-h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" ;;
*)
  say "unknown command '${1:-}'; use start, stop or status"
  exit 2
  ;;
esac
