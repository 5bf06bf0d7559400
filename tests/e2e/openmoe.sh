#!/usr/bin/env bash
# A tiny OpenMoE: UL2, then next tokens, on one rank and on two, in one go and in two starts to the same bits; the router of
# DeepSeek-V3 likewise; and where their tokens go.
source "$(dirname "$0")/common.sh"

tiny=$source_dir/configs/tiny
# 20 steps of 2048 tokens, 12 of them UL2's. The synthetic language leaves the last 32 ids of 96 to spans.
openmoe=("$tiny/openmoe.yaml" reproducible=strict train.tokens=40960 eval.sequences=16 eval.every=0 log.exact=true
  "data.ul2={until: 24576, sentinels: 32}")

expect_end 0 log "$ziggurat" train "${openmoe[@]}" output=one checkpoint.every=10 checkpoint.keep=0
[ "$(losses one/metrics.jsonl step | wc -l)" = 20 ] || { cat log; fail "expected 20 steps"; }
# The loss is a mean over what counts: a model that knows nothing has ln 96 = 4.56 under either.
python3 - <<'PYTHON' || fail "UL2's loss is no mean over the tokens that count"
import json
steps = [r for r in map(json.loads, open("one/metrics.jsonl")) if r["kind"] == "step"]
assert 4 < steps[0]["loss"] < 5.2, steps[0]["loss"]
PYTHON
expect_end 0 log mpirun -n 2 "$ziggurat" train "${openmoe[@]}" output=two
diff <(losses one/metrics.jsonl step) <(losses two/metrics.jsonl step) || fail "two ranks have other losses than one"
diff <(losses one/metrics.jsonl validation) <(losses two/metrics.jsonl validation) || fail "validations differ"

# Stopped among UL2's steps, and gone on with on two ranks.
expect_end 0 log "$ziggurat" train "${openmoe[@]}" output=parts checkpoint.resume=auto train.tokens=20480
expect_end 0 log mpirun -n 2 "$ziggurat" train "${openmoe[@]}" output=parts checkpoint.resume=auto
diff <(losses one/metrics.jsonl step) <(losses parts/metrics.jsonl step) || fail "a resumed run has other losses"

# Bidirectional prefixes are another model, and learn too.
expect_end 0 log "$ziggurat" train "${openmoe[@]}" output=both "data.ul2={until: 24576, sentinels: 32, bidirectional: true}"
[ "$(losses one/metrics.jsonl step | sed -n 2p)" != "$(losses both/metrics.jsonl step | sed -n 2p)" ] || fail "prefixes are causal"

# The bias of the choice goes through a checkpoint.
deepseek=("$tiny/deepseek_moe.yaml" reproducible=strict train.tokens=20480 eval.sequences=16 eval.every=0 log.exact=true)
expect_end 0 log "$ziggurat" train "${deepseek[@]}" output=ds
expect_end 0 log mpirun -n 2 "$ziggurat" train "${deepseek[@]}" output=ds_parts checkpoint.resume=auto train.tokens=10240
expect_end 0 log "$ziggurat" train "${deepseek[@]}" output=ds_parts checkpoint.resume=auto
diff <(losses ds/metrics.jsonl step) <(losses ds_parts/metrics.jsonl step) || fail "a resumed bias is another one"

# The average of the weights is another model, and one without is told.
expect_end 0 log "$ziggurat" train "${openmoe[@]}" output=averaged optimizer.average=0.9
diff <(losses one/metrics.jsonl step) <(losses averaged/metrics.jsonl step) || fail "an average changes the training"
for average in "" --average; do
  expect_end 0 log "$ziggurat" logits --checkpoint averaged --tokens 1,2,3 --output logits$average $average
done
cmp -s logits logits--average && fail "the average is the weights"
expect_end 0 log "$ziggurat" export --checkpoint averaged --output exported --average
expect_end 2 log "$ziggurat" export --checkpoint one --output never --average
expect_text log "holds no averages of weights" "optimizer.average"

# What cannot be is told with its cure.
expect_end 2 log "$ziggurat" train "${openmoe[@]}" output=no data.ul2.sentinels=4
expect_text log "data.ul2.sentinels" "leave so many ids of model.vocab_size free"
expect_end 2 log "$ziggurat" train "$tiny/openmoe.yaml" output=no model.moe.group_tokens=100
expect_text log "model.moe.group_tokens" "expected a divisor of the 256 tokens of a micro-batch"
expect_end 2 log "$ziggurat" train "$tiny/deepseek_moe.yaml" output=no model.moe.chosen_groups=1
expect_text log "model.moe.chosen_groups" "choose more groups"
expect_end 2 log "$ziggurat" train "$tiny/deepseek_moe.yaml" output=no model.moe.z_coefficient=0.001
expect_text log "model.moe.z_coefficient" "softmax"

# Where tokens go, and since when.
expect_end 0 log "$ziggurat" analyse routing --checkpoint one/checkpoints/step_00000010 --checkpoint one/checkpoints/step_00000020 \
  --data synthetic --sequences 16 --output routing
expect_text log "saturation" "routing/routing.html"
python3 - routing/routing.json <<'PYTHON'
import json, sys
found = json.load(open(sys.argv[1]))
assert found["tokens"] == 16 * 64, found["tokens"]
assert [c["step"] for c in found["checkpoints"]] == [10, 20]
assert [layer["layer"] for layer in found["layers"]] == [1, 3]
for layer in found["layers"]:
    assert abs(sum(layer["load"]) - 1) < 1e-9
    first, last = layer["checkpoints"]
    assert 0 < first["saturation"] <= 1 and last["saturation"] == 1 and last["token_distance"] == 0
    assert 0.25 <= layer["specialisation"]["input"] <= 1
    for i, row in enumerate(layer["coactivation"]):  # top-2: with one other
        assert row[i] == 0 and (abs(sum(row) - 1) < 1e-9 or sum(row) == 0)
PYTHON
grep -q "<svg" routing/routing.html || fail "no plot"
expect_end 0 log "$ziggurat" train "$tiny/350m_dense.yaml" output=dense train.tokens=4096 eval.sequences=0
expect_end 2 log "$ziggurat" analyse routing --checkpoint dense --data synthetic
expect_text log "model without experts"
