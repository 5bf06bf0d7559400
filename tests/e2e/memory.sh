#!/usr/bin/env bash
# The plan's total is the peak of what the process holds, within 10 %: some hundred MB, dense and MoE, f32 and bf16.
source "$(dirname "$0")/common.sh"

cat >config.yaml <<'YAML'
name: memory
model:
  vocab_size: 8192
  max_sequence: 128
  hidden: 384
  heads: 6
  blocks: [{repeat: 4, pattern: [{ffn: dense}]}]
batch: {sequence_length: 128, micro_batch: 4, global_batch: 4}
train: {tokens: 1024}  # 2 steps
optimizer: {warmup_tokens: 0, decay_tokens: 1024}
eval: {every: 0, sequences: 0}
checkpoint: {every: 0, resume: never}
data: {train: synthetic}
YAML
moe='model.blocks=[{repeat: 2, pattern: [{ffn: dense}, {ffn: moe, experts: 4}]}]'

for overrides in precision=bf16 precision=fp32 "$moe"; do
  planned=$("$ziggurat" plan config.yaml "$overrides" --ranks 1 --json | sed -n 's/.*"memory_per_rank": \([0-9]*\).*/\1/p')
  peak=$(peak_of "$ziggurat" train config.yaml "$overrides" 2>train.log) || { cat train.log; fail "train $overrides"; }
  echo "$overrides: planned $planned bytes, peak $peak"
  [ "$planned" -ge 100000000 ] || fail "a model too small to tell"
  [ $((10 * peak)) -ge $((9 * planned)) ] && [ $((10 * peak)) -le $((11 * planned)) ] ||
    fail "$overrides: planned $planned bytes, but the peak was $peak"
done
