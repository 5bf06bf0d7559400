# Sourced after tests/e2e/common.sh: a Slurm of two nodes on this host, for tests. Needs root; munge and slurm-wlm of Debian, which it installs if
# they are missing, and removes again in the end.
#   start_cluster FOLDER    everything that it keeps and logs lies there; exports SLURM_CONF
#   stop_cluster            also of one that did not come up: call it from a trap

install_slurm() {
  installed_packages=
  [ "$(command -v slurmctld slurmd munged srun | wc -l)" = 4 ] && return
  local before
  before=$(dpkg-query -W -f '${Package}\n' | sort)
  apt-get update -q >/dev/null
  # Services of the packages must not start: this one brings its own.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends slurm-wlm munge >/dev/null
  installed_packages=$(comm -13 <(echo "$before") <(dpkg-query -W -f '${Package}\n' | sort))
}

start_cluster() {
  cluster=$1
  [ "$(id -u)" = 0 ] || { echo "a Slurm of its own needs root" >&2; return 1; }
  install_slurm
  local host node port=$((20000 + $$ % 10000))
  host=$(hostname -s)
  mkdir -p "$cluster/state" "$cluster/tmp.node1" "$cluster/tmp.node2"
  head -c 1024 /dev/urandom >"$cluster/munge.key"
  chmod 400 "$cluster/munge.key"
  munged --force --key-file="$cluster/munge.key" --socket="$cluster/munge.socket" --pid-file="$cluster/munged.pid" \
    --log-file="$cluster/munged.log" --seed-file="$cluster/munged.seed"
  # A requeued job waits until credentials of its first life are void. TmpFS: where PMIx has a folder a job.
  cat >"$cluster/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host
AuthInfo=socket=$cluster/munge.socket,cred_expire=10
SlurmUser=root
SlurmdUser=root
SlurmctldPort=$port
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool.%n
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.%n.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/slurmd.%n.log
SlurmdParameters=config_overrides
TmpFS=$cluster/tmp.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=30
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=1
NodeName=node1 NodeHostname=$host Port=$((port + 1)) CPUs=4
NodeName=node2 NodeHostname=$host Port=$((port + 2)) CPUs=4
PartitionName=main Nodes=ALL Default=YES State=UP
CONF
  export SLURM_CONF=$cluster/slurm.conf
  slurmctld -c 2>/dev/null
  for node in node1 node2; do slurmd -N $node; done
  local i
  for ((i = 0; i < 600; ++i)); do
    [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = 2 ] && return
    sleep 0.1
  done
  tail -n 20 "$cluster"/*.log >&2
  echo "the cluster did not come up" >&2
  return 1
}

stop_cluster() {
  local name pids=
  scancel --quiet --state=RUNNING,PENDING --signal=KILL --full 2>/dev/null || true
  scancel --quiet -u root 2>/dev/null || true
  for name in slurmd.node1 slurmd.node2 slurmctld munged; do
    [ -s "$cluster/$name.pid" ] && pids+=" $(cat "$cluster/$name.pid")"
  done
  local i
  for ((i = 0; i < 300; ++i)); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
  [ -z "$pids" ] || kill $pids 2>/dev/null || true
  for name in $pids; do wait_for gone "$name"; done
  if [ -n "$installed_packages" ]; then
    DEBIAN_FRONTEND=noninteractive apt-get purge -y -q $installed_packages >/dev/null
  fi
}
