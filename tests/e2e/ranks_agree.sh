#!/usr/bin/env bash
# Ranks that were not started alike are told apart by key, value and rank before anything can hang.
source "$(dirname "$0")/common.sh"

start=("$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" output=run train.tokens=20K)
# differ CODE TEXT OVERRIDE...: of two ranks the second has the overrides.
differ() {
  local text=$1
  shift
  expect_end 2 log timeout 60 mpirun -n 1 "${start[@]}" : -n 1 "${start[@]}" "$@"
  expect_text log "expected the same on all 2 ranks" "$text"
  [ ! -e run ] || fail "a refused start left a folder: $*"
}
differ "seed: 1234 (rank 0), 2 (rank 1)" seed=2
differ "batch.micro_batch: " batch.micro_batch=2 batch.global_batch=32
differ "batch.sequence_length: " batch.sequence_length=16
differ "train.tokens: " train.tokens=10M
differ "model.moe.top_k: " model.moe.top_k=2
differ "optimizer.lr: " optimizer.lr=5e-3
differ "the output folder: " output=other
cp "$ziggurat" other_program
echo >>other_program
expect_end 2 log timeout 60 mpirun -n 1 "${start[@]}" : -n 1 ./other_program "${start[@]:1}"
expect_text log "the program: " "(rank 1)"

expect_end 2 log timeout 60 mpirun -n 2 --oversubscribe "${start[@]}" : -n 1 "${start[@]}" seed=7
expect_text log "seed: 1234 (ranks 0-1), 7 (rank 2)"
expect_end 2 log timeout 60 mpirun -n 1 --oversubscribe "${start[@]}" : -n 2 "${start[@]}" seed=8 : -n 1 "${start[@]}"
expect_text log "seed: 1234 (ranks 0, 3), 8 (ranks 1-2)"
[ "$(grep -c 'expected the same' log)" = 1 ] || { cat log; fail "several ranks told the same"; }

# Tokenizing asks the same. The same paths, other data.
mkdir text && cp "$source_dir"/scripts/*.sh text
"$ziggurat" data train-tokenizer --input text --vocab-size 300 --output tokenizer >data.log 2>&1
for ranks_folder in a b; do
  mkdir $ranks_folder
  [ $ranks_folder = a ] || rm text/lint.sh
  "$ziggurat" data tokenize --input text --tokenizer tokenizer --output $ranks_folder/data --source code --split 1,0,0 >>data.log 2>&1
done
tokenize=("$ziggurat" data tokenize --input text --tokenizer tokenizer --output shards --source code)
expect_end 2 log timeout 60 mpirun -n 1 "${tokenize[@]}" --shard-bytes 10000 : -n 1 "${tokenize[@]}" --shard-bytes 20000
expect_text log "--shard-bytes: 10000 (rank 0), 20000 (rank 1)"
[ ! -e shards ] || fail "a refused start left a folder"
dataset=("$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" output="$PWD/run" model.vocab_size=300 data.train=data
  'data.valid=""')
expect_end 2 log timeout 60 mpirun -n 1 -wdir "$PWD/a" "${dataset[@]}" : -n 1 -wdir "$PWD/b" "${dataset[@]}"
expect_text log "contents of data.train"
