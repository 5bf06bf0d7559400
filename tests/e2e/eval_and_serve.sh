#!/usr/bin/env bash
# A trained model is judged: the six public tasks and one of our own, the same on 1 and 2 ranks to the bit; then served,
# where each request gets the scores of the evaluation, and mistakes, lost clients and SIGTERM end as they should.
source "$(dirname "$0")/common.sh"

sets=$source_dir/tests/unit/eval/data
cat >config.yaml <<'YAML'
name: judged
output: run
precision: fp32
model:
  vocab_size: 257
  max_sequence: 256
  hidden: 32
  heads: 4
  blocks:
    - {repeat: 1, pattern: [{ffn: dense}, {ffn: residual_moe, experts: 4, expert_parallel: 2}]}
batch: {sequence_length: 256, micro_batch: 1, global_batch: 4}
train: {tokens: 4096}
optimizer: {lr: 3.0e-3, warmup_tokens: 1K}
eval: {every: 0, sequences: 0, tasks: [mine.jsonl], tasks_every: 2}
data: {train: data, tokenizer: bytes}
YAML
cat >mine.jsonl <<'JSON'
{"context": "namespace zig", "continuation": "gurat"}
{"context": "#incl", "continuation": "ude"}
JSON
python3 -c 'import json; print(json.dumps({"context": "a", "continuation": "b" * 300}))' >long.jsonl
cp -r "$source_dir/src/core" text
"$ziggurat" data tokenize --input text --tokenizer bytes --output data --split 1,0,0 >data.log 2>&1 || { cat data.log; fail data; }
mpirun -n 2 "$ziggurat" train config.yaml >train.log 2>&1 || { cat train.log; fail "training"; }

[ "$(grep -c '"kind":"tasks"' run/metrics.jsonl)" = 2 ] || fail "expected the task after steps 2 and 4"
mpirun -n 2 "$ziggurat" train config.yaml eval.tasks=[] output=without >train.log 2>&1 || { cat train.log; fail "training"; }
[ "$(losses run/metrics.jsonl step)" = "$(losses without/metrics.jsonl step)" ] || fail "evaluating changed the training"
expect_end 3 out "$ziggurat" train config.yaml eval.tasks=[lambada] eval.data=nowhere output=never
expect_text out "nowhere/lambada"
expect_end 3 out "$ziggurat" train config.yaml eval.tasks=[long.jsonl] output=never
expect_text out "long: request 0 asks for the likelihood of 300 tokens" "batch.sequence_length"
! grep -q '"kind":"step"' never/metrics.jsonl 2>/dev/null || fail "a step was trained before a task was found not to fit"

# --- eval ---
tasks=lambada,piqa,boolq,race,triviaqa,webqs,mine.jsonl
for form in v0 current; do
  for ranks in 1 2; do
    mpirun -n $ranks "$ziggurat" eval --checkpoint run/checkpoints --tasks $tasks --data "$sets" --any-size --form $form \
      --output $form.$ranks.json >eval.log 2>&1 || { cat eval.log; fail "eval on $ranks ranks"; }
  done
  python3 - $form <<'PY' || fail "reports of $form differ"
import json, sys
one, two = (json.load(open("%s.%d.json" % (sys.argv[1], ranks))) for ranks in (1, 2))
for report in (one, two):
    assert len(report["results"]) == 7, report["results"]
    for task in report["ziggurat"]["tasks"].values():
        del task["seconds"]
assert one == two, (one, two)
PY
done
expect_text eval.log "mine" "perplexity" "exact_match"

# Weights of 8 bits: the same on 1 and 2 ranks, and what they change is small.
for ranks in 1 2; do
  mpirun -n $ranks "$ziggurat" eval --checkpoint run/checkpoints --tasks lambada,mine.jsonl --data "$sets" --any-size \
    --weights int8 --output int8.$ranks.json >eval.log 2>&1 || { cat eval.log; fail "eval of 8 bits on $ranks ranks"; }
done
python3 - <<'PY' || fail "evaluation of 8 bits"
import json
one, two, whole = (json.load(open(f"{name}.json")) for name in ("int8.1", "int8.2", "current.1"))
assert one["results"] == two["results"], (one, two)
for task, of_8_bits in one["results"].items():
    (p8,), (p,) = ([v for k, v in r.items() if k.startswith("perplexity,")] for r in (of_8_bits, whole["results"][task]))
    print(f"{task}: perplexity {p} with the weights of the checkpoint, {p8} with 8 bits")
    assert 0 < abs(p8 / p - 1) < 0.01, (task, p8, p)
