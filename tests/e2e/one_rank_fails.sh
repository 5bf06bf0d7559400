#!/usr/bin/env bash
# An error on one rank ends the job on all, within seconds, and the message names the rank and the cause.
source "$(dirname "$0")/common.sh"

tiny=$source_dir/configs/tiny/350m_moe128.yaml
"$ziggurat" plan "$tiny" >/dev/null

# Rank 1 has no data: its peer waits in a collective meanwhile.
start=$SECONDS
expect_end 3 log timeout 60 mpirun -n 1 "$ziggurat" train "$tiny" output=run \
  : -n 1 "$ziggurat" train "$tiny" output=run data.train="$PWD/nowhere"
expect_text log "rank 1 of 2" "data error" nowhere
[ $((SECONDS - start)) -le 10 ] || fail "the job took $((SECONDS - start)) s to end"

# Rank 1 meets a broken token in the middle of training: 0xffff, written over half of its copy of the shard.
cp -r "$source_dir/src" text
"$ziggurat" data train-tokenizer --input text --vocab-size 400 --output tokenizer >data.log 2>&1
"$ziggurat" data tokenize --input text --tokenizer tokenizer --output data --source code --split 1,0,0 >>data.log 2>&1
cp -r data broken
shard=$(ls broken/*-train-*.h5)
bytes=$(stat -c %s "$shard")
head -c $((bytes / 2)) /dev/zero | tr '\0' '\377' |
  dd of="$shard" bs=4096 seek=$((bytes / 4 / 4096)) conv=notrunc status=none
shared=(model.vocab_size=400 output=run 'data.valid=""' data.verify_below=0)
start=$SECONDS
expect_end 3 log timeout 60 mpirun -n 1 "$ziggurat" train "$tiny" "${shared[@]}" data.train=data \
  : -n 1 "$ziggurat" train "$tiny" "${shared[@]}" data.train=broken
expect_text log "rank 1 of 2" "data error" "outside the model's vocabulary of 400" "$shard"
[ $((SECONDS - start)) -le 10 ] || fail "the job took $((SECONDS - start)) s to end"
