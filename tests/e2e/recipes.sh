#!/usr/bin/env bash
# The recipes' stories, told in small: own text on one machine, a mixture, a dense model that trains on, and one that
# gets experts. (That every recipe loads and can be planned: tests/unit/configs.)
source "$(dirname "$0")/common.sh"
recipes=$source_dir/configs/recipes

# The sizes of the stories, made small: everything else stays as the recipe has it.
small=(model.vocab_size=512 model.max_sequence=64 model.hidden=32 model.heads=2 batch.sequence_length=32
  batch.micro_batch=2 batch.global_batch=4 train.tokens=1280 optimizer.warmup_tokens=128 optimizer.decay_tokens=1280
  eval.sequences=4 log.every=5)
mkdir -p run prose code
cp "$source_dir"/src/core/*.cpp "$source_dir"/src/config/*.cpp code
grep -h '//' -r "$source_dir/src" >prose/comments.txt
"$ziggurat" data train-tokenizer --input prose code --vocab-size 512 --output run/laptop/tokenizer >log 2>&1
tokenize() { "$ziggurat" data tokenize --tokenizer run/laptop/tokenizer --split 0.9,0.1,0 "$@" >log 2>&1 || { cat log; fail "tokenize $*"; }; }

tokenize --input code --output run/laptop/data
expect_end 0 log mpirun -n 2 "$ziggurat" train "$recipes/laptop.yaml" "${small[@]}" model.moe.capacity_factor=1.25
expect_text log "step 10/10" "the goal is reached"
expect_end 0 log "$ziggurat" top run/laptop/model
expect_text log "10/10" "done" "layer 5"

# Two sources, cut by one sample's text or one document each: --split-by text where a source is one file.
cp -r run/laptop/tokenizer run/mixture_tokenizer
mkdir run/mixture && mv run/mixture_tokenizer run/mixture/tokenizer
tokenize --input prose --source prose --split-by text --output run/mixture/prose
tokenize --input code --source code --output run/mixture/code
expect_end 0 log mpirun -n 2 "$ziggurat" train "$recipes/own_mixture.yaml" "${small[@]}"
expect_text log "step 10/10" "prose" "code"

# A GPT-2 of our own making stands for the real one.
dense=(model.blocks='[{repeat: 2, pattern: [{ffn: dense}]}]' model.ffn_hidden=128)
expect_end 0 log "$ziggurat" train "$recipes/continue_gpt2.yaml" "${small[@]}" "${dense[@]}" output=run/dense \
  data.train=run/laptop/data data.valid=run/laptop/data data.tokenizer=run/laptop/tokenizer
expect_end 0 log "$ziggurat" export --checkpoint run/dense --output gpt2
expect_text log "GPT2LMHeadModel"

expect_end 0 log "$ziggurat" import --from gpt2 --output run/continue_gpt2
tokenize --input code --output run/continue_gpt2_data
expect_end 0 log mpirun -n 2 "$ziggurat" train "$recipes/continue_gpt2.yaml" "${small[@]}" "${dense[@]}"
expect_text log "step_00000000" "step 10/10"
expect_end 0 log "$ziggurat" export --checkpoint run/continue_gpt2 --output gpt2_mine

expect_end 0 log "$ziggurat" import --from gpt2 --output run/upcycle_dense --upcycle experts=8,every=2
expect_end 0 log mpirun -n 2 "$ziggurat" train "$recipes/upcycle_dense.yaml" "${small[@]}" model.ffn_hidden=128 \
  model.blocks='[{pattern: [{ffn: dense}, {ffn: moe, experts: 8, expert_parallel: 2}]}]'
expect_text log "step 10/10" "moe imb"
# At the start it computes what the dense model does.
python3 - <<'PYTHON' || fail "the upcycled model does not begin where the dense one does"
import json
first = {}
for run in ("continue_gpt2", "upcycle_dense"):
    records = [json.loads(line) for line in open(f"run/{run}/metrics.jsonl")]
    first[run] = next(r["loss"] for r in records if r["kind"] == "validation")
assert abs(first["continue_gpt2"] - first["upcycle_dense"]) < 1e-4, first
PYTHON
echo "recipes: ok"
