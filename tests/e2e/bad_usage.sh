#!/usr/bin/env bash
# A user's mistake: exit code 2, told once, all of it, with its place and the cure.
source "$(dirname "$0")/common.sh"

cat >bad.yaml <<'YAML'
model:
  hiden: 64
  heads: 3
  blocks:
    - {repeat: 1, pattern: [{ffn: denze}]}
batch:
  micro_batch: four
optimizer:
  lr: -1
YAML
places=(bad.yaml:2:3 "'hidden'" bad.yaml:5:35 "'dense'" bad.yaml:7:16 bad.yaml:9:7)

expect_end 2 alone.log timeout 60 "$ziggurat" train bad.yaml
expect_text alone.log "${places[@]}"
expect_end 2 dump.log "$ziggurat" config check bad.yaml
expect_text dump.log "${places[@]}"
[ ! -e run ] || fail "a bad config left a folder behind"

expect_end 2 ranks.log timeout 60 mpirun -n 4 "$ziggurat" train bad.yaml
expect_text ranks.log "${places[@]}"
[ "$(grep -c bad.yaml:9:7 ranks.log)" = 1 ] || { cat ranks.log; fail "four ranks told the same mistake"; }

tiny=$source_dir/configs/tiny/pr_moe.yaml
expect_end 2 log "$ziggurat" train nowhere.yaml
expect_text log nowhere.yaml "No such file"
expect_end 2 log "$ziggurat" trian "$tiny"
expect_text log "expected a sub-command" "train" "got 'trian'"
expect_end 2 log "$ziggurat"
expect_text log train plan
expect_end 2 log "$ziggurat" train
expect_text log "config is required"
expect_end 2 log "$ziggurat" train "$tiny" train.tokens
expect_text log "override 'train.tokens'" "key=value"
expect_end 2 log "$ziggurat" train "$tiny" train.token=1K
expect_text log "did you mean 'tokens'?"
expect_end 2 log "$ziggurat" plan "$tiny" --rank 4
expect_text log -- "--rank"
expect_end 2 log "$ziggurat" bench roof --device gpu
expect_text log "--device: expected one of cpu, cuda, got 'gpu'"
expect_end 2 log "$ziggurat" export --checkpoint x --output y --dtype int8
expect_text log "--dtype: expected one of bf16, fp32, got 'int8'"
expect_end 2 log "$ziggurat" plan "$tiny" --search
expect_text log "--simulate"
expect_end 2 log "$ziggurat" plan "$tiny" --simulate nowhere.yaml
expect_text log nowhere.yaml "No such file"
expect_end 2 log "$ziggurat" plan "$tiny" --simulate "$tiny"
expect_text log "expected a known key"
expect_end 2 log "$ziggurat" plan "$source_dir/configs/published/1.3b_moe128.yaml" --ranks 256 \
  --simulate "$source_dir/configs/clusters/a100_128.yaml"
expect_text log "256 ranks are more than 128 A100 has" "--ranks 128"

# Scripts that would build, fetch or measure tell first what they are, or want.
for script in bench/gpu gpu/bundle gpu/run install_cudnn_frontend install_cutlass test_cuda; do
  expect_end 2 log bash "$source_dir/scripts/$script.sh" --help
  [ -s log ] || fail "scripts/$script.sh --help says nothing"
done
expect_end 2 log bash "$source_dir/scripts/gpu/run.sh"
expect_text log "scripts/gpu/bundle.sh"

# What only shows with the number of ranks: one message, from rank 0.
expect_end 2 ranks.log timeout 60 mpirun -n 3 "$ziggurat" train "$tiny" output=three
expect_text ranks.log "cannot be shared by 3 ranks"
[ "$(grep -c 'cannot be shared' ranks.log)" = 1 ] || { cat ranks.log; fail "three ranks told the same mistake"; }
expect_end 0 log "$ziggurat" --help
