#!/usr/bin/env bash
# The unit tests of all that has threads of its own under the thread sanitizer: ranks that are threads, the pool of workers,
# reading ahead, saves in the background, the watchdog. Builds build/tsan, which takes some minutes the first time.
#   scripts/thread_sanitizer.sh [--gtest_filter=...]
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset tsan >/dev/null
cmake --build --preset tsan --target thread_tests
# Death tests start anew, since this sanitizer cannot follow threads of forked processes; left out are a test that forks by
# itself, one that looks for what its forked process wrote, and one of crashes, which end as the sanitizer wants.
left_out=InPieces.AForkedProcess*:WatchdogTest.EndsAProcessWithoutProgress:WatchdogTest.LastWordsNameSignalAndPlace
TSAN_OPTIONS=second_deadlock_stack=1 OMP_NUM_THREADS=2 OMP_WAIT_POLICY=passive build/tsan/tests/thread_tests \
  --gtest_death_test_style=threadsafe --gtest_filter=-$left_out "$@"
