#!/usr/bin/env bash
# Writing texts beside PyTorch, in turn: milliseconds a step, the memory's bound, and what PyTorch takes with DeepSpeed's MoE
# code and with one that touches the chosen experts alone.
#   scripts/bench/inference.sh [--threads N] [--rounds N] [--rows "MODEL[:EXPERTS] ..."] [--texts "1 4 16 64"] [--precisions "fp32 bf16"]
# Python: $BENCH_PYTHON, or a virtual environment in build/bench-venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
threads=2 rounds=2 rows="gpt2_124m small_dense small_moe:8 small_moe:64" texts="1 16" precisions="fp32 bf16"
while [ $# -gt 0 ]; do
  case $1 in
    --threads) threads=$2 ;; --rounds) rounds=$2 ;; --rows) rows=$2 ;; --texts) texts=$2 ;; --precisions) precisions=$2 ;;
    *) sed -n '2,5p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
source scripts/bench/peers.sh
python_with torch
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

ours() {  # OUTPUT MODEL EXPERTS TEXTS PRECISION
  local overrides=(precision="$5")
  [ "$3" = 0 ] || overrides+=("model.blocks=[{repeat: 3, pattern: [{ffn: dense}, {ffn: moe, experts: $3}]}]")
  build/release/ziggurat bench decode "configs/bench/$2.yaml" "${overrides[@]}" --threads "$threads" --texts "$4" \
    --tokens 32 --rounds 3 --json >"$1"
}
torch_of() {  # OUTPUT MODEL EXPERTS TEXTS PRECISION KIND
  "$python" scripts/bench/pytorch_decode.py "$2" --experts "$3" --texts "$4" --precision "$5" --moe "$6" --threads "$threads" >"$1"
}

printf '%-12s %8s %5s %5s | %9s %8s %9s | %9s %7s | %9s %7s\n' \
  model experts texts prec. "ms a step" bound prefill PyTorch times lean times
for row in $rows; do
  model=${row%%:*} experts=0
  [ "$model" = "$row" ] || experts=${row##*:}
  for precision in $precisions; do
    for n in $texts; do
      for ((round = 0; round < rounds; ++round)); do
        for kind in deepspeed lean; do
          [ "$kind" = deepspeed ] || [ "$experts" != 0 ] || continue
          ours "$results/ours.$kind.$round" "$model" "$experts" "$n" "$precision"
          torch_of "$results/torch.$kind.$round" "$model" "$experts" "$n" "$precision" "$kind"
        done
      done
      "$python" - "$results" "$model" "$experts" "$n" "$precision" "$rounds" <<'PY'
import json, sys
folder, model, experts, texts, precision, rounds = sys.argv[1:]
load = lambda name: json.load(open(f"{folder}/{name}"))
kinds = ["deepspeed"] + (["lean"] if experts != "0" else [])
pairs = {k: [(load(f"ours.{k}.{r}"), load(f"torch.{k}.{r}")) for r in range(int(rounds))] for k in kinds}
ours = [o for k in kinds for o, _ in pairs[k]]
best = min(ours, key=lambda o: o["seconds_per_step"])
line = "%-12s %8s %5s %5s | %9.3f %7.0f%% %9.0f" % (model, experts, texts, precision, 1e3 * best["seconds_per_step"],
       100 * max(o["of_bound"] for o in ours), max(o["prefill_tokens_per_second"] for o in ours))
for k in kinds:  # the ratio of each round's pair, in the middle
    ratios = sorted(t["seconds_per_step"] / o["seconds_per_step"] for o, t in pairs[k])
    line += " | %9.3f %6.1fx" % (1e3 * min(t["seconds_per_step"] for _, t in pairs[k]), ratios[(len(ratios) - 1) // 2])
print(line)
PY
    done
  done
done
