#!/usr/bin/env bash
# A rank that holds up the others by 200 ms a step is named within 20 steps, with a score; no other ever is.
source "$(dirname "$0")/common.sh"

train=(mpirun -n 4 "$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" threads=1 eval.sequences=4 eval.every=0
  checkpoint.every=0 checkpoint.resume=auto)
expect_end 0 log env ZIGGURAT_INJECT=compute:delay:ms=200:rank=2:times=0 "${train[@]}" output=run train.tokens=50K
found=$(grep '"kind":"slow_rank"' run/metrics.jsonl | head -1)
[[ $found == *'"rank":2,"slow":true'* ]] || { cat log; fail "rank 2 is not named: $found"; }
[ "$(sed 's/.*"step":\([0-9]*\),.*/\1/' <<<"$found")" -le 20 ] || fail "named too late: $found"
python3 -c "import json, sys; assert json.loads(sys.argv[1])['score'] < 0.75" "$found" || fail "no score: $found"
expect_text log "rank 2 is slow and holds up the others"
grep '"kind":"slow_rank"' run/metrics.jsonl | grep -v '"rank":2' && fail "a rank was named that is not slow"
expect_end 0 log "${train[@]}" output=run train.tokens=100K
expect_text run/metrics.jsonl '"kind":"step","step":49'
[ "$(grep -c '"kind":"slow_rank"' run/metrics.jsonl)" = 1 ] || { cat log; fail "a rank was named that is not slow"; }
