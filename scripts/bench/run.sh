#!/usr/bin/env bash
# Ziggurat, its GEMM-only bound and PyTorch on the same models, batches and threads, in one run.
#
#   scripts/bench/run.sh [--threads N] [--steps N] [--models "small_dense small_moe"]
#
# PyTorch comes from PyPI into build/bench-venv, or from the Python named by $BENCH_PYTHON; Ziggurat never needs it.
set -euo pipefail
cd "$(dirname "$0")/../.."
threads=$(nproc) steps=5 models="small_dense small_moe"
while [ $# -gt 0 ]; do
  case $1 in
    --threads) threads=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --models) models=$2; shift 2 ;;
    *) echo "run.sh: unknown option '$1'; see the head of this file" >&2; exit 2 ;;
  esac
done

python=${BENCH_PYTHON:-build/bench-venv/bin/python}
if ! "$python" -c 'import torch' 2>/dev/null; then
  python3 -m venv build/bench-venv
  build/bench-venv/bin/pip install --quiet torch
  python=build/bench-venv/bin/python
fi

results=build/bench
mkdir -p "$results"
# The programs take turns per model, so that a slow minute of the machine hits all of them.
for model in $models; do
  for precision in bf16 fp32; do
    echo "$model $precision" >&2
    build/release/ziggurat bench step "configs/bench/$model.yaml" "precision=$precision" \
      --threads "$threads" --steps "$steps" --json > "$results/$model.$precision.ziggurat.json"
    "$python" scripts/bench/pytorch_step.py --models "$model" --precisions "$precision" \
      --threads "$threads" --steps "$steps" > "$results/$model.$precision.pytorch.json"
  done
done

python3 - "$results" $models <<'PY'
import json, sys
folder, models = sys.argv[1], sys.argv[2:]
print("| model | precision | GEMM-only bound | Ziggurat | of the bound | PyTorch eager | Ziggurat / PyTorch |")
print("|---|---|---|---|---|---|---|")
for model in models:
    for precision in ("bf16", "fp32"):
        ours = json.load(open(f"{folder}/{model}.{precision}.ziggurat.json"))
        theirs = json.load(open(f"{folder}/{model}.{precision}.pytorch.json"))["tokens_per_second"]
        rate, bound = ours["tokens_per_second"], ours["gemm_bound_tokens_per_second"]
        print(f"| {model} | {precision} | {bound:.0f} | {rate:.0f} | {100 * rate / bound:.0f} % | {theirs:.0f} | "
              f"{rate / theirs:.2f} |")
PY
