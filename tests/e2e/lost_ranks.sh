#!/usr/bin/env bash
# A rank that dies or stands still ends the job, named with what it did, and the next start goes on.
source "$(dirname "$0")/common.sh"

# Killed without a word; by its own fault.
start_job killed 4
kill -KILL "${ranks[2]}"
ends_with any
expect_text killed.log "rank 2 of 4 (pid ${ranks[2]} on $(hostname)) was killed without a word" ": step "
expect_text killed/rank_1.log "rank 2 of 4 (pid ${ranks[2]} on $(hostname)) was killed without a word"
expect_text killed/flight/rank_2.log "begins step of step" "on 'world'"
start_job killed 4
kill -SEGV "${ranks[1]}"
ends_with any
expect_text killed.log "taken over from a job that is dead" "rank 1 in step" "was ended by signal 11 (SIGSEGV"
expect_text killed/rank_0.log "rank 1 of 4 (pid ${ranks[1]} on $(hostname)) was ended by signal 11"
expect_text killed/flight/rank_1.log "was ended by signal 11" "$(basename "$ziggurat")("
[ "$(grep -c 'was ended by signal' killed.log)" = 1 ] || { cat killed.log; fail "the cause was told more than once"; }

# On a kernel that does not tell the end of another's process.
if python3 "$source_dir/tests/e2e/without_pidfd.py" true; then
  on_kernel=(python3 "$source_dir/tests/e2e/without_pidfd.py")
  start_job unwatched 4 watch.timeout=5
  on_kernel=()
  kill -KILL "${ranks[2]}"
  ends_with any
  expect_text unwatched.log "rank 2 of 4 (pid ${ranks[2]} on $(hostname)) was killed without a word"
fi

# Stopped: the others name it, and end. Nobody saves.
start_job stopped 4 watch.timeout=5
kill -STOP "${ranks[2]}"
ends_with 76
for rank in 0 1 3; do
  expect_text stopped.log "rank $rank of 4 (pid ${ranks[$rank]} on $(hostname)): no progress for"
  expect_text stopped/flight/rank_$rank.log "no progress" "begins step of step" "stack of the thread"
done
expect_text stopped.log "missing: rank 2 (pid ${ranks[2]} on $(hostname)) is stopped"
expect_text stopped/flight/rank_2.log "stopped or dead, by rank 0"

# Half of them, on what they take for two machines, where they see each other by files. Half a job saves nothing: the
# next start finds whole checkpoints only.
start_job halves 4 watch.timeout=5 parallel.ranks_per_node=2 checkpoint.every=1
wait_for test -s halves/flight/rank_3.alive
kill -STOP "${ranks[2]}" "${ranks[3]}"
ends_with 76
expect_text halves.log "rank 2 (pid ${ranks[2]} on $(hostname)) gives no sign of life" \
  "rank 3 (pid ${ranks[3]} on $(hostname)) gives no sign of life"
start_job halves 2
expect_text halves.log "resumed at step"
! grep "skipped" halves.log || fail "half a job saved something"
kill -USR1 "$job"
ends_with 75

# Who was stopped with all others has nobody to blame, and goes on.
start_job paused 2 watch.timeout=5
kill -STOP "${ranks[@]}"
sleep 7  # longer than the limit
kill -CONT "${ranks[@]}"
steps=$(grep -c 'info step' paused.log)
wait_for eval "[ \$(grep -c 'info step' paused.log) -gt $((steps + 5)) ]"

# SIGQUIT only tells.
kill -QUIT "${ranks[1]}"
wait_for grep -q "SIGQUIT" paused/flight/rank_1.log
wait_for grep -q "rank 1 of 2 .*step" paused.log
expect_text paused/flight/rank_1.log "stack of the thread"
steps=$(grep -c 'info step' paused.log)
wait_for eval "[ \$(grep -c 'info step' paused.log) -gt $((steps + 5)) ]"

# Without their launcher ranks end too.
kill -KILL "$job"
ends_with 137
expect_text paused/rank_0.log "the launcher has ended"
expect_end 0 next.log mpirun -n 2 "$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" output=paused train.tokens=10K \
  checkpoint.resume=auto eval.sequences=4 threads=1
expect_text next.log "taken over from a job that is dead"
[ ! -e paused/run.lock ] || fail "the lock was not given back"
