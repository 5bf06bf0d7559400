#!/usr/bin/env bash
# The table of kernels: no kernel is forgotten, the machine-readable form holds what the table says, and a mistake in
# the filter is told.
source "$(dirname "$0")/common.sh"

for header in $(grep -lF 'template <Device D' "$source_dir"/include/ziggurat/kernels/*.h); do
  grep -rqF "ziggurat/kernels/$(basename "$header")" "$source_dir/src/apps/kernel_cases" ||
    fail "$(basename "$header") has no line in the table of src/apps/kernel_cases"
done

expect_end 2 log "$ziggurat" bench kernels --filter 'norm['
expect_text log "norm[" "regular expression"
expect_end 2 log "$ziggurat" bench kernels --filter 'no such kernel'
expect_text log "no such kernel"

"$ziggurat" bench kernels --threads 1 --filter '^rms_norm.forward/bf16|^router_weights' >table 2>&1 || {
  grep -qF "install libbenchmark-dev" table && exit 0  # a build without it
  cat table; fail "bench kernels"
}
expect_text table rms_norm.forward router_weights "2048 x 384" bf16
[ "$(grep -cE 'GB/s, (traffic|reads)$' table)" = 2 ] || { cat table; fail "expected two kernels"; }
expect_end 0 json "$ziggurat" bench kernels --threads 1 --filter '^rms_norm.forward/bf16' --json
python3 - json <<'PYTHON'
import json, sys
out = json.load(open(sys.argv[1]))
(kernel,) = out["kernels"]
assert kernel["floor_amount"] == 2 * 2 * 2048 * 384, kernel
floor = kernel["floor_amount"] / out["memory_bytes_per_second"]
assert abs(kernel["floor_seconds"] / floor - 1) < 1e-6 and abs(kernel["of_floor"] / (floor / kernel["seconds"]) - 1) < 1e-6, kernel
PYTHON
