#!/usr/bin/env bash
# Checks Ziggurat on this machine's GPU: every kernel's products, training on the GPU against the CPU, what the GPU can do
# and how near kernels and steps come to it, and accesses out of bounds. Out of a bundle of scripts/gpu/bundle.sh:  run.sh [--logs DIR]
# One line an item, and the last line: passed N/M. It goes on after a failure.
# Exit code 0: all passed; 1: some failed; 2: the machine lacks a library; 77: it has no GPU that this build can use.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
logs=$PWD/ziggurat_gpu_logs
case "${1:-}" in
  "") ;;
  --logs) logs=$(realpath -m "${2:?--logs DIR}") ;;
  *) echo "usage: run.sh [--logs DIR]" >&2; exit 2 ;;
esac
[ -e "$here/NEEDS" ] || { echo "run.sh: belongs into a bundle: scripts/gpu/bundle.sh OUT.tar.gz makes one" >&2; exit 2; }
mkdir -p "$logs" || exit 2

# CUDA's libraries: where the loader looks, in the toolkit, or beside a Python package.
folders=$here/lib
while read -r library; do
  [ -z "$(ldconfig -p 2>/dev/null | grep -F " $library ")" ] || continue
  for file in ${CUDA_HOME:+"$CUDA_HOME"/lib64/"$library"} /usr/local/cuda*/lib64/"$library" \
      /usr/local/cuda*/targets/*/lib/"$library" \
      $(find /opt /usr/lib /usr/local ${HOME:+"$HOME"} -name "$library" 2>/dev/null | head -1); do
    if [ -e "$file" ]; then
      folders=$folders:$(dirname "$file")
      break
    fi
  done
done <"$here/NEEDS"
export LD_LIBRARY_PATH=$folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# Open MPI: its parts are in the bundle, and one rank needs no daemon.
export OPAL_PKGLIBDIR=$here/openmpi/components OPAL_PKGDATADIR=$here/openmpi/share
export OMPI_MCA_mca_base_component_path=$OPAL_PKGLIBDIR OMPI_MCA_ess_singleton_isolated=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_hwloc_base_binding_policy=none

ziggurat=$here/bin/ziggurat
missing=$(ldd "$here"/bin/* 2>&1 | grep -E 'not found' | sort -u)
if [ -n "$missing" ]; then
  echo "this machine lacks libraries that the bundle does not bring:"
  echo "$missing"
  echo "install CUDA's toolkit, or say where it is: CUDA_HOME=/path run.sh"
  exit 2
fi
"$ziggurat" --version || exit 2

passed=0 tried=0
# item NAME SECONDS COMMAND...: its output goes to a log; the line ends with the output's last one.
item() {
  local name=$1 limit=$2 begin code seconds verdict=ok
  shift 2
  local log=$logs/${name//[^a-zA-Z0-9._-]/_}.log
  begin=$(date +%s%N)
  timeout "$limit" "$@" >"$log" 2>&1 </dev/null
  code=$?
  seconds=$(( ($(date +%s%N) - begin) / 1000000 ))
  tried=$((tried + 1))
  if [ $code = 0 ]; then passed=$((passed + 1)); else verdict="FAILED ($code)"; fi
  printf '%-13s %-52s %5d.%03d s  %s\n' "$verdict" "$name" $((seconds / 1000)) $((seconds % 1000)) \
    "$(grep -v '^ *$' "$log" | tail -n "${lines:-1}" | tr -s ' \n' ' ' | cut -c 1-240)"
  return $code
}

command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
"$ziggurat" doctor --folder "$logs" >"$logs/doctor.log" 2>&1
gpu=$(grep -E '^[a-zA-Z]+ +GPU ' "$logs/doctor.log")
echo "${gpu:-$(tail -1 "$logs/doctor.log")}"
if ! grep -qE '^ok +GPU .*compute capability' <<<"$gpu"; then
  grep -A 1 -E '^[a-zA-Z]+ +GPU ' "$logs/doctor.log" | sed -n '2s/^ *//p' | grep -e '->'
  echo "no GPU that this build can use: nothing was checked"
  exit 77
