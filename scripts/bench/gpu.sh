#!/usr/bin/env bash
# Ziggurat and PyTorch (as installed, and compiled) on the same models, batches and GPU, in one run: tokens/s, their
# ratio, and what share of the GPU's measured roof of products Ziggurat's steps reach.
#
#   scripts/bench/gpu.sh [--steps N] [--rounds N] [--rows "gpt2_124m:16 ..."] [--precision bf16|fp32] [--ziggurat PROGRAM]
#
# A row is a config of configs/bench, with :B for B sequences a step. Rows that need more than the GPU's memory are left
# out, and told. PyTorch comes from PyPI into build/bench-venv, or from the Python named by $BENCH_PYTHON; Ziggurat is
# build/cuda/ziggurat (cmake --preset cuda && cmake --build --preset cuda --target ziggurat). Every variant runs in
# --rounds rounds, Ziggurat right before it each time, and the best round of each counts.
# Exit code 2: that program has no CUDA; 77: there is no GPU that it can use.
set -euo pipefail
cd "$(dirname "$0")/../.."
steps=10 rounds=3 precision=bf16 ziggurat=build/cuda/ziggurat
rows="small_dense:64 gpt2_124m:64 gpt2_1558m gpt_7b small_moe:64 350m_moe64"
while [ $# -gt 0 ]; do
  [ $# -gt 1 ] || { echo "gpu.sh: '$1' is no option with a value; see the head of this file" >&2; exit 2; }
  case $1 in
    --steps) steps=$2; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    --rows) rows=$2; shift 2 ;;
    --precision) precision=$2; shift 2 ;;
    --ziggurat) ziggurat=$2; shift 2 ;;
    *) echo "gpu.sh: unknown option '$1'; see the head of this file" >&2; exit 2 ;;
  esac
done

if ! "$ziggurat" --version 2>/dev/null | grep -q '^CUDA *built in'; then
  echo "gpu.sh: $ziggurat is no Ziggurat with CUDA: cmake --preset cuda && cmake --build --preset cuda --target ziggurat" >&2
  exit 2
fi
gpu=$("$ziggurat" doctor 2>/dev/null | grep -E -A 1 '^[a-zA-Z]+ +GPU ' || true)
if ! grep -qE '^ok +GPU .*compute capability' <<<"$gpu"; then
  echo "gpu.sh: no GPU that $ziggurat can use, so nothing was measured" >&2
  echo "$gpu" >&2
  exit 77
fi
gib=$(sed -nE 's/.*, ([0-9]+)[.0-9]* GiB, compute.*/\1/p' <<<"$gpu" | head -1)

source scripts/bench/peers.sh
python_with torch
environment=(env)
results=build/bench-gpu
rm -rf "$results" && mkdir -p "$results"
"$ziggurat" bench roof --device cuda | tee "$results/roof.txt"

ziggurat_step() {
  "$ziggurat" bench step "${config[@]}" --steps "$steps" --json > "$results/$1.ziggurat.json" 2> "$results/$1.ziggurat.log" ||
    { echo "  $1 failed: see $results/$1.ziggurat.log" >&2; rm -f "$results/$1.ziggurat.json"; }
}
measured=()
for row in $rows; do
  model=${row%:*} sequences=
  [ "$row" = "$model" ] || sequences=${row#*:}
  config=("configs/bench/$model.yaml" device=cuda "precision=$precision"
    ${sequences:+"batch.micro_batch=$sequences" "batch.global_batch=$sequences"})
  need=$("$ziggurat" plan "${config[@]}" --ranks 1 --json | sed -nE 's/.*"memory_per_rank": ([0-9]+).*/\1/p')
  if [ "${need:-0}" -ge $(((gib - 2) << 30)) ]; then
    echo "$row: left out, needs $((need >> 30)) GiB" >&2
    continue
  fi
  echo "$row $precision" >&2
  measured+=("$row")
  common=(--device cuda --steps "$steps" --models "$model" --precisions "$precision" ${sequences:+--sequences "$sequences"})
  for round in $(seq "$rounds"); do
    torch "$row.eager" "${common[@]}"
    torch "$row.compiled" "${common[@]}" --compile
  done
done

PYTHONPATH=scripts/bench python3 - "$results" "$precision" "${measured[@]}" <<'PY'
import sys
from rounds import best
folder, precision, rows = sys.argv[1], sys.argv[2], sys.argv[3:]
print(f"tokens/s in {precision}; in brackets Ziggurat, measured right before, as a multiple of it; the best of all rounds")
print("| model | Ziggurat | of the roof of products | host starts kernels, of the step | PyTorch eager | compiled |")
print("|" + "---|" * 6)
for row in rows:
    ours = best(f"{folder}/{row}.*.ziggurat.json")
    cells = [f"{ours['tokens_per_second']:.0f}", f"{100 * ours['of_product_roof']:.0f} %",
             f"{100 * ours['of_step_for_starts']:.0f} %"] if ours else ["failed", "", ""]
    for variant in ["eager", "compiled"]:
        theirs, beside = best(f"{folder}/{row}.{variant}.*.torch.json"), best(f"{folder}/{row}.{variant}.*.ziggurat.json")
        rate = theirs and theirs["tokens_per_second"]
        ratio = f" ({beside['tokens_per_second'] / rate:.2f})" if theirs and beside else ""
        cells.append(f"{rate:.0f}{ratio}" if theirs else "failed")
    print(f"| {row} | " + " | ".join(cells) + " |")
PY
