#!/usr/bin/env bash
# The tests of the data room with address and undefined-behaviour sanitizers: damaged shards, tokenizer files, Megatron
# and compressed files by the thousand. Builds build/asan, which takes about ten minutes on two cores the first time.
#   scripts/fuzz_data.sh [--gtest_filter=...]
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset asan
cmake --build --preset asan --target data_tests
# What HDF5 does inside its own calls on damaged files is not ours to mend; a crash there ends with our message.
suppressions=build/asan/suppressions
printf 'interceptor_via_lib:libhdf5\n' > "$suppressions"
printf 'leak:libhdf5\n' > "$suppressions.leaks"
ASAN_OPTIONS=suppressions=$suppressions LSAN_OPTIONS=suppressions=$suppressions.leaks \
  UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 build/asan/tests/data_tests "$@"
