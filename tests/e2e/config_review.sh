#!/usr/bin/env bash
# What is odd about a config is said by check, plan and train alike; what does not fit is refused before a step.
source "$(dirname "$0")/common.sh"

tiny=$source_dir/configs/tiny/pr_moe.yaml
odd=(eval.every=4 model.rope_theta=5000 optimizer.warmup_tokens=375M optimizer.decay_tokens=1B train.tokens=8K)
said=("model.rope_theta = 5000: has no effect" "optimizer.warmup_tokens = 375M: " "optimizer.decay_tokens = 1B: ")

expect_end 0 log "$ziggurat" config check "$tiny" "${odd[@]}"
expect_text log "${said[@]}" "ok (warnings: 3)"
expect_end 0 log "$ziggurat" plan "$tiny" "${odd[@]}"
expect_text log "${said[@]}"
"$ziggurat" plan "$tiny" "${odd[@]}" --json 2>/dev/null | python3 -m json.tool >/dev/null || fail "plan --json is no JSON"
expect_end 0 log timeout 60 mpirun -n 2 "$ziggurat" train "$tiny" "${odd[@]}" output=odd data.test=synthetic
expect_text log "${said[@]}"
[ "$(grep -c 'model.rope_theta = ' log)" = 1 ] || { cat log; fail "two ranks gave the same warning"; }
expect_end 0 log "$ziggurat" config check "$tiny"
! grep -q warning log || { cat log; fail "a warning without a cause"; }

# metrics.jsonl tells the splits apart.
[ "$(grep -c '"kind":"validation","split":"valid"' odd/metrics.jsonl)" = 2 ] || fail "two validations"
[ "$(grep -c '"kind":"validation","split":"test"' odd/metrics.jsonl)" = 1 ] || fail "one test"

# What train would refuse, check and plan refuse.
for options in "model.positions=rope batch.sequence_length=128" "batch.global_batch=30" "data.train=" \
  "optimizer.eps=1e-50" "model.hidden=99999999999" "data.mask_eod_loss=true"; do
  for command in "config check" plan train; do
    expect_end 2 log "$ziggurat" $command "$tiny" $options output=refused
    expect_text log "$(tr ' ' '\n' <<<"$options" | tail -1 | cut -d= -f1)"
  done
done
[ ! -e refused ] || fail "a refused config left a folder behind"

# A rank that would need more than a process can address.
expect_end 2 log timeout 60 "$ziggurat" plan "$tiny" model.hidden=1048576 'model.blocks=[{repeat: 20, pattern: [{}]}]'
expect_text log model.hidden "more memory"

# Shards and tokenizers that do not fit.
for i in $(seq 200); do echo "line $i of a small corpus"; done >corpus.txt
tokenize() { expect_end 0 log "$ziggurat" data tokenize --input corpus.txt --document-per line --tokenizer bytes --split 0.9,0.1,0 "$@"; }
tokenize --output shards
tokenize --output endless --no-eod
expect_end 0 log "$ziggurat" data train-tokenizer --input corpus.txt --document-per line --vocab-size 270 --output other
run=("$tiny" model.vocab_size=270 data.train=shards data.valid=shards train.tokens=4K output=run)
check_and_train() {  # CODE TEXT OPTION...
  local code=$1 text=$2
  shift 2
  expect_end "$code" log "$ziggurat" config check "${run[@]}" "$@"
  expect_text log "$text"
  expect_end "$code" log timeout 60 mpirun -n 2 "$ziggurat" train "${run[@]}" "$@"
  expect_text log "$text"
  [ "$(grep -cF "$text" log)" = 1 ] || { cat log; fail "told more than once"; }
}
check_and_train 2 "data.mask_eod_loss, data.reset_attention: of" data.train=endless data.mask_eod_loss=true data.reset_attention=true
check_and_train 3 "data.tokenizer: the tokenizer other" data.tokenizer=other
check_and_train 3 "data.valid: the shards" data.tokenizer=other data.train=synthetic
check_and_train 3 "(model.vocab_size) one of 200" data.tokenizer=bytes model.vocab_size=200
expect_end 0 log "$ziggurat" config check "${run[@]}" data.tokenizer=nowhere
expect_text log "note: data.tokenizer: nowhere is not on this machine"
expect_end 3 log "$ziggurat" train "${run[@]}" data.tokenizer=nowhere
expect_text log "data.tokenizer: " nowhere
expect_end 0 log "$ziggurat" train "${run[@]}" data.tokenizer=bytes data.mask_eod_loss=true
expect_text log "eval.sequences 64 evaluates all of them"
[ "$(grep -c 'evaluates all' log)" = 1 ] || { cat log; fail "said more than once"; }

# Groups of clipping are told by name, and one that takes nothing is a mistake.
groups() { printf 'optimizer.clip_groups=[{name: experts, parameters: "%s", norm: 0.05}]' "$1"; }
expect_end 0 log timeout 60 mpirun -n 2 "$ziggurat" train "$tiny" train.tokens=8K output=groups eval.every=0 "$(groups '*.experts.*')"
expect_text log "(rest " ", experts "
python3 - <<'PYTHON' || fail "the norms of the groups are not those of the model"
import json
steps = [r for r in map(json.loads, open("groups/metrics.jsonl")) if r["kind"] == "step"]
for r in steps:
    norms = r["grad_norms"]
    assert list(norms) == ["rest", "experts"] and min(norms.values()) > 0, norms
    assert abs(sum(n * n for n in norms.values()) ** 0.5 / r["grad_norm"] - 1) < 1e-9, r
PYTHON
for look in "config check" plan train; do
  expect_end 2 log "$ziggurat" $look "$tiny" "$(groups '*.expert.*')"
  expect_text log "optimizer.clip_groups.0.parameters: *.expert.* is no parameter of the model"
done
