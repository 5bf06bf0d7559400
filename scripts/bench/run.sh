#!/usr/bin/env bash
# Ziggurat, its GEMM-only bound, PyTorch and DeepSpeed's MoE layer on the same models, batches and threads, in one run.
#
#   scripts/bench/run.sh [--threads N] [--steps N] [--rows "small_dense small_moe gpt2_124m:64 ..."] [--precisions "bf16 fp32"]
#
# A row is a config of configs/bench, with :T for sequences of T tokens. PyTorch and DeepSpeed come from PyPI into
# build/bench-venv, or from the Python named by $BENCH_PYTHON; Ziggurat never needs them. "Tuned" is jemalloc with huge
# pages that never gives memory back (Debian's libjemalloc2); without it that column is empty.
set -euo pipefail
cd "$(dirname "$0")/../.."
threads=$(nproc) steps=5 precisions="bf16 fp32"
rows="gpt2_124m:64 gpt2_124m:256 gpt2_124m:1024 small_dense small_moe"
while [ $# -gt 0 ]; do
  case $1 in
    --threads) threads=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --rows) rows=$2; shift 2 ;;
    --precisions) precisions=$2; shift 2 ;;
    *) echo "run.sh: unknown option '$1'; see the head of this file" >&2; exit 2 ;;
  esac
done

python=${BENCH_PYTHON:-build/bench-venv/bin/python}
if ! "$python" -c 'import torch, deepspeed' 2>/dev/null; then
  python3 -m venv build/bench-venv
  DS_BUILD_OPS=0 build/bench-venv/bin/pip install --quiet torch deepspeed
  python=build/bench-venv/bin/python
fi
jemalloc=$(ldconfig -p | awk '/libjemalloc\.so\.2/ {print $NF; exit}')
[ -n "$jemalloc" ] || echo "No libjemalloc.so.2 (apt install libjemalloc2): PyTorch runs with the stock allocator only" >&2

results=build/bench
rm -rf "$results" && mkdir -p "$results"
# torch NAME ARGUMENTS...: one PyTorch figure; a variant that fails leaves an empty column and its log.
torch() {
  local name=$1; shift
  "${environment[@]}" "$python" scripts/bench/pytorch_step.py --threads "$threads" --steps "$steps" "$@" \
    > "$results/$name.json" 2> "$results/$name.log" || { echo "  $name failed: see $results/$name.log" >&2; rm -f "$results/$name.json"; }
}
# The programs take turns per row, so that a slow minute of the machine hits all of them.
for row in $rows; do
  model=${row%:*} length=
  [ "$row" = "$model" ] || length=${row#*:}
  for precision in $precisions; do
    echo "$row $precision" >&2
    key=$row.$precision
    build/release/ziggurat bench step "configs/bench/$model.yaml" "precision=$precision" \
      ${length:+"batch.sequence_length=$length"} --threads "$threads" --steps "$steps" --json > "$results/$key.ziggurat.json"
    common=(--models "$model" --precisions "$precision" ${length:+--length "$length"})
    environment=(env)
    torch "$key.eager" "${common[@]}"
    torch "$key.compiled" "${common[@]}" --compile
    [ -n "$jemalloc" ] || continue
    environment=(env "LD_PRELOAD=$jemalloc" "MALLOC_CONF=thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1")
    torch "$key.tuned_eager" "${common[@]}"
    torch "$key.tuned_compiled" "${common[@]}" --compile
    case $model in *moe*) torch "$key.deepspeed" "${common[@]}" --moe deepspeed ;; esac
  done
done

python3 - "$results" "$precisions" $rows <<'PY'
import json, os, sys
folder, precisions, rows = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
variants = ["eager", "compiled", "tuned_eager", "tuned_compiled", "deepspeed"]

def peer(key, variant):
    path = f"{folder}/{key}.{variant}.json"
    return json.load(open(path))["tokens_per_second"] if os.path.exists(path) else None

print("tokens/s")
print("| model | precision | GEMM-only bound | Ziggurat | of the bound | PyTorch eager | compiled | tuned eager | "
      "tuned compiled | DeepSpeed layer, tuned | Ziggurat / best tuned | / as installed, eager |")
print("|" + "---|" * 12)
for row in rows:
    for precision in precisions:
        key = f"{row}.{precision}"
        ours = json.load(open(f"{folder}/{key}.ziggurat.json"))
        rate, bound = ours["tokens_per_second"], ours["gemm_bound_tokens_per_second"]
        theirs = {v: peer(key, v) for v in variants}
        tuned = [theirs[v] for v in variants[2:] if theirs[v]]
        show = lambda value, form: "" if not value else format(value, form)
        print(f"| {row} | {precision} | {bound:.0f} | {rate:.0f} | {100 * rate / bound:.0f} % | "
              + " | ".join(show(theirs[v], ".0f") for v in variants)
              + f" | {show(tuned and rate / max(tuned), '.2f')} | {show(theirs['eager'] and rate / theirs['eager'], '.2f')} |")
PY
