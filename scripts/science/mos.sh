#!/usr/bin/env bash
# Does a teacher help, and when does it stop helping? (DeepSpeed-MoE, section 4.2: figures 5 and 6.)
#
#   scripts/science/mos.sh [--tokens N] [--teacher-tokens N] [--seeds "1 2 3"] [--ranks N] [--output DIR] [key=value ...]
#
# Trains a PR-MoE, then students of five layers instead of six for each seed: without a teacher (no KD), with one all the
# way (full KD), with one for 70 % of the tokens (staged KD), and prints the validation loss of each, which is the
# student's cross-entropy alone: mean and range over the seeds. key=value goes to every run. What is trained already in
# DIR is not trained again.
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
tokens=1M teacher_tokens=4M seeds="1 2 3" ranks=1 output=run/science/mos
ziggurat=${ZIGGURAT:-$here/build/release/ziggurat}
overrides=()
while [ $# -gt 0 ]; do
  case $1 in
    --tokens) tokens=$2; shift 2 ;;
    --teacher-tokens) teacher_tokens=$2; shift 2 ;;
    --seeds) seeds=$2; shift 2 ;;
    --ranks) ranks=$2; shift 2 ;;
    --output) output=$2; shift 2 ;;
    *=*) overrides+=("$1"); shift ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
source "$here/scripts/mpi_environment.sh"

train() { # NAME CONFIG TOKENS [key=value ...]
  local name=$1 config=$2 length=$3
  shift 3
  echo "$name"
  mkdir -p "$output"
  mpirun -n "$ranks" --oversubscribe "$ziggurat" train "$here/configs/tiny/$config.yaml" output="$output/$name" \
    checkpoint.resume=auto train.tokens="$length" optimizer.decay_tokens="$length" optimizer.warmup_tokens=20K \
    eval.every=10 eval.sequences=128 log.every=1000 "${overrides[@]}" "$@" >"$output/$name.log" 2>&1 ||
    { tail -5 "$output/$name.log"; exit 1; }
}

# 70 % of a number such as 1M.
staged=$(python3 -c 'import sys
text = sys.argv[1]
unit = {"K": 10**3, "M": 10**6, "B": 10**9}.get(text[-1], 1)
print(round(0.7 * float(text.rstrip("KMB")) * unit))' "$tokens")

train teacher 350m_pr_moe "$teacher_tokens" seed=100
for seed in $seeds; do
  student=(350m_mos "$tokens" seed="$seed")
  train "no_kd_$seed" "${student[@]}" distil.teacher='""' distil.teacher_config='""' distil.weight.until=0
  train "full_kd_$seed" "${student[@]}" distil.teacher="$output/teacher" distil.weight.until=0
  train "staged_kd_$seed" "${student[@]}" distil.teacher="$output/teacher" distil.weight.until="$staged"
done

python3 - "$output" "$seeds" <<'PYTHON'
import json, statistics, sys
folder, seeds = sys.argv[1], sys.argv[2].split()

def losses(run):
    """Validation losses by step, of the run's last start."""
    found = {}
    for line in open(f"{folder}/{run}/metrics.jsonl"):
        record = json.loads(line)
        if record["kind"] == "validation" and record["split"] == "valid":
            found[record["step"]] = record["loss"]
    return found

teacher = losses("teacher")
print(f"teacher: {teacher[max(teacher)]:.4f} after {max(teacher)} steps\n")
rows = {name: [losses(f"{key}_{seed}") for seed in seeds]
        for name, key in (("no KD", "no_kd"), ("full KD", "full_kd"), ("staged KD", "staged_kd"))}
last = max(rows["no KD"][0])
steps = sorted({min(rows["no KD"][0], key=lambda step: abs(step - share * last)) for share in (0.1, 0.25, 0.5, 0.7, 1.0)})
print("| validation loss after step | " + " | ".join(map(str, steps)) + " |")
print("|---|" + "---|" * len(steps))
for name, runs in rows.items():
    cells = []
    for step in steps:
        values = [run[step] for run in runs]
        cells.append(f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})")
    print(f"| {name} | " + " | ".join(cells) + " |")
PYTHON
