#!/usr/bin/env bash
# Ziggurat, its GEMM-only bound, PyTorch and DeepSpeed's MoE layer on the same models, batches and threads, in one run.
#
#   scripts/bench/run.sh [--threads N] [--steps N] [--rounds N] [--rows "small_dense small_moe gpt2_124m:64 ..."] [--precisions "bf16 fp32"]
#
# A row is a config of configs/bench, with :T for sequences of T tokens. PyTorch and DeepSpeed come from PyPI into
# build/bench-venv, or from the Python named by $BENCH_PYTHON; Ziggurat never needs them. "Tuned" is jemalloc with huge
# pages that never gives memory back (Debian's libjemalloc2); without it that column is empty. Every variant runs in
# --rounds rounds, Ziggurat right before it each time, and the best round of each counts: the clock of a shared machine
# changes from second to second.
set -euo pipefail
cd "$(dirname "$0")/../.."
threads=$(nproc) steps=5 rounds=3 precisions="bf16 fp32"
rows="gpt2_124m:64 gpt2_124m:256 gpt2_124m:1024 small_dense small_moe"
while [ $# -gt 0 ]; do
  case $1 in
    --threads) threads=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --rounds) rounds=$2; shift 2 ;;
    --rows) rows=$2; shift 2 ;;
    --precisions) precisions=$2; shift 2 ;;
    *) echo "run.sh: unknown option '$1'; see the head of this file" >&2; exit 2 ;;
  esac
done

python=${BENCH_PYTHON:-build/bench-venv/bin/python}
if ! "$python" -c 'import torch, deepspeed' >/dev/null 2>&1; then
  python3 -m venv build/bench-venv
  DS_BUILD_OPS=0 build/bench-venv/bin/pip install --quiet torch deepspeed
  python=build/bench-venv/bin/python
fi
jemalloc=$(ldconfig -p | awk '/libjemalloc\.so\.2/ {print $NF; exit}')
[ -n "$jemalloc" ] || echo "No libjemalloc.so.2 (apt install libjemalloc2): PyTorch runs with the stock allocator only" >&2

results=build/bench
rm -rf "$results" && mkdir -p "$results"
# ziggurat_step NAME: our own figure and the bound's, for the row under way.
ziggurat_step() {
  build/release/ziggurat bench step "configs/bench/$model.yaml" "precision=$precision" \
    ${length:+"batch.sequence_length=$length"} --threads "$threads" --steps "$steps" --json > "$results/$1.ziggurat.json"
}
# torch NAME ARGUMENTS...: one PyTorch figure, and ours right before it; a variant that fails leaves an empty column and
# its log.
torch() {
  local name=$1.$round; shift
  ziggurat_step "$name"
  "${environment[@]}" "$python" scripts/bench/pytorch_step.py --threads "$threads" --steps "$steps" "$@" \
    > "$results/$name.torch.json" 2> "$results/$name.log" ||
    { echo "  $name failed: see $results/$name.log" >&2; rm -f "$results/$name.torch.json"; }
}
for row in $rows; do
  model=${row%:*} length=
  [ "$row" = "$model" ] || length=${row#*:}
  for precision in $precisions; do
    echo "$row $precision" >&2
    key=$row.$precision
    common=(--models "$model" --precisions "$precision" ${length:+--length "$length"})
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
  done
done

python3 - "$results" "$precisions" $rows <<'PY'
import glob, json, sys
folder, precisions, rows = sys.argv[1], sys.argv[2].split(), sys.argv[3:]
variants = ["eager", "compiled", "tuned_eager", "tuned_compiled", "deepspeed"]

def best(name, rate="tokens_per_second"):
    """The fastest round of what matches."""
    rounds = []
    for path in glob.glob(f"{folder}/{name}"):
        text = open(path).read()
        rounds.append(json.loads(text[max(0, text.find('{"model"')):]))  # DeepSpeed logs to where the figures go
    return max(rounds, key=lambda r: r[rate], default=None)

print("tokens/s; in brackets Ziggurat, measured right before, as a multiple of it; the best of all rounds")
print("| model | precision | GEMM-only bound | Ziggurat | of the bound | PyTorch eager | compiled | tuned eager | "
      "tuned compiled | DeepSpeed layer, tuned |")
print("|" + "---|" * 10)
for row in rows:
    for precision in precisions:
        key = f"{row}.{precision}"
        rate = best(f"{key}.*.ziggurat.json")["tokens_per_second"]
        bound_rate = "gemm_bound_tokens_per_second"
        bound = best(f"{key}.*.ziggurat.json", bound_rate)[bound_rate]
        cells = []
        for variant in variants:
            theirs, beside = best(f"{key}.{variant}.*.torch.json"), best(f"{key}.{variant}.*.ziggurat.json")
            their_rate = theirs and theirs["tokens_per_second"]
            cells.append(f"{their_rate:.0f} ({beside['tokens_per_second'] / their_rate:.2f})" if theirs else "")
        print(f"| {row} | {precision} | {bound:.0f} | {rate:.0f} | {100 * rate / bound:.0f} % | " + " | ".join(cells) + " |")
PY
