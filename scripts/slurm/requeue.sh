#!/usr/bin/env bash
# Starts a run again until it is done:   requeue.sh OUTPUT COMMAND [ARGUMENT ...]
#
# OUTPUT is the run's folder, COMMAND starts it: mpirun or srun with `ziggurat train ... output=OUTPUT`. In a Slurm
# job that may be requeued (sbatch --requeue) every round is a job, which puts itself back into the queue; elsewhere
# rounds follow each other here. SIGUSR1 is handed on to COMMAND: the round saves and ends, and another one follows.
# SIGTERM and SIGINT are handed on too, and end it all.
#
# Ends with COMMAND's exit code where another start would end the same way: 0 done, 2 config, 3 data or checkpoint,
# 77 numeric; or when OUTPUT/STOP is there. Ends with 93 when three rounds in a row have saved no further step.
# OUTPUT/requeue keeps count meanwhile.
set -uo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
output=$1
shift
most_rounds=3
count=$output/requeue

tell() { echo "requeue: $*" >&2; }
newest_step() {
  local step
  step=$(ls "$output/checkpoints" 2>/dev/null | sed -n 's/^step_0*\([0-9][0-9]*\)$/\1/p' | sort -n | tail -1)
  echo "${step:-0}"
}
finish() {
  rm -f "$count"
  exit "$1"
}

# Slurm before 23.02 does not tell jobs when they will be ended.
if [ -n "${SLURM_JOB_ID:-}" ] && [ -z "${SLURM_JOB_END_TIME:-}" ]; then
  if end=$(squeue --noheader --job "$SLURM_JOB_ID" --format %e 2>/dev/null) && end=$(date -d "$end" +%s 2>/dev/null); then
    export SLURM_JOB_END_TIME=$end
  fi
fi
may_requeue() { [ -n "${SLURM_JOB_ID:-}" ] && scontrol show job "$SLURM_JOB_ID" 2>/dev/null | grep -q 'Requeue=1'; }

child= cancelled=
hand_on() { [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null; }
trap 'hand_on USR1' USR1
trap 'cancelled=1; hand_on TERM' TERM INT

mkdir -p "$output" || exit 2
while true; do
  # Counted before the round, so that one which ends with its node counts too.
  step=$(newest_step) begun_at= rounds=0
  [ ! -e "$count" ] || read -r begun_at rounds <"$count"
  [ "$begun_at" = "$step" ] || rounds=0
  if [ "$rounds" -ge $most_rounds ]; then
    tell "$rounds rounds in a row began at step $step and saved no further one: look at $output/rank_*.log and" \
      "$output/flight before you start it again"
    finish 93
  fi
  echo "$step $((rounds + 1))" >"$count"

  "$@" &
  child=$!
  code=0
  wait "$child" || code=$?
  while kill -0 "$child" 2>/dev/null; do  # a signal ended the wait, not the command
    code=0
    wait "$child" || code=$?
  done
  child=
  case $code in
    0 | 2 | 3 | 77 | 93) finish "$code" ;;
  esac
  if [ -e "$output/STOP" ]; then
    tell "$output/STOP is there: not started again"
    finish "$code"
  fi
  if [ -n "$cancelled" ]; then
    tell "ended by a signal: not started again"
    finish "$code"
  fi
  tell "exit code $code at step $(newest_step), begun at step $step: starting again"
  if may_requeue; then
    scontrol requeue "$SLURM_JOB_ID" || finish "$code"
    exit "$code"
  elif [ -n "${SLURM_JOB_ID:-}" ] && [ "$code" = 75 ]; then
    tell "this job's time is nearly over, and it may not be requeued (sbatch --requeue): submit it again"
    exit "$code"
  fi
done
