#!/usr/bin/env bash
# The first steps of a run twice: runs that agree, the first tensor of those that don't, and nothing left behind.
source "$(dirname "$0")/common.sh"
config="$source_dir/configs/tiny/pr_moe.yaml"
mkdir tmp
export TMPDIR="$folder/tmp"

expect_end 0 log "$ziggurat" verify "$config" --steps 2 --against reproducible=strict
expect_text log "step 1: loss" "step 2: loss" "2 steps agree"
# Another rate first shows in the weights after the first step that has one.
expect_end 77 log "$ziggurat" verify "$config" --steps 3 --against optimizer.lr=1e-3 optimizer.warmup_tokens=0
expect_text log "step 1: weights differ" "--tolerance"
# Another start shows at once.
expect_end 77 log "$ziggurat" verify "$config" --against model.init_std=0.2
expect_text log "step 1: loss differ"
# What is rounded differs by that, and by no more.
expect_end 0 log "$ziggurat" verify "$config" --steps 3 --against optimizer.moments=bf16
expect_text log "3 steps agree"
# Ranks exchange as each run's config says.
expect_end 0 log mpirun -n 4 --oversubscribe "$ziggurat" verify "$config" --steps 2 \
  --against parallel.ranks_per_node=2 parallel.all_to_all=hierarchical parallel.zero=1
expect_text log "2 nodes of 2 ranks" "2 steps agree"
expect_end 2 log "$ziggurat" verify "$config"
expect_text log "--against"
expect_end 2 log "$ziggurat" verify "$config" --against model.hidden=0
expect_text log "model.hidden"
[ -z "$(ls tmp)" ] || fail "left behind: $(ls tmp)"
[ ! -e run ] || fail "a folder of a run was made"
