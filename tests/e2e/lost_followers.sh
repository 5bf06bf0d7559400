#!/usr/bin/env bash
# Ranks of a server: while nothing is asked they leave their cores to others; one that is stopped or killed is named, and ends
# the job with the code that says so.
source "$(dirname "$0")/common.sh"

expect_end 0 train.log "$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" output=run train.tokens=1K eval.every=0 eval.sequences=0 \
  threads=1 data.tokenizer=bytes model.vocab_size=257
if "$ziggurat" serve --checkpoint run --host 203.0.113.1 2>&1 | grep -q "libcpp-httplib-dev"; then
  echo "built without an HTTP library"
  exit 0
fi

start_server() {  # sets $job, $ranks and $port
  : >serve.log  # on a busy machine the job is slow to do that, and a server before it has told its address
  mpirun -n 3 "$ziggurat" serve --checkpoint run --tokenizer bytes --port 0 --threads 1 --watch-timeout 4 >serve.log 2>&1 &
  job=$! running=$!
  wait_in_job grep -q "http://" serve.log
  port=$(sed -n 's/.*http:..127.0.0.1:\([0-9]*\).*/\1/p' serve.log)
  find_ranks 3
}
ask() {
  python3 - "$port" <<'PYTHON'
import json, sys, urllib.request
body = json.dumps({"prompt": "lamp", "max_tokens": 4, "temperature": 0}).encode()
reply = json.load(urllib.request.urlopen("http://127.0.0.1:%s/v1/completions" % sys.argv[1], body, timeout=60))
assert reply["usage"]["completion_tokens"] == 4, reply
PYTHON
}
ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }

start_server
ask || fail "no answer"
# A busy machine gives them less time, never more. 6 s of idling are longer than the watchdog's limit, too.
before=$(ticks "${ranks[1]}")
sleep 6
used=$(($(ticks "${ranks[1]}") - before))
[ "$used" -lt $((3 * $(getconf CLK_TCK))) ] || fail "a follower that has nothing to do took $used ticks in six seconds"
ask || fail "no answer after a while"

kill -STOP "${ranks[2]}"  # while nothing is asked
ends_with 76
expect_text serve.log "missing: rank 2 (pid ${ranks[2]} on $(hostname)) is stopped"

start_server
ask || fail "no answer"
kill -KILL "${ranks[1]}"
ends_with any
expect_text serve.log "rank 1 of 3 (pid ${ranks[1]} on $(hostname)) was killed without a word"
