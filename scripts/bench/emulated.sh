#!/usr/bin/env bash
# What every CUDA kernel moves beside its floor, counted on the emulated device of the tests: no GPU. Where nvcc and
# cuobjdump are, also registers, shared memory and occupancy of each kernel on sm_80, sm_90a and sm_100.
#
#   scripts/bench/emulated.sh [--json] [--filter REGEX]
#
# Builds in build/release and build/cuda. How to read it: scripts/bench/README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
json="" filter=""
while [ $# -gt 0 ]; do
  case $1 in
    --json) json=1; shift ;;
    --filter) filter=$2; shift 2 ;;
    *) echo "emulated.sh: unknown option '$1'; see the head of this file" >&2; exit 2 ;;
  esac
done

[ -f build/release/build.ninja ] || cmake --preset release >&2
cmake --build build/release --target emulated_bench >&2
bench=build/release/tests/emulated_bench
export PATH="$PATH:/usr/local/cuda/bin"
if ! command -v nvcc >/dev/null || ! command -v cuobjdump >/dev/null; then
  "$bench" ${json:+--json} --filter "$filter"
  echo "emulated.sh: no nvcc or no cuobjdump (package cuda-cuobjdump-13-0): no registers, shared memory, occupancy" >&2
  exit 0
fi
[ -f build/cuda/build.ninja ] || cmake --preset cuda >&2
cmake --build build/cuda --target ziggurat_cuda >&2
[ -n "$json" ] || "$bench" --filter "$filter"
cuobjdump --dump-resource-usage "$(find build/cuda -name libziggurat_cuda.a)" | c++filt |
  python3 scripts/bench/kernel_resources.py ${json:+--json} <("$bench" --json --filter "$filter")
