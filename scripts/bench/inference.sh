#!/usr/bin/env bash
# Writing texts beside others, in turn: milliseconds a step, the part of the memory's bound, the rate of reading contexts and
# its part of the products' bound; and of each peer its milliseconds and how many times as fast Ziggurat writes, and reads:
# PyTorch, eager, with DeepSpeed's MoE code, and with one that touches the chosen experts alone; transformers' generate and
# llama.cpp on the exported model, where their formats hold it. Rows come as they are measured; a peer that is missing or
# fails leaves its columns empty and a log. Precision int8: weights of 8 bits (llama.cpp: Q8_0).
#   scripts/bench/inference.sh [--threads N] [--rounds N] [--rows "MODEL[:EXPERTS] ..."] [--texts "1 4 16 64"]
#                              [--precisions "fp32 bf16 int8"] [--peers "deepspeed lean transformers llama"]
# Python: $BENCH_PYTHON, or a virtual environment in build/bench-venv, for which llama.cpp is built (minutes).
set -euo pipefail
cd "$(dirname "$0")/../.."
threads=2 rounds=2 rows="gpt2_124m small_dense small_moe:8 small_moe:64" texts="1 4 16 64" precisions="fp32 bf16 int8"
peers="deepspeed lean transformers llama"
while [ $# -gt 0 ]; do
  case $1 in
    --threads) threads=$2 ;; --rounds) rounds=$2 ;; --rows) rows=$2 ;; --texts) texts=$2 ;; --precisions) precisions=$2 ;;
    --peers) peers=$2 ;;
    *) sed -n '2,9p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
ziggurat=${ZIGGURAT:-build/release/ziggurat}
source scripts/bench/peers.sh
python_with torch
for module in transformers safetensors gguf llama_cpp:llama-cpp-python; do  # into no environment but our own
  [ "$python" = build/bench-venv/bin/python ] || break
  "$python" -c "import ${module%%:*}" >/dev/null 2>&1 || "$python" -m pip install --quiet "${module##*:}" || true
done
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

ours() {  # OUTPUT MODEL EXPERTS TEXTS PRECISION
  local overrides=(precision="$5") weights=()
  [ "$5" != int8 ] || overrides=(precision=bf16) weights=(--weights int8)
  [ "$3" = 0 ] || overrides+=("model.blocks=[{repeat: 3, pattern: [{ffn: dense}, {ffn: moe, experts: $3}]}]")
  "$ziggurat" bench decode "configs/bench/$2.yaml" "${overrides[@]}" "${weights[@]}" --threads "$threads" --texts "$4" \
    --tokens 32 --rounds 3 --json >"$1"
}

exported() {  # MODEL: trained for a step and exported; prints the folder
  local folder=$results/$1
  if [ ! -e "$folder/config.json" ]; then
    "$ziggurat" train "configs/bench/$1.yaml" output="$folder.run" precision=fp32 batch.sequence_length=64 \
      batch.micro_batch=1 batch.global_batch=1 train.tokens=64 checkpoint.every=1
    "$ziggurat" export --checkpoint "$folder.run" --output "$folder" --no-tokenizer
    rm -rf "$folder.run"
  fi >"$folder.log" 2>&1
  echo "$folder"
}

peer() {  # OUTPUT PEER MODEL EXPERTS TEXTS PRECISION; fails where it cannot
  local common=(--texts "$5" --precision "$6" --threads "$threads") log=$results/log
  case $2 in
    deepspeed | lean)
      [ "$6" != int8 ] || return 1
      [ "$2" = deepspeed ] || [ "$4" != 0 ] || return 1
      "$python" scripts/bench/pytorch_decode.py "$3" --experts "$4" --moe "$2" "${common[@]}" >"$1" 2>"$log" ;;
    transformers | llama)
      [ "$4" = 0 ] && { [ "$2" = llama ] || [ "$6" != int8 ]; } || return 1
      "$python" scripts/bench/exported_decode.py "$2" "$(exported "$3")" "${common[@]}" >"$1" 2>"$log" ;;
  esac || { rm -f "$1"; echo "  $2 failed: $(tail -n 1 "$log")" >&2; return 1; }
}

printf '%-12s %7s %5s %5s | %9s %6s %14s %6s' model experts texts prec. "ms a step" bound "prefill (cold)" bound
for name in $peers; do printf ' | %9s %6s %7s' "${name:0:9}" times prefill; done
echo
for row in $rows; do
  model=${row%%:*} experts=0
  [ "$model" = "$row" ] || experts=${row##*:}
  for precision in $precisions; do
    for n in $texts; do
      rm -f "$results"/*.json
      for ((round = 0; round < rounds; ++round)); do
        for name in $peers; do
          peer "$results/$name.$round.peer.json" "$name" "$model" "$experts" "$n" "$precision" || continue
          ours "$results/$name.$round.ours.json" "$model" "$experts" "$n" "$precision"
        done
        ours "$results/alone.$round.ours.json" "$model" "$experts" "$n" "$precision"
      done
      "$python" - "$results" "$model" "$experts" "$n" "$precision" $peers <<'PY'
import glob, json, sys
folder, model, experts, texts, precision, *peers = sys.argv[1:]
load = lambda name: json.load(open(name))
ours = [load(f) for f in glob.glob(f"{folder}/*.ours.json")]
best = min(ours, key=lambda o: o["seconds_per_step"])
most = lambda key: max(o[key] for o in ours)
line = "%-12s %7s %5s %5s | %9.3f %5.0f%% %6.0f (%5.0f) %5.0f%%" % (
    model, experts, texts, precision, 1e3 * best["seconds_per_step"], 100 * most("of_bound"),
    most("prefill_tokens_per_second"), most("cold_prefill_tokens_per_second"), 100 * most("prefill_of_bound"))
for peer in peers:  # the ratio of the pair of each round, in the middle
    pairs = [(load(f), load(f.replace(".peer.", ".ours."))) for f in glob.glob(f"{folder}/{peer}.*.peer.json")]
    if not pairs:
        line += " | %9s %6s %7s" % ("-", "-", "-")
        continue
    middle = lambda ratios: sorted(ratios)[(len(ratios) - 1) // 2]
    line += " | %9.3f %5.1fx %6.1fx" % (
        1e3 * min(t["seconds_per_step"] for t, _ in pairs),
        middle([t["seconds_per_step"] / o["seconds_per_step"] for t, o in pairs]),
        middle([o["prefill_tokens_per_second"] / t["prefill_tokens_per_second"] for t, o in pairs]))
print(line, flush=True)
PY
    done
  done
done
