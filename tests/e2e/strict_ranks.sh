#!/usr/bin/env bash
# reproducible: strict prints the same losses, to the last bit, on 1, 2 and 4 ranks of MPI.
source "$(dirname "$0")/common.sh"

config=$source_dir/configs/tiny/pr_moe.yaml
overrides=(reproducible=strict precision=bf16 train.tokens=20K eval.sequences=20 log.exact=true log.every=1
  "model.dropout={embedding: 0.1, attention: 0.1, hidden: 0.1}")

for ranks in 1 2 4; do
  mpirun -n $ranks --oversubscribe "$ziggurat" train "$config" output=run$ranks "${overrides[@]}" >log$ranks 2>&1 ||
    { cat log$ranks; fail "training on $ranks ranks"; }
  for kind in step validation; do losses run$ranks/metrics.jsonl $kind; done >losses$ranks
  grep -o 'loss [0-9.]* (0x[^)]*)' log$ranks >printed$ranks
done
[ "$(wc -l <losses1)" = 12 ] || { cat losses1; fail "expected 10 steps and 2 validations"; }
[ "$(wc -l <printed1)" = 12 ] || { cat log1; fail "expected 12 printed losses"; }
for ranks in 2 4; do
  diff losses1 losses$ranks || fail "$ranks ranks have other losses than one"
  diff printed1 printed$ranks || fail "$ranks ranks print other losses than one"
done
expect_text log4 "4 ranks; ep 1 x expert-dp 4; ep 2 x expert-dp 2; ep 4 x expert-dp 1"
