#!/usr/bin/env bash
# Jobs of a real Slurm, on two nodes of this host, that lose a rank, run out of time, are signalled and cancelled: they
# are requeued until they are done, or end for good.   tests/slurm/requeue.sh ZIGGURAT SOURCE_DIR
# Needs root, installs Slurm if it is missing; about five minutes. Not part of ctest.
source "$(dirname "$0")/../e2e/common.sh"
source "$source_dir/tests/slurm/cluster.sh"
trap 'stop_cluster; rm -rf "$folder"' EXIT
start_cluster "$folder/cluster"
export ZIGGURAT=$ziggurat
scripts=$source_dir/scripts/slurm

# submit OUTPUT SCRIPT STEPS SBATCH_OPTION... -- key=value...: sets $job.
submit() {
  local output=$1 script=$2 steps=$3 options=()
  shift 3
  while [ "$1" != -- ]; do options+=("$1"); shift; done
  shift
  job=$(sbatch --parsable --nodes 2 --ntasks-per-node 1 --output="$output.out" "${options[@]}" "$scripts/$script" \
    "$source_dir/configs/tiny/pr_moe.yaml" "$PWD/$output" train.tokens=$((steps * 2048)) threads=1 eval.every=0 \
    eval.sequences=4 log.every=1 checkpoint.every=0 checkpoint.resume=auto "$@")
}
field() { scontrol show job "$job" | sed -n "s/.*\b$1=\([^ ]*\).*/\1/p" | head -1; }
steps_done() { losses "$1/metrics.jsonl" step 2>/dev/null | tail -1 | cut -d' ' -f1; }
starts() { grep -c '"kind":"start"' "$1/metrics.jsonl" 2>/dev/null || true; }
# runs OUTPUT N: its Nth round has done a step.
runs() {
  wait_for eval "[ \"\$(starts $1)\" -ge $2 ] && tail -1 $1/metrics.jsonl | grep -q '\"kind\":\"step\"'"
}
ends() {  # STATE CODE
  wait_for eval "[[ \$(field JobState) =~ COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL ]]"
  [ "$(field JobState) $(field ExitCode)" = "$1 $2:0" ] ||
    { cat ./*.out; scontrol show job "$job"; fail "expected $1 with $2, got $(field JobState) with $(field ExitCode)"; }
}
counts_to() { diff <(losses "$1/metrics.jsonl" step | cut -d' ' -f1) <(seq "$2") || fail "$1: expected each step once"; }
rank_process() {  # OUTPUT RANK
  local process
  for process in $(pgrep -f "train .*output=$PWD/$1 "); do
    tr '\0' '\n' <"/proc/$process/environ" 2>/dev/null | grep -qE "^(PMIX_RANK|OMPI_COMM_WORLD_RANK)=$2$" &&
      [ "$(readlink "/proc/$process/exe")" = "$ziggurat" ] && echo "$process" && return
  done
}

# srun: a rank is killed; the job is requeued, goes on and is done.
submit srun train_srun.sbatch 150 --time=10 -- checkpoint.every=10
wait_for test -e srun/checkpoints/step_00000010
kill -KILL "$(rank_process srun 1)"
ends COMPLETED 0
expect_text srun.out "task 1: Killed" "starting again" "resumed at step" "the goal is reached"
counts_to srun 150
[ "$(field Restarts)" -ge 1 ] || fail "the job was not requeued"

# mpirun: Slurm says that the time is nearly over; saved, requeued, resumed. Cancelled, and not started again.
submit mpirun train_mpirun.sbatch 100000 --time=1 --signal=B:USR1@40 --
wait_for eval "grep -q 'stopped by SIGUSR1' mpirun.out && grep -q 'resumed at step' mpirun.out"
expect_text mpirun.out "exit code 75"
runs mpirun 2
scancel "$job"
wait_for eval "[ \"\$(field JobState)\" = CANCELLED ]"
wait_for grep -q "not started again" mpirun.out

# srun leaves ranks the time to save when a job is cancelled.
submit cancelled train_srun.sbatch 100000 --time=10 --
runs cancelled 1
scancel "$job"
wait_for grep -q "stopped by SIGTERM" cancelled.out
wait_for grep -q "not started again" cancelled.out
[ -e "cancelled/checkpoints/step_$(printf %08d "$(steps_done cancelled)")" ] || fail "the last step was not saved"

# A fault that comes again: three rounds without a checkpoint, and no fourth.
submit fault train_srun.sbatch 100000 --time=10 --
for round in 1 2 3; do
  wait_for eval "[ \"\$(grep -c 'info step 1/' fault.out)\" -ge $round ]"
  kill -KILL "$(rank_process fault 1)"
done
ends FAILED 93
expect_text fault.out "3 rounds in a row began at step 0"
echo "passed"