PY
expect_end 0 hashes.txt "$ziggurat" eval --tasks boolq --data "$sets" --any-size --form v0 --request-hash --dump-requests r.jsonl
expect_text hashes.txt "boolq 8 requests 091dc39bbb51fab41c91c74ecb15ae6134f71205c14197bb6d865b4957a91536"
[ "$(wc -l <r.jsonl)" = 8 ] || fail "expected 8 requests in r.jsonl"

evaluate=("$ziggurat" eval --checkpoint run/checkpoints --data "$sets")
expect_end 3 out "${evaluate[@]}" --tasks lambada
expect_text out "7 texts" "5153"
expect_end 3 out "${evaluate[@]}" --tasks race,none.jsonl --any-size
expect_text out "none.jsonl"
expect_end 2 out "${evaluate[@]}" --tasks hellaswag
expect_text out "hellaswag" "lambada"
expect_end 2 out "$ziggurat" eval --tasks lambada --data "$sets" --any-size
expect_end 2 out "${evaluate[@]}" --tasks lambada --any-size --max-length 257
expect_text out "--max-length: the model has"
expect_end 2 out "${evaluate[@]}" --tasks lambada --any-size --output run
expect_text out "run is a folder: name a file in it"
expect_end 3 out "${evaluate[@]}" --tasks lambada,piqa --any-size --max-length 7 --output x.json
expect_text out "piqa: request" "--max-length" "batch.sequence_length"
[ ! -e x.json ] || fail "lambada was computed before the next task was found not to fit"
mkfifo pipe
for file in pipe run; do
  for option in --output --scores --dump-requests; do
    expect_end 2 out "${evaluate[@]}" --tasks lambada --any-size $option $file
    expect_text out "$file is"
  done
done
[ -p pipe ] || fail "a pipe was replaced by a file"
expect_end 2 out "${evaluate[@]}" --tasks lambada --any-size --output x.json --scores x.json
expect_text out "x.json is to hold two things"
expect_end 3 out "${evaluate[@]}" --tasks lambada --any-size --output nowhere/report.json
expect_text out "nowhere/report.json"
expect_end 3 out "${evaluate[@]}" --tasks lambada --any-size --scores nowhere/scores.jsonl
expect_text out "nowhere/scores.jsonl"
"${evaluate[@]}" --tasks piqa,triviaqa --any-size --limit 3 --scores scores.jsonl >out 2>&1 || { cat out; fail "--scores"; }
[ "$(wc -l <scores.jsonl)" = 6 ] || fail "expected the 6 solutions of 3 documents in scores.jsonl"
expect_end 3 out "$ziggurat" eval --checkpoint text --tasks lambada --data "$sets" --any-size
cp -r run/checkpoints damaged
truncate -s -100 damaged/step_*/rank_00000.safetensors
expect_end 3 out "$ziggurat" eval --checkpoint damaged --tasks lambada --data "$sets" --any-size --output x.json
expect_text out "rank_00000.safetensors"
[ ! -e x.json ] && [ ! -e x.json.tmp ] || fail "something half-written is left"

# --- serve ---
expect_end 2 out mpirun -n 2 "$ziggurat" logits --tokens 1 --output l.safetensors --checkpoint run/checkpoints
expect_text out "works in one process"
if "$ziggurat" serve --checkpoint run/checkpoints --host 203.0.113.1 2>&1 | grep -q "libcpp-httplib-dev"; then
  echo "built without an HTTP library"
  exit 0
fi
expect_end 2 out "$ziggurat" serve --checkpoint run/checkpoints --host 203.0.113.1 --port 1
expect_text out "cannot listen"
: >serve.log
"$ziggurat" serve --checkpoint run/checkpoints --port 0 >serve.log 2>&1 &
server=$! job=$server
trap 'kill $server 2>/dev/null || true; rm -rf "$folder"' EXIT
wait_in_job grep "http://" serve.log
port=$(sed -n 's/.*http:..127.0.0.1:\([0-9]*\).*/\1/p' serve.log)
expect_end 2 out "$ziggurat" serve --checkpoint run/checkpoints --port "$port"
expect_text out "cannot listen on 127.0.0.1 port $port: is it in use" "--port"
python3 - "$port" <<'PY' || { cat serve.log; fail "the server's answers"; }
import http.client, json, math, socket, sys, threading, time
port = int(sys.argv[1])

