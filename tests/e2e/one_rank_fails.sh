#!/usr/bin/env bash
# An error on one rank ends the job on all, long before a peer's watchdog would, and the message names rank and cause. The ranks
# start alike, in folders of their own, and what they find there differs.
source "$(dirname "$0")/common.sh"

tiny=$source_dir/configs/tiny/350m_moe128.yaml
"$ziggurat" plan "$tiny" >/dev/null
mkdir good empty bad
cp -r "$source_dir/src" text
"$ziggurat" data train-tokenizer --input text --vocab-size 400 --output tokenizer >data.log 2>&1
"$ziggurat" data tokenize --input text --tokenizer tokenizer --output good/data --source code --split 1,0,0 >>data.log 2>&1
train=("$ziggurat" train "$tiny" model.vocab_size=400 output="$PWD/run" data.train=data 'data.valid=""'
  data.verify_below=0)

# Rank 1 has no data: its peer waits in a collective meanwhile.
expect_end 3 log timeout 60 mpirun -n 1 -wdir "$PWD/good" "${train[@]}" : -n 1 -wdir "$PWD/empty" "${train[@]}"
expect_text log "rank 1 of 2" "data error" "data"

# Rank 1 meets a broken token in the middle of training: 0xffff, written over half of its copy of the shard.
cp -r good/data bad/data
shard=$(ls bad/data/*-train-*.h5)
bytes=$(stat -c %s "$shard")
head -c $((bytes / 2)) /dev/zero | tr '\0' '\377' |
  dd of="$shard" bs=4096 seek=$((bytes / 4 / 4096)) conv=notrunc status=none
expect_end 3 log timeout 60 mpirun -n 1 -wdir "$PWD/good" "${train[@]}" : -n 1 -wdir "$PWD/bad" "${train[@]}"
expect_text log "rank 1 of 2" "data error" "outside the model's vocabulary of 400" "${shard#bad/}"
