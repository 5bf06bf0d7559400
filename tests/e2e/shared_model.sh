#!/usr/bin/env bash
# Ranks that share a model, in whatever way, write and score what one rank does: dense, with experts, residual, with few heads
# of keys and values; texts greedy and drawn. What cannot be shared is told with what can.
source "$(dirname "$0")/common.sh"

for i in {1..60}; do echo "the cat and the cafe sat on mat $i, and so did the other one"; done >text.txt
"$ziggurat" data tokenize --input text.txt --document-per line --tokenizer bytes --output data --split 1,0,0 >log 2>&1
cat >config.yaml <<'YAML'
name: shared
precision: fp32
model:
  vocab_size: 257
  vocab_multiple: 48   # 288, which 2, 3, 4 and 8 divide
  max_sequence: 48
  hidden: 48
  heads: 24
  init_std: 0.2
batch: {sequence_length: 48, micro_batch: 1, global_batch: 1}
train: {tokens: 96}
optimizer: {warmup_tokens: 0, decay_tokens: 96}
eval: {every: 0, sequences: 0}
data: {train: data, tokenizer: bytes}
YAML
train() {  # NAME key=value ...
  expect_end 0 train.log "$ziggurat" train config.yaml name="$1" output="$1" threads=1 "${@:2}"
}
experts() { echo "model.blocks=[{repeat: 1, pattern: [{ffn: dense}, {ffn: $1, experts: 4}]}]"; }
train dense 'model.blocks=[{repeat: 2, pattern: [{ffn: dense}]}]'
train grouped 'model.blocks=[{repeat: 2, pattern: [{ffn: dense}]}]' model.kv_heads=2 model.positions=rope model.norm=rms_norm
train moe "$(experts moe)" model.moe.top_k=2 model.activation=swiglu model.bias=false
train pr_moe 'model.blocks=[{repeat: 1, pattern: [{ffn: residual_moe, experts: 2}, {ffn: residual_moe, experts: 4}]}]'

# MODEL RANKS KEYS: what is written is what one rank writes, in turns the likeliest and what is drawn.
drawn=0
writes_the_same() {
  local options=(--threads 1 --tokens 12 --checkpoint "$1" --prompt "the cat" --prompt "and" --prompt "mat 5, and")
  drawn=$((1 - drawn))
  options+=(--temperature $((2 * drawn)) --top-k 0 --json)
  [ -e "$1.$drawn" ] || "$ziggurat" generate "${options[@]}" >"$1.$drawn" 2>log || { cat log; fail "$1 on one rank"; }
  mpirun -n "$2" "$ziggurat" generate "${options[@]}" ${3:+--parallel "$3"} >got 2>log || { cat log; fail "$1 on $2 ranks, $3"; }
  cmp got "$1.$drawn" || fail "$1 on $2 ranks, ${3:-by default}, writes other texts than one"
}
writes_the_same dense 2 tensor=2
writes_the_same dense 3 tensor=3
writes_the_same dense 4 tensor=2
writes_the_same dense 8 tensor=8
writes_the_same grouped 2 tensor=2
writes_the_same grouped 4 tensor=4   # more ranks than heads of keys and values
writes_the_same moe 2 expert_slice=2
writes_the_same moe 3
writes_the_same moe 3 tensor=3       # and slices of three, as no three ranks share four experts
writes_the_same moe 4 tensor=2,expert_slice=1
writes_the_same moe 4 tensor=2,expert_slice=4
writes_the_same moe 8 tensor=4,ranks_per_node=2,all_to_all=hierarchical
writes_the_same pr_moe 2 tensor=2
writes_the_same pr_moe 4 tensor=4
writes_the_same pr_moe 4 tensor=2,ranks_per_node=2,all_to_all=hierarchical
writes_the_same pr_moe 8 tensor=2,expert=2,expert_slice=2

# Scores, and the hash of the weights.
python3 - <<'PYTHON'
import json
with open("task.jsonl", "w") as f:
    for i in range(12):
        print(json.dumps({"context": "the cat and the", "continuation": [" cafe", " mat %d" % i, " dog"][i % 3]}), file=f)
PYTHON
"$ziggurat" eval --checkpoint pr_moe --tasks task.jsonl --threads 1 --output one.json --scores one.scores >log 2>&1 || { cat log; fail eval; }
mpirun -n 4 "$ziggurat" eval --checkpoint pr_moe --tasks task.jsonl --threads 1 --parallel tensor=2 --output four.json \
  --scores four.scores >log 2>&1 || { cat log; fail "eval on four ranks"; }
python3 - <<'PYTHON'
import json
one, four = (json.load(open(name)) for name in ("one.json", "four.json"))
text = json.dumps(one), json.dumps(four)
assert one == four or one.keys() == four.keys(), text
def numbers(name):
    return [[v for v in json.loads(line).values() if isinstance(v, float)] for line in open(name)]
for a, b in zip(numbers("one.scores"), numbers("four.scores"), strict=True):
    assert all(abs(x - y) <= 1e-5 * abs(x) for x, y in zip(a, b, strict=True)), (a, b)
def hashes(value):
    if isinstance(value, dict):
        return [h for k, v in value.items() for h in ([v] if k == "weight_hash" else hashes(v))]
    return []
assert hashes(one) == hashes(four), text
PYTHON

# What does not go.
cannot() {  # RANKS KEYS TEXT...
  expect_end 2 log mpirun -n "$1" "$ziggurat" generate --checkpoint pr_moe --prompt a --parallel "$2"
  expect_text log "${@:3}"
}
cannot 4 tensor=3 "the number of ranks (4) cannot be cut into 3 equal parts" "choose one of 1, 2, 4"
cannot 4 tensor=4,expert_slice=1 "would hold the same experts" "expert_slice=4"
cannot 2 tensors=2 tensors "did you mean 'tensor'"
expect_end 2 log mpirun -n 2 "$ziggurat" generate --checkpoint dense --prompt a --parallel expert_slice=2
expect_text log "no experts"
