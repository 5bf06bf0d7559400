#!/usr/bin/env bash
# Nothing that a training run made is lost or mixed: one job in a folder, earlier runs kept, one record a step, goals
# that count tokens, and folders that cannot be made or are removed.
source "$(dirname "$0")/common.sh"

tiny=$source_dir/configs/tiny/pr_moe.yaml
train=("$ziggurat" train "$tiny" eval.sequences=4 checkpoint.resume=auto)
steps() { losses "$1/metrics.jsonl" step | cut -d' ' -f1; }
counts_to() { diff <(steps "$1") <(seq "$2") || fail "$1: expected the steps 1 to $2, each once"; }
records() { grep -c "\"kind\":\"$2\"" "$1/metrics.jsonl"; }
# kill_when COMMAND...: kills the job $job as soon as the command succeeds.
kill_when() {
  wait_in_job "$@"
  kill -9 "$job"
  wait "$job" 2>/dev/null || true
}

# A second job is refused while the first lives, whatever it wants; after a kill -9 the next one goes on.
"${train[@]}" output=run train.tokens=10M checkpoint.every=5 >job.log 2>&1 &
job=$!
wait_in_job has_saved run 5
for resume in auto never; do
  expect_end 2 second.log "${train[@]}" output=run checkpoint.resume=$resume
  expect_text second.log "another job that is alive" "pid $job on $(hostname)" "output="
done
expect_end 2 second.log mpirun -n 2 "${train[@]}" output=run
expect_text second.log "pid $job on $(hostname)"
kill_when has_saved run 10
goal=$(($(steps run | tail -1) + 20))
tokens=$((goal * $(sed -n '/"step":1,/s/.*"tokens":\([0-9]*\).*/\1/p' run/metrics.jsonl | head -1)))
expect_end 0 resumed.log "${train[@]}" output=run train.tokens=$tokens
expect_text resumed.log "taken over from a job that is dead: pid $job" "resumed at step" "the goal is reached"
counts_to run $goal
[ "$(records run start)" = 2 ] || fail "expected two start markers"
[ ! -e run/run.lock ] || fail "the lock was not given back"
cp -r run finished
expect_end 0 again.log "${train[@]}" output=run train.tokens=$tokens
expect_text again.log "the goal is reached already"
diff -r --exclude='rank_*.log' run finished || fail "a finished run was changed by another start"

# Another batch: the goal still counts tokens.
expect_end 0 batch.log "${train[@]}" output=run train.tokens=$((tokens + 50000)) batch.global_batch=64 \
  checkpoint.allow_schedule_changes=true
[ "$(grep -o '"tokens":[0-9]*,"total_tokens"' run/metrics.jsonl | tail -1 | grep -o '[0-9]*')" -ge $((tokens + 50000)) ] ||
  fail "another batch trained too little"

# A new run in a used folder has it for itself; interrupted, it is the one that goes on.
cp -r run before
"${train[@]}" output=run checkpoint.resume=never train.tokens=10M checkpoint.every=3 >job.log 2>&1 &
job=$!
saved_anew() { [ -d run/earlier_1/checkpoints ] && has_saved run 3; }
kill_when saved_anew
diff -r run/earlier_1 before || fail "the earlier run was changed"
[ "$(steps run | head -1)" = 1 ] || fail "the new run's metrics are mixed with the earlier one's"
expect_end 0 new.log "${train[@]}" output=run train.tokens=$tokens
expect_text new.log "resumed at step"
counts_to run $goal

# No usable checkpoint: refused with reasons and cures, and the folder stays as it was.
for manifest in run/checkpoints/*/manifest.json; do echo damaged >>"$manifest"; done
rm -rf before
cp -r run before
expect_end 3 none.log "${train[@]}" output=run train.tokens=$tokens
expect_text none.log "none that can be used" "cut off or damaged" "checkpoint.resume=never"
diff -r run before || fail "a refused start changed the folder"
expect_end 2 model.log "${train[@]}" output=finished model.hidden=128 train.tokens=$tokens
expect_text model.log "model.hidden: " "checkpoint.allow_model_changes=true"
[ ! -e finished/run.lock ] || fail "a refused start left its lock"

# Output that cannot be made names the key.
touch file
expect_end 2 log "${train[@]}" output=file
expect_text log "output: " "file"
expect_end 2 log "${train[@]}" output=file/below
expect_text log "output: " "Not a directory"
expect_end 2 log "${train[@]}" output=/proc/nowhere
expect_text log "output: " "/proc/nowhere"
expect_end 2 log "${train[@]}" output="$(printf 'x%.0s' {1..300})"
expect_text log "output: " "File name too long"
expect_end 3 log bash -c 'ulimit -f 64; exec "$@"' _ "${train[@]}" output=limited checkpoint.every=1
expect_text log "errno 27"
[ -z "$(find limited -name '*.tmp')" ] || fail "a failed save left something behind"

# A folder removed while training is made again, and so are its metrics alone.
"${train[@]}" output=removed train.tokens=10M checkpoint.every=0 eval.every=0 >job.log 2>&1 &
job=$!
wait_in_job grep -q '"kind":"step"' removed/metrics.jsonl
rm removed/metrics.jsonl
wait_in_job grep -q '"kind":"step"' removed/metrics.jsonl
head -n 1 removed/metrics.jsonl | grep -q '"kind":"start"' || fail "metrics made again do not say where they begin"
mv removed away  # in one step, unlike rm -r, between whose steps something may be made again
rm -r away
kill_when grep -q '"kind":"step"' removed/metrics.jsonl
grep -q "removed was removed or moved away while training: made again" job.log || { cat job.log; fail "no word of the removed folder"; }
[ -e removed/run.lock ] && [ -e removed/config.yaml ] && [ -e removed/rank_0.log ] || fail "the folder was not made again"

# Checkpoints behind a link are still an earlier run's after it was set aside.
"${train[@]}" output=linked train.tokens=8K >job.log 2>&1
mv linked/checkpoints elsewhere
ln -s ../elsewhere linked/checkpoints
"${train[@]}" output=linked train.tokens=8K checkpoint.resume=never >job.log 2>&1
"$ziggurat" logits --checkpoint linked/earlier_1 --tokens 1,2 --output logits.safetensors

# Whoever starts a job without standard streams has files of its own under their numbers.
"${train[@]}" output=closed train.tokens=8K >&- 2>&- || fail "a job without standard streams failed"
head -n 1 closed/metrics.jsonl | grep -q '"kind":"start"' || fail "something else was written into the metrics"
