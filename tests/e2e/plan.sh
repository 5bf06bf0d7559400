#!/usr/bin/env bash
# What `plan` tells beside the memory: who shares what, and how long a step would take on a cluster.
source "$(dirname "$0")/common.sh"

moe=$source_dir/configs/published/1.3b_moe128.yaml
clusters=$source_dir/configs/clusters

expect_end 0 log "$ziggurat" plan "$moe" --ranks 512 batch.global_batch=2048
expect_text log "ep 128 x expert-dp 4" "dp 512" "[0..511]" "[0..127] [128..255] [256..383] [384..511]" \
  "[2,130,258,386] ... [127,255,383,511]" "of rank 0, and of 511 others"

"$ziggurat" plan "$moe" --ranks 256 batch.global_batch=1024 --json >log 2>notes
python3 - log <<'PY'
import json, sys
plan = json.load(open(sys.argv[1]))
groups = plan["groups"]
assert groups["dp"] == [list(range(256))], groups["dp"]
assert groups["ep128"] == [list(range(128)), list(range(128, 256))]
assert groups["expert_dp128"][5] == [5, 133]
assert sorted(r for c in plan["rank_classes"] for r in c["ranks"]) == list(range(256))
PY

expect_end 0 log "$ziggurat" plan "$moe" --simulate "$clusters/a100_128.yaml"
expect_text log "128 ranks of 128 A100" products experts attention all-to-all "gradient reduction" optimizer samples/s
"$ziggurat" plan "$moe" --simulate "$clusters/a100_128.yaml" --json >log
python3 - log <<'PY'
import json, sys
step = json.load(open(sys.argv[1]))
assert abs(sum(p["seconds"] for p in step["phases"]) - step["seconds"]) < 1e-9
assert abs(step["samples_per_second"] * step["seconds"] - 512) < 1e-6
assert step["fits"] and step["memory"] < 41e9, step
PY

# What the memory does not hold, an option that does nothing, and a layout as keys of the config.
dense=$source_dir/configs/published/6.7b_dense.yaml
expect_end 0 log "$ziggurat" plan "$dense" --simulate "$clusters/a100_128.yaml" model.moe.top_k=2
expect_text log "does not fit" "warning: model.moe.top_k"
expect_end 2 log "$ziggurat" plan "$dense" --simulate "$clusters/a100_128.yaml" --search model.hidden=32768
expect_text log "none of 120 layouts fits" "the smallest takes" "more ranks or memory"
expect_end 0 log "$ziggurat" plan "$dense" --simulate "$clusters/a100_128.yaml" --search
expect_text log "parallel.tensor=2 parallel.zero=1"
expect_end 0 log "$ziggurat" plan "$moe" --simulate "$clusters/a100_256.yaml" --search --ranks 128
expect_text log "of 656 layouts" "batch.micro_batch=4 train.recompute=false parallel.tensor=1 parallel.zero=1" "expert_parallel: 128"
expect_end 0 log "$ziggurat" plan "$dense" --simulate "$clusters/h100_64.yaml" --search parallel.zero=1
expect_text log "it cannot start as it is" "batch.rampup.start: 32 sequences cannot be shared by 64 ranks"
