#!/usr/bin/env bash
# `ziggurat eval` beside lm-evaluation-harness with transformers: the same dense model, LAMBADA, threads and machine.
#
#   scripts/bench/eval.sh --checkpoint DIR --exported DIR --data DIR [--limit N] [--max-length N] [--batch-size N]
#     [--precision fp32|bf16] [--threads N] [--rounds N]
#
# --exported is what `ziggurat export --dtype fp32` made of the checkpoint; --data holds lambada/lambada_test.jsonl.
# $BENCH_PYTHON is a Python with torch, transformers, lm_eval and datasets. Both run in every round, and the best of each
# counts: the clock of a shared machine changes. Without --max-length (the tokens that the model sees) Ziggurat takes the
# length of training, lm_eval the model's positions. Seconds are those of the evaluation, without loading the model.
set -euo pipefail
cd "$(dirname "$0")/../.."
checkpoint='' exported='' data='' limit='' max_length='' precision=fp32 batch_size=16 threads=$(nproc) rounds=1
while [ $# -gt 0 ]; do
  case $1 in
    --checkpoint) checkpoint=$2 ;;
    --exported) exported=$2 ;;
    --data) data=$2 ;;
    --limit) limit=$2 ;;
    --max-length) max_length=$2 ;;
    --precision) precision=$2 ;;
    --batch-size) batch_size=$2 ;;
    --threads) threads=$2 ;;
    --rounds) rounds=$2 ;;
    *) echo "eval.sh: unknown option '$1'; see the head of this file" >&2; exit 2 ;;
  esac
  shift 2
done
[ -n "$checkpoint" ] && [ -n "$exported" ] && [ -n "$data" ] || { echo "eval.sh: see the head of this file" >&2; exit 2; }

case $precision in
  fp32) dtype=float32 ;;
  bf16) dtype=bfloat16 ;;
  *) echo "eval.sh: --precision is fp32 or bf16" >&2; exit 2 ;;
esac

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
for round in $(seq "$rounds"); do
  build/release/ziggurat eval --checkpoint "$checkpoint" --tasks lambada --data "$data" --precision "$precision" \
    --threads "$threads" ${limit:+--limit "$limit"} ${max_length:+--max-length "$max_length"} \
    --output "$results/$round.ours.json" >"$results/log" 2>&1 ||
    { cat "$results/log" >&2; exit 1; }
  HF_HUB_OFFLINE=1 OMP_NUM_THREADS=$threads "${BENCH_PYTHON:-python3}" scripts/lm_eval/run.py --data "$data" \
    --tasks lambada --model hf --model-args "pretrained=$exported,dtype=$dtype${max_length:+,max_length=$max_length}" \
    --batch-size "$batch_size" ${limit:+--limit "$limit"} --output "$results/$round.lm_eval.json" >"$results/log" 2>&1 ||
    { cat "$results/log" >&2; exit 1; }
done
python3 - "$results" <<'PY'
import glob, json, sys

def best(kind, seconds):
    reports = [json.load(open(name)) for name in glob.glob("%s/*.%s.json" % (sys.argv[1], kind))]
    return min(map(seconds, reports)), reports[0]["results"]["lambada_openai"]

ours, our_scores = best("ours", lambda r: r["ziggurat"]["tasks"]["lambada_openai"]["seconds"])
theirs, their_scores = best("lm_eval", lambda r: r["seconds"])
print("ziggurat eval %.1f s, lm_eval with transformers %.1f s: %.2f times as fast" % (ours, theirs, theirs / ours))
for metric in ("acc,none", "perplexity,none"):
    print("%s: %r, %r" % (metric, our_scores[metric], their_scores[metric]))
PY
