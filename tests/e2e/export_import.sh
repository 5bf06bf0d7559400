#!/usr/bin/env bash
# A trained model leaves and comes back: the same bytes, also written by two ranks; training goes on from it.
source "$(dirname "$0")/common.sh"
tiny=$source_dir/configs/tiny
few=(train.tokens=8K eval.every=0 checkpoint.resume=never)

"$ziggurat" train "$tiny/pr_moe.yaml" output=run "${few[@]}" model.vocab_size=257 data.tokenizer=bytes >log 2>&1 ||
  { cat log; fail "training"; }
printf '%s\n' '{"kind":"step","step":"1","loss":1}' '{"kind":5,"step":1,"loss":1}' '{"loss":1}' '{"kind":"st' >>run/metrics.jsonl
expect_end 0 log "$ziggurat" export --checkpoint run/checkpoints --output hf
expect_text log "ZigguratForCausalLM" "it has experts" "note: Training dropped tokens"
hash=$(sed -n 's/^weights //p' log)
expect_text hf/README.md "$hash" "validation loss" "8.19K"
for file in config.json modeling_ziggurat.py tokenizer.json ziggurat.yaml; do [ -s hf/$file ] || fail "no $file"; done
expect_end 0 log mpirun -n 2 "$ziggurat" export --checkpoint run/checkpoints --output two --shard-size 200KB
expect_text log "$hash" "in 5 files"
[ "$(ls two/*.safetensors | wc -l)" = 5 ] || fail "expected 5 files"

expect_end 0 log "$ziggurat" import --from two --output back --config train.tokens=12K eval.every=0
expect_end 0 log "$ziggurat" export --checkpoint back/checkpoints --output hf_again
cmp hf/model.safetensors hf_again/model.safetensors || fail "there and back again differs"

# Ranks share the files, which are the same for any number of them; one of them tells how far it is.
expect_end 0 log "$ziggurat" import --from two --output one_rank --shard-size 60KB
expect_end 0 log mpirun -n 2 "$ziggurat" import --from two --output two_ranks --shard-size 60KB
[ "$(grep -c "import 100% | .*/s | took" log)" = 1 ] || { cat log; fail "expected one line of progress"; }
cd one_rank/checkpoints/step_00000000
[ "$(ls rank_*.safetensors | wc -l)" -gt 5 ] || fail "too few files to share"
for file in rank_*.safetensors; do
  cmp "$file" "../../../two_ranks/checkpoints/step_00000000/$file" || fail "$file of two ranks differs"
done
cd ../../..
expect_end 0 log "$ziggurat" export --checkpoint two_ranks/checkpoints --output hf_of_two
cmp hf/model.safetensors hf_of_two/model.safetensors || fail "through two ranks there and back again differs"
expect_end 0 log "$ziggurat" train back/config.yaml
expect_text log "resumed at step 0" "step 6/6"

# Upcycled: a dense model's logits, and it trains.
"$ziggurat" train "$tiny/350m_dense.yaml" output=dense "${few[@]}" >log 2>&1 || { cat log; fail "training"; }
"$ziggurat" export --checkpoint dense/checkpoints --output dense_hf >log
expect_text log "GPT2LMHeadModel" "no tokenizer"
expect_end 0 log "$ziggurat" import --from dense_hf --output up --upcycle experts=4,every=2 --config train.tokens=4K
expect_end 0 log "$ziggurat" train up/config.yaml
expect_text log "moe imb"

# Mistakes end with their code, and leave nothing behind.
expect_end 2 log "$ziggurat" export --checkpoint run/checkpoints --output hf
expect_text log "hf stands already" "--overwrite"
expect_end 3 log mpirun -n 2 "$ziggurat" export --checkpoint dense/checkpoints --output bad --tokenizer bytes
expect_text log "vocabulary of 257" "one of 96"
expect_end 3 log "$ziggurat" export --checkpoint nowhere --output bad
expect_end 2 log "$ziggurat" export --checkpoint run/checkpoints --output bad --shard-size much
expect_end 2 log "$ziggurat" export --checkpoint run/checkpoints --output bad --shard-size 999B
expect_text log "--shard-size: expected at least 1KB"
expect_end 2 log "$ziggurat" import --from dense_hf --output bad --shard-size 0B
expect_text log "--shard-size: expected at least 1KB"
expect_end 2 log "$ziggurat" import --from dense_hf --output bad --config model.hidden=64
expect_text log "hidden_size"
expect_end 2 log "$ziggurat" import --from hf --output bad --upcycle experts=4
expect_text log "has experts already"
expect_end 2 log "$ziggurat" import --from dense_hf --output bad --upcycle expert=4
expect_text log "did you mean 'experts'?"
expect_end 2 log "$ziggurat" import --from dense_hf --output bad --upcycle ""
expect_text log "expected experts=N, got ''"
rm dense_hf/model.safetensors
expect_end 3 log "$ziggurat" import --from dense_hf --output bad
expect_text log "model.safetensors"
printf x >>run/checkpoints/step_00000004/rank_00000.safetensors
expect_end 3 log "$ziggurat" export --checkpoint run/checkpoints --output bad
expect_text log "damaged"
[ -z "$(ls -d bad .bad* 2>/dev/null)" ] || fail "something half-written is left"
