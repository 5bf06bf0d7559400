#!/usr/bin/env bash
# A server under load and abuse: many clients, of whom some leave, stall, send nonsense or a book. Every text is that of a
# lone run, nobody waits for ever, memory stays flat, and it ends as it should; on two ranks as on one, until one of them is
# killed. Short by default; the whole: REQUESTS=1000 CLIENTS=64 tests/e2e/soak.sh BINARY
source "$(dirname "$0")/common.sh"

requests=${REQUESTS:-150} clients=${CLIENTS:-24}
cat >config.yaml <<'YAML'
name: soaked
output: run
precision: fp32
model:
  vocab_size: 257
  max_sequence: 128
  hidden: 32
  heads: 4
  init_std: 0.2
  blocks:
    - {repeat: 1, pattern: [{ffn: dense}, {ffn: residual_moe, experts: 4, expert_parallel: 2}]}
batch: {sequence_length: 128, micro_batch: 1, global_batch: 4}
train: {tokens: 512}
optimizer: {lr: 3.0e-3, warmup_tokens: 0}
eval: {every: 0, sequences: 0}
data: {train: data, tokenizer: bytes}
YAML
cp -r "$source_dir/src/core" text
"$ziggurat" data tokenize --input text --tokenizer bytes --output data --split 1,0,0 >data.log 2>&1 || { cat data.log; fail data; }
"$ziggurat" train config.yaml >train.log 2>&1 || { cat train.log; fail "training"; }
if "$ziggurat" serve --checkpoint run --host 203.0.113.1 2>&1 | grep -q "libcpp-httplib-dev"; then
  echo "built without an HTTP library"
  exit 0
fi

server=
trap 'kill -9 $server 2>/dev/null || true; rm -rf "$folder"' EXIT
start() {  # LOG COMMAND...: a server, whose process is $server and whose port $port
  local log=$1; shift
  : >"$log"
  "$@" >"$log" 2>&1 &
  server=$!
  for ((i = 0; i < 18000; ++i)); do
    grep -q "http://" "$log" && break
    kill -0 $server 2>/dev/null || { cat "$log"; fail "the server ended"; }
    sleep 0.05
  done
  port=$(sed -n 's/.*http:..127.0.0.1:\([0-9]*\).*/\1/p' "$log")
}
serve=("$ziggurat" serve --checkpoint run --port 0 --texts 6 --cache 100KB --requests 40 --time-limit 300 --threads 1)

start serve.log "${serve[@]}" --log requests.jsonl
python3 "$source_dir/tests/e2e/soak.py" "$port" $server "$requests" "$clients" alone.json || { cat serve.log; fail "the server under load"; }
kill -TERM $server
code=0; wait $server || code=$?
[ $code = 0 ] || { cat serve.log; fail "expected exit code 0 after SIGTERM, got $code"; }
[ -s requests.jsonl ] || fail "no log of requests"
python3 -c 'import json; assert all(json.loads(line)["status"] for line in open("requests.jsonl"))' || fail "the log of requests"

start ranks.log mpirun -n 2 "${serve[@]}"
python3 "$source_dir/tests/e2e/soak.py" "$port" 0 $((requests / 4)) 8 alone.json || { cat ranks.log; fail "two ranks under load"; }
victim=$(pgrep -P $server | tail -1)
kill -9 "$victim"
code=0; timeout 60 tail --pid=$server -f /dev/null || fail "the job lives on without a rank"
wait $server || code=$?
[ $code != 0 ] || { cat ranks.log; fail "expected another exit code than 0 without a rank"; }
expect_text ranks.log "rank 1"
