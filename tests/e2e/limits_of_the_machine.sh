#!/usr/bin/env bash
# What a machine may do to a job: few addresses, more threads than cores, files cut off while they are in use, a
# reader of its output who leaves.
source "$(dirname "$0")/common.sh"

tiny=$source_dir/configs/tiny/pr_moe.yaml
short=(train.tokens=20K optimizer.decay_tokens=20K optimizer.warmup_tokens=1K eval.sequences=4 checkpoint.every=0)

# Addresses are limited, as by h_vmem in a queue or by vm.overcommit_memory=2: the work takes what it needs.
few_addresses() { (ulimit -v 1500000; "$@"); }
expect_end 0 log few_addresses "$ziggurat" train "$tiny" "${short[@]}" output=few threads=2
expect_end 0 log few_addresses "$ziggurat" plan "$source_dir/configs/published/1.3b_moe128.yaml"
expect_end 0 log few_addresses "$ziggurat" plan "$source_dir/configs/published/6.7b_dense.yaml"
expect_end 0 log few_addresses "$ziggurat" bench decode "$tiny" --tokens 4 --rounds 1 --context 8
expect_end 0 log few_addresses mpirun -n 2 "$ziggurat" train "$tiny" "${short[@]}" output=two

# Where it needs more the error says what limits it.
expect_end 1 log few_addresses "$ziggurat" train "$tiny" "${short[@]}" output=more batch.micro_batch=8192 \
  batch.global_batch=8192 train.tokens=10M optimizer.decay_tokens=10M
expect_text log "device error" "ulimit -v" "smaller micro-batch"

# More threads than cores: a few times as many are told, more are refused; a variable for all programs is no wish.
cores=$(env -u OMP_NUM_THREADS nproc)
expect_end 2 log "$ziggurat" train "$tiny" "${short[@]}" output=many threads=$((4 * cores + 1))
expect_text log "threads: expected at most $((4 * cores))" "$cores cores" "got $((4 * cores + 1))"
expect_end 2 log "$ziggurat" bench roof --threads 5000
expect_text log "--threads: expected at most $((4 * cores))"
expect_end 0 log "$ziggurat" train "$tiny" "${short[@]}" output=some threads=$((2 * cores))
expect_text log "$((2 * cores)) threads share $cores cores"
expect_end 0 log env OMP_NUM_THREADS=5000 "$ziggurat" train "$tiny" "${short[@]}" output=variable

# A shard that is cut off while it is read.
cp -r "$source_dir/src" text
"$ziggurat" data train-tokenizer --input text --vocab-size 400 --output tokenizer >data.log 2>&1
"$ziggurat" data tokenize --input text --tokenizer tokenizer --output data --source code --split 1,0,0 >>data.log 2>&1
shard=$(realpath data/*-train-*.h5)
own=(model.vocab_size=400 data.train=data 'data.valid=""' data.verify_below=0 checkpoint.every=0 eval.sequences=0
  train.tokens=1B optimizer.decay_tokens=1B)
cut_off() {  # FOLDER COMMAND...: cuts the shard off after the first step
  local folder=$1 got=0
  shift
  cp "$shard" whole.h5
  timeout 300 "$@" & local job=$!
  until grep -q '"kind":"step"' "$folder/metrics.jsonl" 2>/dev/null; do sleep 0.1; kill -0 $job || break; done
  truncate -s 4096 "$shard"
  wait $job || got=$?
  cp whole.h5 "$shard"
  return $got
}
expect_end 3 log cut_off run "$ziggurat" train "$tiny" "${own[@]}" output=run
expect_text log "data error" "$(basename "$shard")" "was cut off while it was in use" "4096"
expect_end 3 log cut_off run2 mpirun -n 2 "$ziggurat" train "$tiny" "${own[@]}" output=run2
expect_text log "rank " "data error" "was cut off while it was in use"

# The reader of the output leaves: who makes something goes on, who only prints ends quietly.
"$ziggurat" train "$tiny" "${short[@]}" output=piped log.every=1 2>errors | head -n 1 >/dev/null ||
  { cat errors; fail "train ended because its reader left"; }
steps=$(losses piped/metrics.jsonl step | wc -l)
expect_text piped/rank_0.log "nobody reads standard output" "step $steps"
[ "$(grep -c "nobody reads" piped/rank_0.log)" = 1 ] || fail "told more than once"
"$ziggurat" config help 2>errors | true && fail "config help was to end with its reader"
[ ! -s errors ] || { cat errors; fail "a command that only prints spoke when its reader left"; }

# What was printed onto a full disk is no success.
for command in "plan $tiny" "config check $tiny" "--help"; do
  code=0
  "$ziggurat" $command >/dev/full 2>log || code=$?
  [ $code = 1 ] || fail "expected exit code 1 of $command onto a full disk, got $code"
  expect_text log "standard output cannot be written"
done
