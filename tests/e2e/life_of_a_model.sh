#!/usr/bin/env bash
# Text -> tokenizer -> shards -> training on two ranks, killed in the middle and started again -> a text. The killed run
# ends with the same bits as one that was left alone.
source "$(dirname "$0")/common.sh"

cp -r "$source_dir/src" text
"$ziggurat" data train-tokenizer --input text --vocab-size 512 --output tokenizer >data.log 2>&1
"$ziggurat" data tokenize --input text --tokenizer tokenizer --output data --source code --split 0.9,0.1,0 >>data.log 2>&1

cat >config.yaml <<'YAML'
name: life
output: run
precision: fp32
model:
  vocab_size: 512
  max_sequence: 32
  hidden: 32
  heads: 4
  dropout: {embedding: 0.1, attention: 0.1, hidden: 0.1}
  blocks:
    - {repeat: 2, pattern: [{ffn: dense}, {ffn: residual_moe, experts: 4, expert_parallel: 2}]}
batch: {sequence_length: 32, micro_batch: 4, global_batch: 16}
train: {tokens: 51200}   # 100 steps
optimizer: {lr: 3.0e-3, min_lr: 3.0e-4, warmup_tokens: 5K, decay_tokens: 51200}
eval: {every: 0, sequences: 16}
checkpoint: {every: 10, keep: 2}
log: {every: 20, exact: true}
data: {train: data, valid: data, tokenizer: tokenizer}
YAML
train=(mpirun -n 2 "$ziggurat" train config.yaml)

"${train[@]}" output=whole >whole.log 2>&1 || { cat whole.log; fail "the undisturbed run"; }
[ "$(losses whole/metrics.jsonl step | wc -l)" = 100 ] || fail "expected 100 steps"

# Of steps that leave the time to kill it between two of them.
ZIGGURAT_INJECT=step:delay:ms=50:times=0 "${train[@]}" >killed.log 2>&1 &
job=$!
wait_in_job has_saved run 20
kill -9 $(pgrep -P $job) $job || fail "nothing to kill any more"
wait $job 2>/dev/null || true
done_steps=$(losses run/metrics.jsonl step | wc -l)
[ "$done_steps" -ge 20 ] && [ "$done_steps" -lt 100 ] || fail "expected to kill it in the middle, it did $done_steps steps"

"${train[@]}" >resumed.log 2>&1 || { cat resumed.log; fail "the resumed run"; }
expect_text resumed.log "resumed at step"
[ "$(losses run/metrics.jsonl validation | tail -1)" = "$(losses whole/metrics.jsonl validation | tail -1)" ] ||
  fail "the last validation losses differ"
losses run/metrics.jsonl validation | tail -1 | grep -q '^100 0x' || fail "no validation at the end"

# Each step is told once, whatever was done twice, and with the same bits as in the run that was left alone.
diff <(losses run/metrics.jsonl step) <(losses whole/metrics.jsonl step) || fail "the records of steps differ"
[ "$(grep -c '"kind":"start"' run/metrics.jsonl)" = 2 ] || fail "expected a marker where the run went on"

"$ziggurat" generate --checkpoint run/checkpoints --prompt "#include" --tokens 20 >text.txt
expect_text text.txt "#include"
[ "$(wc -c <text.txt)" -gt 12 ] || fail "nothing was generated"
