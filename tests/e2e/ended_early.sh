#!/usr/bin/env bash
# A run that is asked to end finishes its step, saves, and ends with 75; the same command goes on as if nothing had been.
source "$(dirname "$0")/common.sh"

newest() { ls "$1/checkpoints" | sed -n 's/^step_0*\([0-9]*\)$/\1/p' | sort -n | tail -1; }
last_step() { losses "$1/metrics.jsonl" step | tail -1 | cut -d' ' -f1; }
# saved OUTPUT: the step that was done last.
saved() { [ "$(newest "$1")" = "$(last_step "$1")" ] || fail "$1: step $(last_step "$1") done, step $(newest "$1") saved"; }

# SIGUSR1, to mpirun and to one rank, once and again and again; in the middle of saving too.
start_job run 2
kill -USR1 "$job"
ends_with 75
expect_text run.log "stopped by SIGUSR1" "the same command goes on"
saved run
start_job run 2
kill -USR1 "${ranks[1]}"
ends_with 75
expect_text run.log "resumed at step" "stopped by SIGUSR1"
saved run
start_job run 2 checkpoint.every=1
for ((i = 0; i < 20; ++i)); do kill -USR1 "$job" "${ranks[@]}" 2>/dev/null || true; done
ends_with 75
saved run
# As a run that was not interrupted.
steps=$(($(last_step run) + 3))
tokens=$((steps * $(sed -n '/"step":1,/s/.*"tokens":\([0-9]*\).*/\1/p' run/metrics.jsonl | head -1)))
for output in run reference; do
  expect_end 0 $output.log mpirun -n 2 "$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" output=$output \
    train.tokens=$tokens threads=1 checkpoint.resume=auto eval.sequences=4 eval.every=0 checkpoint.every=0
done
diff <(losses run/metrics.jsonl step) <(losses reference/metrics.jsonl step) ||
  fail "a run that was ended early and resumed is another than one that was not"

# SIGTERM, as far as the launcher leaves the time, which the message tells; the checkpoints are whole.
start_job term 2
kill -TERM "$job"
ends_with any
expect_text term.log "SIGTERM or SIGINT" "send SIGUSR1"
[ -z "$(newest term)" ] || saved term

# Without a launcher SIGINT is enough.
"$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" output=alone train.tokens=100M eval.sequences=4 eval.every=0 \
  >alone.log 2>&1 &
job=$! running=$! ranks=()
wait_for grep -q '"kind":"step"' alone/metrics.jsonl
kill -INT "$job"
ends_with 75
saved alone

# The time that is left is enough to save.
SECONDS=0
expect_end 75 walltime.log mpirun -n 2 "$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" output=walltime \
  train.tokens=100M train.max_walltime=12s threads=1 checkpoint.resume=auto eval.sequences=4 eval.every=0 checkpoint.every=0
expect_text walltime.log "stopped by the time limit"
saved walltime
SLURM_JOB_END_TIME=$(($(date +%s) + 3)) expect_end 75 slurm.log "$ziggurat" train \
  "$source_dir/configs/tiny/pr_moe.yaml" output=walltime train.tokens=100M checkpoint.resume=auto eval.sequences=4
expect_text slurm.log "stopped by the time limit"
saved walltime

# The file STOP: saved, and not started again before it is removed.
start_job stop 2
touch stop/STOP
ends_with 75
expect_text stop.log "stopped by the file STOP" "remove that file"
saved stop
expect_end 2 refused.log "$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" output=stop train.tokens=100M
expect_text refused.log "stop/STOP is there" "remove it to train on"
rm stop/STOP
start_job stop 2
expect_text stop.log "resumed at step"
kill -USR1 "$job"
ends_with 75

# requeue.sh: rounds until it is done; an end that would come again is final; three rounds for nothing are too.
requeue=$source_dir/scripts/slurm/requeue.sh
cat >round.sh <<'ROUND'
#!/usr/bin/env bash
# A round that saves the next step, or none, and ends with the code of its line in `codes`: "75 saves", "1 fails".
read -r code what < <(sed -n "$(($(cat rounds) + 1))p" codes)
echo $(($(cat rounds) + 1)) >rounds
[ "$what" != saves ] || mkdir -p requeued/checkpoints/step_$(printf %08d "$(cat rounds)")
exit "$code"
ROUND
chmod +x round.sh
rounds() {  # CODE ROUNDS LINE...: so ends requeue.sh after so many rounds
  local code=$1 expected=$2
  shift 2
  rm -rf requeued
  echo 0 >rounds
  printf '%s\n' "$@" >codes
  expect_end "$code" requeue.log "$requeue" requeued ./round.sh
  [ "$(cat rounds)" = "$expected" ] || { cat requeue.log; fail "expected $expected rounds, got $(cat rounds)"; }
  [ ! -e requeued/requeue ] || fail "the count was left behind"
}
rounds 0 4 "75 saves" "76 saves" "137 fails" "0 saves"
for code in 2 3 77; do rounds $code 2 "75 saves" "$code fails"; done
rounds 93 3 "1 fails" "1 fails" "1 fails" "0 saves"
expect_text requeue.log "3 rounds in a row began at step 0"
rounds 93 6 "75 saves" "1 fails" "75 saves" "1 fails" "76 fails" "137 fails" "0 saves"