fi
gib=$(sed -E 's/.*, ([0-9]+)[.0-9]* GiB, compute.*/\1/' <<<"$gpu")

item products 600 "$here/bin/ziggurat_cuda_products"

for config in "$here"/configs/tiny/*.yaml; do
  for precision in fp32 bf16; do
    item "verify $(basename "$config" .yaml) $precision" 300 \
      "$ziggurat" verify "$config" device=cuda precision=$precision
  done
done

# What no config has.
modern=$here/configs/tiny/modern_moe.yaml
for change in model.window=20 data.ul2.until=100K,data.ul2.sentinels=8,data.ul2.bidirectional=true \
    optimizer.kind=lion optimizer.kind=muon optimizer.kind=adafactor,optimizer.average=0.9; do
  # shellcheck disable=SC2086
  item "verify modern_moe $change" 300 "$ziggurat" verify "$modern" device=cuda ${change//,/ }
done
# What one checkpoint writes.
item "the same text" 300 bash -c 'set -e
  cd "$(mktemp -d)"
  "$1" train "$2" model.vocab_size=260 model.init_std=0.3 train.tokens=40K checkpoint.every=1000 output=run
  for device in cpu cuda; do
    "$1" generate --checkpoint run --tokenizer bytes --prompt "The answer" --tokens 40 --temperature 0 \
      --device $device >$device
  done
  cmp cpu cuda' _ "$ziggurat" "$here/configs/tiny/pr_moe.yaml"

# What this GPU can do, and how near every kernel comes: both tables are shown whole.
item roofs 300 "$ziggurat" bench roof --device cuda && sed 's/^/  /' "$logs/roofs.log"
item kernels 900 "$ziggurat" bench kernels --device cuda && sed 's/^/  /' "$logs/kernels.log"

# A few micro-batches a step, of made-up data: what a step costs, not what it learns.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR=$work
data='data.train=synthetic data.valid=synthetic data.test="" data.tokenizer=""'
bench() {
  local name=$1 config=$here/configs/$2 need
  shift 2
  # shellcheck disable=SC2086
  need=$("$ziggurat" plan "$config" --ranks 1 --json $data device=cuda "$@" 2>/dev/null |
    sed -nE 's/.*"memory_per_rank": ([0-9]+).*/\1/p')
  if [ -n "$need" ] && [ $((need >> 30)) -ge $((gib - 2)) ]; then
    printf '%-13s %-52s needs %d GiB\n' skipped "$name" $((need >> 30))
    return
  fi
  # shellcheck disable=SC2086
  lines=3 item "$name" 300 "$ziggurat" bench step "$config" --steps 3 $data device=cuda "$@"
}
for config in gpt2_124m small_dense small_moe; do
  bench "step $config" bench/$config.yaml
done
bench "step gpt2_124m bf16" bench/gpt2_124m.yaml precision=bf16
few() { echo "batch.global_batch=$1 batch.rampup.start=0"; }
for config in 350m_dense 1.3b_dense 6.7b_dense 125m_moe64 350m_pr_moe; do
  # shellcheck disable=SC2046
  bench "step $config" published/$config.yaml $(few 32)
  # shellcheck disable=SC2046
  bench "step $config no dropout" published/$config.yaml $(few 32) \
    model.dropout.embedding=0 model.dropout.attention=0 model.dropout.hidden=0
done

# Writing texts, beside the time to read the weights; and many requests at once.
lines=6 item "decode gpt2_124m" 300 "$ziggurat" bench decode "$here/configs/bench/gpt2_124m.yaml" --device cuda precision=bf16
lines=6 item "serve small_moe" 300 "$ziggurat" bench serve "$here/configs/bench/small_moe.yaml" --device cuda --requests 50

if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    item "compute-sanitizer $tool" 600 compute-sanitizer --tool $tool --error-exitcode 9 \
      "$ziggurat" train "$here/configs/tiny/modern_moe.yaml" device=cuda precision=bf16 \
      train.tokens=4K eval.sequences=4 eval.every=0 output="$work/sanitized_$tool"
  done
else
  echo "skipped       compute-sanitizer is not installed here"
fi

echo "logs: $logs"
echo "passed $passed/$tried"
[ $passed = $tried ]
