#!/usr/bin/env bash
# Numbers that cannot be right, on real ranks: every rank ends or goes on alike, and nothing wrong is saved. And a past
# step computed once more, with the same bits.
source "$(dirname "$0")/common.sh"

config=$source_dir/configs/tiny/pr_moe.yaml
"$ziggurat" plan "$config" >/dev/null
train() {  # CODE FOLDER FAULTS [key=value...]
  local code=$1 run=$2 faults=$3
  shift 3
  expect_end "$code" log env ZIGGURAT_INJECT="$faults" timeout 120 mpirun -n 2 "$ziggurat" train "$config" \
    output="$PWD/$run" eval.sequences=0 log.exact=true checkpoint.keep=0 "$@"
}
tokens() { echo "train.tokens=$(($1 * step_tokens))"; }
tokens_of_step() {
  "$ziggurat" config dump "$config" | awk '/global_batch:/ {b = $2} /sequence_length:/ {s = $2} END {print b * s}'
}
step_tokens=$(tokens_of_step)

# A gradient of one rank that is no number: every rank says which, at the same step, and no checkpoint of it is left.
train 77 stopped 'gradient:nan:rank=1:step=4:times=0:tensor=final_norm.weight:element=3' "$(tokens 6)" checkpoint.every=3
expect_text log 'rank 0 of 2: numeric error: step 4: the gradient of final_norm.weight, element 3 is not finite' \
  'rank 1 of 2: numeric error: step 4' 'it begins with the gradient of final_norm.weight, element 3 in micro-batch'
ls stopped/checkpoints | grep -qx step_00000003 || fail "the checkpoint before the fault"
[ "$(ls stopped/checkpoints | wc -l)" = 1 ] || fail "a checkpoint after the fault"

# Skipped: the run goes on and counts it.
train 0 skipped 'loss:inf:rank=1:step=4' "$(tokens 6)" guard.non_finite=skip
expect_text log 'step 4: the update is left out on all ranks'
[ "$(grep -c '"left_out":' skipped/metrics.jsonl)" = 1 ] || fail "one update left out"
expect_text skipped/metrics.jsonl '"updates_left_out":1'

# A bit of a weight that both ranks hold: found at the next check, not saved.
train 77 apart 'weight:flip:rank=1:step=3:tensor=blocks.0.norm1.weight' "$(tokens 8)" guard.replica_check_every=2
expect_text log 'step 4: ranks that must hold the same weights do not: blocks.0.norm1.weight, weight: ranks 0, 1 differ'
[ -z "$(ls apart/checkpoints)" ] || fail "saved what differs"

# A gradient bit that flips whenever one machine computes it, or once. Both ranks hold all of this model, so that each
# can check the other.
config=$source_dir/configs/tiny/350m_dense.yaml
step_tokens=$(tokens_of_step)
train 77 lasting 'gradient:flip:rank=1:step=3:times=0:bit=20' "$(tokens 4)" guard.rerun_every=1
expect_text log 'step 3: computed twice, bits differ, and did so again: a lasting fault' 'the gradient of embed.token.weight'
train 0 clean '' "$(tokens 9)" checkpoint.every=3
train 0 passing 'gradient:flip:rank=1:step=3:bit=20' "$(tokens 9)" guard.rerun_every=1 checkpoint.every=3
expect_text log 'a passing fault of the machine of rank 1 (the gradient of embed.token.weight)'
diff <(losses clean/metrics.jsonl step) <(losses passing/metrics.jsonl step) || fail "another run after a passing fault"

# A step once more: the loss that was recorded, and its gradients.
expect_end 0 log mpirun -n 2 "$ziggurat" replay --checkpoint clean --step 8 --dump 'gradient.blocks.0.*' --output dump
expect_text log "step 7: loss" "step 8: loss" "as recorded" "tensors are in dump"
[ -s dump/rank_0.safetensors ] || fail "no gradients"
expect_end 0 log mpirun -n 2 "$ziggurat" replay --checkpoint clean --step 8 --dump 'output.*' --output outputs
python3 - "$config" outputs/rank_1.safetensors <<'PY'
import json, math, struct, sys
file = open(sys.argv[2], "rb")
header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
data = file.read()
names = {n.rpartition(".")[0] for n in header if n != "__metadata__"}
assert {"output.embedding", "output.blocks.0", "output.final_norm"} <= names, names
entry = header["output.final_norm.0"]
tokens, hidden = entry["shape"]
begin, end = entry["data_offsets"]
values = struct.unpack(f"<{tokens * hidden}f", data[begin:end])
# A norm whose weights have hardly been trained yet: the rows are of about unit size.
for row in range(0, tokens, 17):
    size = math.sqrt(sum(x * x for x in values[row * hidden:(row + 1) * hidden]) / hidden)
    assert 0.5 < size < 2, (row, size)
assert len({data[header[n]["data_offsets"][0]:header[n]["data_offsets"][1]] for n in header if n != "__metadata__"}) == len(header) - 1
PY
sed -i 's/"loss_hex":"0x1/"loss_hex":"0x2/' clean/metrics.jsonl
expect_end 77 log mpirun -n 2 "$ziggurat" replay --checkpoint clean/checkpoints/step_00000003 --step 4
expect_text log "was recorded" "1 steps have another loss"
expect_end 2 log mpirun -n 2 "$ziggurat" replay --checkpoint clean --step 3
expect_text log "after the oldest checkpoint"
expect_end 2 log "$ziggurat" replay --checkpoint clean --step 4
expect_text log "mpirun -n 2 ziggurat replay"
