#!/usr/bin/env bash
# ziggurat checkpoint inspect, verify, diff and convert, on checkpoints of two ranks and of every format.
source "$(dirname "$0")/common.sh"

config=$source_dir/configs/tiny/pr_moe.yaml
train() { expect_end 0 log mpirun -n 2 "$ziggurat" train "$config" output=run threads=1 eval.sequences=0 checkpoint.resume=auto \
  checkpoint.keep=0 "$@"; }
train train.tokens=8K checkpoint.every=2  # 4 steps
expect_text log "checkpoint of step 2 saved" "training waited"
grep '"kind":"checkpoint"' run/metrics.jsonl | grep -q '"stall_seconds"' || fail "no stall in metrics.jsonl"

expect_end 0 log "$ziggurat" checkpoint inspect run
expect_text log "checkpoints/step_00000004" "format version" "blocks.0.attention.qkv.weight" "consumed_samples" "threads: 1"
"$ziggurat" checkpoint inspect run/checkpoints/step_00000002 --json >log
python3 - log <<'PY'
import json, sys
c = json.load(open(sys.argv[1]))
assert c["step"] == 2 and c["ranks"] == 2 and len(c["files"]) == 2, c
assert c["lineage"] and c["tensors"]["embed.token.weight"]["dtype"] == "f32", c
sizes = [f["bytes"] for f in c["files"]]
assert min(sizes) > 0.9 * max(sizes), f"not shared evenly: {sizes}"
PY

expect_end 0 log "$ziggurat" checkpoint diff run/checkpoints/step_00000002 run/checkpoints/step_00000004
expect_text log "embed.token.weight" "of its norm" "keys of the config" "consumed_samples"
expect_end 0 log "$ziggurat" checkpoint diff run run
expect_text log "0 of " "tensors differ"

# Converted, a run goes on from it, and what is no moment is the same.
expect_end 0 log "$ziggurat" checkpoint convert run --output bare --weights-only
expect_end 2 log "$ziggurat" checkpoint convert run --output bare --weights-only
expect_text log "is there already"
expect_end 0 log "$ziggurat" checkpoint convert run --output halved/checkpoints --moments bf16
expect_end 0 log "$ziggurat" checkpoint verify halved
train output=halved train.tokens=10K
expect_text log "resumed at step 4"
for format in 1 2 3; do
  expect_end 0 log "$ziggurat" checkpoint verify "$source_dir/tests/golden/data/checkpoints/format_$format"
  expect_end 0 log "$ziggurat" checkpoint convert "$source_dir/tests/golden/data/checkpoints/format_$format" --output "now_$format"
done
expect_end 0 log "$ziggurat" checkpoint diff now_1 now_3
expect_text log "0 of 51 tensors differ, and 0 keys"

# verify looks at all of a run and names what is damaged, also a manifest.
expect_end 0 log "$ziggurat" checkpoint verify run
expect_text log "step_00000002: ok" "step_00000004: ok"
printf 'x' | dd of=run/checkpoints/step_00000002/rank_00001.safetensors bs=1 seek=5000 conv=notrunc status=none
expect_end 3 log "$ziggurat" checkpoint verify run
expect_text log "step_00000004: ok" "step_00000002/rank_00001.safetensors is damaged" "expected hash xxh3-128:" "found xxh3-128:"
echo >>run/checkpoints/step_00000004/manifest.json
expect_end 3 log "$ziggurat" checkpoint verify run/checkpoints
expect_text log "step_00000004/manifest.json is cut off or damaged" "step_00000002/rank_00001.safetensors is damaged"
expect_end 3 log "$ziggurat" checkpoint verify nowhere
