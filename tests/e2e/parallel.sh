#!/usr/bin/env bash
# Ranks that share matrices, experts and states: the losses of one rank, and a checkpoint that one rank goes on from;
# and when gradients are summed changes no bit.
source "$(dirname "$0")/common.sh"

config=$source_dir/configs/tiny/pr_moe.yaml
overrides=(precision=fp32 train.tokens=20K eval.sequences=20 log.every=1 checkpoint.every=6
  "model.dropout={embedding: 0.1, attention: 0.1, hidden: 0.1}")

# compare RUN: its losses against those of one rank, to rounding.
compare() {
  python3 - one/metrics.jsonl "$1/metrics.jsonl" <<'PYTHON' || fail "$1 has other losses than one rank"
import json, sys
def losses(path):
    records = [json.loads(line) for line in open(path)]
    return {(r["kind"], r["step"]): r["loss"] for r in records if "loss" in r}
one, other = losses(sys.argv[1]), losses(sys.argv[2])
assert len(one) >= 12 and one.keys() == other.keys(), (len(one), len(other))
worst = max(abs(one[k] - other[k]) for k in one)
print(f"{sys.argv[2]}: largest difference of {len(one)} losses {worst:.1e}")
sys.exit(worst > 2e-4)
PYTHON
}

"$ziggurat" train "$config" output=one "${overrides[@]}" >log 2>&1 || { cat log; fail "one rank"; }
mpirun -n 4 --oversubscribe "$ziggurat" train "$config" output=four parallel.tensor=2 parallel.zero=2 "${overrides[@]}" \
  >log 2>&1 || { cat log; fail "4 ranks"; }
expect_text log "4 ranks; dp 2 x tp 2; ep 1 x expert-dp 4; ep 2 x expert-dp 2; ep 4 x expert-dp 1"
compare four
mpirun -n 8 --oversubscribe "$ziggurat" train "$config" output=eight parallel.tensor=2 parallel.zero=1 "${overrides[@]}" \
  >log 2>&1 || { cat log; fail "8 ranks"; }
compare eight
mpirun -n 4 --oversubscribe "$ziggurat" train "$config" output=cut parallel.tensor=2 parallel.expert_tensor=2 parallel.zero=1 \
  "${overrides[@]}" >log 2>&1 || { cat log; fail "4 ranks that cut experts"; }
expect_text log "ep 2 x expert-dp 1 x expert-tp 2"
compare cut

# On one rank from where four left off.
cp -r four gone_on
rm -rf gone_on/checkpoints/step_00000010
"$ziggurat" train "$config" output=gone_on checkpoint.resume=auto "${overrides[@]}" >log 2>&1 || { cat log; fail "going on from 4 ranks"; }
expect_text log "resumed at step 6"
compare gone_on

# Behind backward or after it, through shared memory.
for zero in 0 1 2; do
  for overlap in true false; do
    mpirun -n 2 --oversubscribe "$ziggurat" train "$config" output=zero$zero$overlap parallel.zero=$zero \
      parallel.bucket=100000 parallel.overlap=$overlap log.exact=true "${overrides[@]}" >log 2>&1 || { cat log; fail "zero $zero, overlap $overlap"; }
    losses zero$zero$overlap/metrics.jsonl step >losses_$zero$overlap
  done
  [ "$(wc -l <losses_${zero}true)" = 10 ] || fail "expected 10 losses"
  diff losses_${zero}true losses_${zero}false || fail "ZeRO $zero: overlap changes losses"
  compare zero${zero}true
done
expect_end 0 log mpirun -n 2 --oversubscribe "$ziggurat" bench step "$config" --steps 1 parallel.zero=2
expect_text log "collectives (rank 0" "reduce_scatter on world" "exposed ms" "hidden ms"

# What cannot be cut is told before anything starts, with the cure.
expect_end 2 log "$ziggurat" config check "$config" parallel.tensor=3
expect_text log "parallel.tensor" "model.heads" "choose another"
expect_end 2 log "$ziggurat" config check "$config" parallel.tensor=2 reproducible=strict
expect_text log "reproducible" "tensor=1"
expect_end 2 log mpirun -n 3 --oversubscribe "$ziggurat" train "$config" output=three parallel.tensor=2
expect_text log "tensor, context and pipeline parallelism (2 x 1 x 1) do not divide the 3 ranks" "start 2 or 4 ranks"
expect_end 2 log "$ziggurat" config check "$config" parallel.expert_tensor=3
expect_text log "parallel.expert_tensor" "expected a divisor of the experts' inner width" "model.ffn_hidden"
expect_end 2 log "$ziggurat" plan "$config" --ranks 6 parallel.expert_tensor=4
expect_text log "parallel.expert_tensor" "start 4 or 8 ranks"
expect_end 0 log "$ziggurat" plan "$config" --ranks 8 parallel.tensor=2 parallel.expert_tensor=2
expect_text log "expert-tp 2" "[0..1] [2..3]"
expect_end 0 log "$ziggurat" plan "$config" --ranks 8 parallel.tensor=2 parallel.zero=2
expect_text log "tp 2"
