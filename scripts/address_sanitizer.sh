#!/usr/bin/env bash
# The unit tests of all that reads foreign bytes (configs, shards, tokenizers, checkpoints) and hands out memory, under the
# address and undefined-behaviour sanitizers. Builds build/asan, which takes some minutes the first time.
#   scripts/address_sanitizer.sh [--gtest_filter=...]
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset asan >/dev/null
cmake --build --preset asan --target reader_tests
# What HDF5 does inside its own calls on damaged files is not ours to mend; a crash there ends with our message.
suppressions=build/asan/suppressions
printf 'interceptor_via_lib:libhdf5\n' >"$suppressions"
printf 'leak:libhdf5\n' >"$suppressions.leaks"
ASAN_OPTIONS=suppressions=$suppressions LSAN_OPTIONS=suppressions=$suppressions.leaks \
  UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive \
  build/asan/tests/reader_tests --gtest_brief=1 "$@"