def ask(path, body=None, method=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    connection.request(method or ("GET" if body is None else "POST"), path, data, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    return reply.status, reply.read()

def complete(**body):
    status, reply = ask("/v1/completions", body)
    assert status == 200, reply
    return json.loads(reply)

# The scores of the evaluation, as lm-eval asks for them.
requests = [("namespace zig", "gurat"), ("#incl", "ude")]
reply = complete(prompt=[list((a + b).encode()) for a, b in requests], max_tokens=1, temperature=0, logprobs=1, echo=True)
sums = [sum(c["logprobs"]["token_logprobs"][len(a):-1]) for (a, b), c in zip(requests, reply["choices"])]
served = math.exp(-sum(sums) / 2)
evaluated = json.load(open("current.1.json"))["results"]["mine"]["perplexity,none"]
assert abs(served / evaluated - 1) < 1e-12, (served, evaluated)

# Mistakes of every kind get an answer, and the server lives.
for path, body, method, status in [
    ("/v1/completions", b"{", None, 400), ("/v1/completions", {"prompt": [9999]}, None, 400),
    ("/v1/completions", {"prompt": "a", "max_tokens": 10**6}, None, 400), ("/v1/completions", None, None, 405),
    ("/v1/completions", b"x" * (9 << 20), None, 413), ("/nothing", None, None, 404), ("/health", b"", "DELETE", 405),
    ("/" + "a" * 9000, None, None, 414)]:
    got, reply = ask(path, body, method)
    assert got == status, (path[:30], got, reply)
    assert json.loads(reply)["error"]["message"], reply
for raw in [b"\0\1\2\3\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
            b"GET /health HTTP/1.1\r\nX: " + b"y" * 20000 + b"\r\n\r\n"]:
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(raw)
# What curl calls a form unless told otherwise is JSON all the same, of any length; a part of a page is said to be one.
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
connection.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 1, "user": "u" * 20000}),
                   {"Content-Type": "application/x-www-form-urlencoded"})
reply = connection.getresponse()
assert reply.status == 200 and json.loads(reply.read())["choices"], reply.status
connection.request("GET", "/health", None, {"Range": "bytes=0-3"})
reply = connection.getresponse()
assert reply.status == 206 and len(reply.read()) == 4, reply.status
assert ask("/a%0Ab")[0] == 404 and b"no such path" in ask("/a%0Ab")[1]
# Connections that say nothing keep nobody from asking.
silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
began = time.monotonic()
assert ask("/health")[0] == 200
assert time.monotonic() - began < 4, "waited for connections that say nothing"
for s in silent: s.close()
# A client that goes in the middle of a stream.
body = json.dumps({"prompt": "a", "max_tokens": 250, "stream": True}).encode()
with socket.create_connection(("127.0.0.1", port)) as s:
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    s.recv(100)
# One that goes before its answer is there: the rest is not computed.
def metric(name):
    return sum(int(line.split()[-1]) for line in ask("/metrics")[1].decode().splitlines() if line.startswith(name + " "))
def left():
    return b'path="/v1/completions",code="499"' in ask("/metrics")[1]
body = json.dumps({"prompt": ["a"] * 256, "max_tokens": 250, "temperature": 2}).encode()
for pause in (0.3, 0.1, 0.03, 0.01):  # until it goes before a fast machine has answered
    before = metric("ziggurat_completion_tokens_total")
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(pause)
    began = time.monotonic()
    while not left() and time.monotonic() - began < 15: time.sleep(0.1)
    if left(): break
assert left(), "a client that left was never noticed"
assert metric("ziggurat_completion_tokens_total") - before < 256 * 250, "all was computed for a client that had left"
# Many at once, with a seed each: as alone.
alone = [complete(prompt="a", max_tokens=8, seed=i)["choices"] for i in range(8)]
together = [None] * 8
def work(i): together[i] = complete(prompt="a", max_tokens=8, seed=i)["choices"]
threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
assert together == alone
status, stream = ask("/v1/completions", {"prompt": "a", "max_tokens": 8, "seed": 3, "stream": True})
events = [e[6:] for e in stream.decode().split("\n\n") if e]
assert events[-1] == "[DONE]"
assert "".join(json.loads(e)["choices"][0]["text"] for e in events[:-1]) == alone[3][0]["text"]
assert ask("/health")[0] == 200
assert b'ziggurat_requests_total{path="/v1/completions",code="200"}' in ask("/metrics")[1]
assert json.loads(ask("/v1/models")[1])["data"][0]["id"] == "judged"
PY
kill -TERM $server
code=0; wait $server || code=$?
[ $code = 0 ] || { cat serve.log; fail "expected exit code 0 after SIGTERM, got $code"; }
