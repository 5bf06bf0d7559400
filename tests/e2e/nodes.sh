#!/usr/bin/env bash
# Ranks on several nodes, here two of two ranks: a run has the same losses, to the last bit, whichever way its
# all-to-alls go, and in strict mode the losses of one rank.
source "$(dirname "$0")/common.sh"

overrides=(train.tokens=20K eval.sequences=20 log.exact=true parallel.ranks_per_node=2)

train() {  # NAME RANKS OVERRIDE...
  local name=$1 ranks=$2
  shift 2
  mpirun -n "$ranks" --oversubscribe "$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" output="$name" \
    "${overrides[@]}" "$@" >"log_$name" 2>&1 || { cat "log_$name"; fail "$name"; }
  for kind in step validation; do losses "$name/metrics.jsonl" $kind; done >"losses_$name"
  [ "$(wc -l <"losses_$name")" = 12 ] || fail "$name: expected 10 steps and 2 validations"
}

for all_to_all in auto flat hierarchical; do
  train "fast_$all_to_all" 4 parallel.all_to_all=$all_to_all
  diff losses_fast_auto "losses_fast_$all_to_all" || fail "the losses of $all_to_all differ"
done
expect_text log_fast_auto "2 nodes of 2 ranks"

train strict_alone 1 reproducible=strict
for all_to_all in flat hierarchical; do
  train "strict_$all_to_all" 4 reproducible=strict parallel.all_to_all=$all_to_all
  diff losses_strict_alone "losses_strict_$all_to_all" || fail "strict: the losses of $all_to_all differ"
done

# Nodes of different size: flat, which is told once.
train unequal 4 parallel.ranks_per_node=3
expect_text log_unequal "collectives of 'world' stay flat: its 2 nodes hold 1 to 3 ranks"
[ "$(grep -c "of 'world' stay flat" log_unequal)" = 1 ] || fail "told more than once"

# One node: what was asked for does nothing, and the run says so.
train one_node 2 parallel.all_to_all=hierarchical
expect_text log_one_node "parallel.all_to_all = hierarchical: has no effect, as the 2 ranks"
mpirun -n 2 --oversubscribe "$ziggurat" bench comm --ranks-per-node 2 >log_comm 2>&1 && fail "bench comm makes up nodes"
expect_text log_comm "--ranks-per-node 2: 2 ranks make no nodes of it"
