#!/usr/bin/env bash
# Ziggurat, its GEMM-only bound, PyTorch and DeepSpeed's MoE layer on the same models, batches and threads, in one run.
#
#   scripts/bench/run.sh [--threads N] [--steps N] [--rounds N] [--rows "small_dense small_moe gpt2_124m:64 ..."] [--precisions "bf16 fp32"] [--keep FILE.jsonl] [--ziggurat PROGRAM]
#
# A row is a config of configs/bench, with :T for sequences of T tokens. PyTorch and DeepSpeed come from PyPI into
# build/bench-venv, or from the Python named by $BENCH_PYTHON; Ziggurat never needs them. "Tuned" is jemalloc with huge
# pages that never gives memory back (Debian's libjemalloc2); without it that column is empty. Every variant runs in
# --rounds rounds, Ziggurat right before it each time, and the best round of each counts: the clock of a shared machine
# changes from second to second.
set -euo pipefail
cd "$(dirname "$0")/../.."
keep=run/bench.jsonl ziggurat=build/release/ziggurat
threads=$(nproc) steps=5 rounds=3 precisions="bf16 fp32"
rows="gpt2_124m:64 gpt2_124m:256 gpt2_124m:1024 small_dense small_moe"
while [ $# -gt 0 ]; do
  case $1 in
    --threads) threads=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    --rows) rows=$2; shift 2 ;;
    --precisions) precisions=$2; shift 2 ;;
    --keep) keep=$2; shift 2 ;;
    --ziggurat) ziggurat=$2; shift 2 ;;
    *) echo "run.sh: unknown option '$1'; see the head of this file" >&2; exit 2 ;;
  esac
done

command -v "$ziggurat" >/dev/null || { echo "run.sh: no program $ziggurat: build it, or name one with --ziggurat" >&2; exit 2; }

source scripts/bench/peers.sh
python_with torch deepspeed
jemalloc=$(ldconfig -p | awk '/libjemalloc\.so\.2/ {print $NF; exit}')
[ -n "$jemalloc" ] || echo "No libjemalloc.so.2 (apt install libjemalloc2): PyTorch runs with the stock allocator only" >&2

results=build/bench failed=0
rm -rf "$results" && mkdir -p "$results"
# ziggurat_step NAME: our own figure and the bound's, for the row under way.
ziggurat_step() {
  "$ziggurat" bench step "configs/bench/$model.yaml" "precision=$precision" \
    ${length:+"batch.sequence_length=$length"} --threads "$threads" --steps "$steps" --json > "$results/$1.ziggurat.json"
}
echo "tokens/s; in brackets Ziggurat, measured right before, as a multiple of it; the best of all rounds"
scripts/bench/results.py head
for row in $rows; do
  model=${row%:*} length=
  [ "$row" = "$model" ] || length=${row#*:}
  for precision in $precisions; do
    echo "$row $precision" >&2
    key=$row.$precision
    common=(--threads "$threads" --steps "$steps" --models "$model" --precisions "$precision"
      ${length:+--length "$length"})
    for round in $(seq "$rounds"); do
      environment=(env)
      torch "$key.eager" "${common[@]}"
      torch "$key.compiled" "${common[@]}" --compile
      [ -n "$jemalloc" ] || continue
      environment=(env "LD_PRELOAD=$jemalloc" "MALLOC_CONF=thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1")
      torch "$key.tuned_eager" "${common[@]}"
      torch "$key.tuned_compiled" "${common[@]}" --compile
      case $model in *moe*) torch "$key.deepspeed" "${common[@]}" --moe deepspeed ;; esac
    done
    scripts/bench/results.py row "$results" "$row" "$precision" "$threads" "$keep" || failed=1  # the others still count
  done
done
exit $failed
