#!/usr/bin/env bash
# What users meet in generate: a text shown as it grows is the text of all its ids, only tokens that the tokenizer has
# are drawn, a moved run finds its tokenizer, and what does not fit or cannot be read is named.
source "$(dirname "$0")/common.sh"

for i in {1..60}; do echo "the cat and the café sat on mat $i, naïve € 漢字 🎵"; done >text.txt
"$ziggurat" data train-tokenizer --input text.txt --vocab-size 300 --output tok >log 2>&1
"$ziggurat" data tokenize --input text.txt --document-per line --tokenizer tok --output data --split 1,0,0 >log 2>&1

cat >config.yaml <<'YAML'
name: generate
output: run
precision: fp32
model:
  vocab_size: 4096   # many more than the tokenizer has
  max_sequence: 32
  hidden: 16
  heads: 2
  moe: {eval_capacity_factor: 0.5, min_capacity: 0}
  blocks: [{repeat: 1, pattern: [{ffn: dense}, {ffn: moe, experts: 4}]}]
batch: {sequence_length: 32, micro_batch: 2, global_batch: 2}
train: {tokens: 128}
optimizer: {warmup_tokens: 0, decay_tokens: 128}
eval: {every: 0, sequences: 0}
data: {train: data, tokenizer: tok}
YAML
expect_end 0 train.log "$ziggurat" train config.yaml
[ -e run/tokenizer/tokenizer.json ] || fail "the run keeps no tokenizer"

generate=("$ziggurat" generate --threads 1 --top-k 0 --temperature 2)
long=("${generate[@]}" --tokens 60)
"${long[@]}" --checkpoint run --prompt "the café" >one 2>log || { cat log; fail "generate"; }
"${long[@]}" --checkpoint run/checkpoints --prompt "the café" --prompt "on a" >two 2>log || fail "two prompts"
"${long[@]}" --checkpoint run/checkpoints --prompt "the café" --samples 2 >samples 2>log || fail "two samples"
python3 - <<'PYTHON'
one, two, samples = (open(name, encoding="utf-8").read() for name in ("one", "two", "samples"))  # strict: valid UTF-8
assert one.startswith("the café") and len(one) > 20, one
assert two.startswith("--- 1\n" + one + "--- 2\non a"), (one, two)  # the same text alone and beside another
assert samples.startswith("--- 1\n" + one + "--- 2\nthe café"), (one, samples)
PYTHON

# Weights of 8 bits: alone as beside another, and by another name an error.
"${long[@]}" --weights int8 --checkpoint run --prompt "the café" >one8 2>log || { cat log; fail "--weights int8"; }
"${long[@]}" --weights int8 --checkpoint run --prompt "the café" --prompt "on a" >two8 2>log || fail "--weights int8"
[ "$(head -n 2 two8 | tail -n 1)" = "$(head -n 1 one8)" ] || fail "--weights int8: another text beside another"
expect_end 2 out "${long[@]}" --weights int4 --checkpoint run --prompt the
expect_text out "--weights" "int8"

# One line of JSON for each text, prompts from files and standard input, stops, penalties.
printf 'the café' >prompt.txt
printf 'on a' | "${long[@]}" --checkpoint run --file prompt.txt --file - --json >json 2>log || { cat log; fail "--json"; }
"${long[@]}" --checkpoint run --prompt "the café" --stop e --json >stopped 2>log || { cat log; fail "--stop"; }
greedy=("$ziggurat" generate --threads 1 --temperature 0 --tokens 40 --checkpoint run --prompt the --json)
"${greedy[@]}" --repetition-penalty 1.5 >penalty 2>log || { cat log; fail "--repetition-penalty"; }
"${greedy[@]}" >none 2>log || { cat log; fail "no penalty"; }
python3 - <<'PYTHON'
import json
lines = lambda name: [json.loads(line) for line in open(name, encoding="utf-8")]
one = open("one", encoding="utf-8").read()
first, second = lines("json")
assert first["prompt"] + first["text"] + "\n" == one, (first, one)
assert second["prompt"] == "on a" and second["finish_reason"] in ("stop", "length")
(stopped,) = lines("stopped")
assert stopped["text"] == first["text"].split("e")[0] and stopped["finish_reason"] == "stop", (stopped, first)
(penalty,), (none,) = lines("penalty"), lines("none")
assert len(set(penalty["tokens"])) > len(set(none["tokens"])), (penalty, none)
PYTHON
expect_end 2 log "${generate[@]}" --checkpoint run
expect_text log --prompt --file
expect_end 3 log "${generate[@]}" --checkpoint run --file nowhere.txt
expect_text log nowhere.txt

# Several ranks write what one does.
for ranks in 2 3 4; do
  mpirun -n $ranks "${long[@]}" --checkpoint run --prompt "the café" --prompt "on a" >ranks 2>log || { cat log; fail "$ranks ranks"; }
  cmp ranks two || fail "$ranks ranks write other texts than one"
done
expect_end 2 log mpirun -n 2 "${generate[@]}" --checkpoint run --prompt $'caf\xe9'
expect_text log "--prompt 1: byte 3 (0xe9)"

# Where the run and the tokenizer are now.
mkdir far && mv run far/renamed && rm -r tok && mv data far/data
for checkpoint in far/renamed far/renamed/ far/renamed/checkpoints far/renamed/checkpoints/step_*; do
  expect_end 0 again "${long[@]}" --checkpoint "$checkpoint" --prompt "the café"
  expect_text again "$(head -1 one)"
done
cp -r far/renamed/checkpoints/step_* alone
expect_end 3 log "${generate[@]}" --checkpoint alone --prompt a
expect_text log --tokenizer "tok does not exist" alone
expect_end 0 log "${generate[@]}" --checkpoint alone --tokenizer far/renamed/tokenizer --prompt a
expect_end 3 log "${generate[@]}" --checkpoint alone --tokenizer bytes --prompt a
expect_text log "the tokenizer bytes" "the model of" --tokenizer
expect_end 3 log "$ziggurat" data sample far/data --tokenizer bytes
expect_text log "the tokenizer bytes" "the shards far/data"
expect_end 3 log "$ziggurat" data stats far/data --tokenizer bytes
expect_text log "the tokenizer bytes" "the shards far/data"

# Prompts.
generate+=(--checkpoint far/renamed)
expect_end 0 log "${generate[@]}" --prompt "" --tokens 5
expect_end 0 log "${generate[@]}" --prompt "   " --tokens 5
expect_end 0 log "${generate[@]}" --prompt "nothing new" --tokens 0
expect_text log "nothing new" "0 tokens"
expect_end 0 log "${generate[@]}" --prompt "$(head -3 text.txt)" --tokens 5
expect_text log "the model sees the last 32"
expect_end 2 log "${generate[@]}" --prompt a --prompt $'caf\xe9'
expect_text log "--prompt 2: byte 3 (0xe9)" UTF-8
expect_end 1 log sh -c 'exec "$@" >/dev/full' sh "${generate[@]}" --prompt a
expect_text log "cannot be written to standard output"
expect_end 1 log sh -c 'exec "$@" >&-' sh "${generate[@]}" --prompt a
expect_text log "cannot be written to standard output"

# A model of no text.
expect_end 0 log "$ziggurat" train config.yaml output=synthetic data.train=synthetic 'data.tokenizer=""'
expect_end 3 log "$ziggurat" generate --checkpoint synthetic --prompt a
expect_text log "synthetic language" --tokenizer
expect_end 0 log "$ziggurat" generate --checkpoint synthetic --prompt a --tokenizer bytes
