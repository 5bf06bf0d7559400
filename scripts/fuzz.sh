#!/usr/bin/env bash
# Every reader of files from elsewhere, under address and undefined-behaviour sanitizers: millions of damaged files, read
# or refused within 10 seconds. Builds build/asan, which takes about ten minutes on two cores the first time.
#   scripts/fuzz.sh [--no-build] [--release] [--inputs N] [--seconds S] [--first N] [READER ...]
#   --release  without sanitizers, but memory is held against 64 MiB + 2 x file
#   --first N --inputs 1: one input again, with what its reader says
set -euo pipefail
cd "$(dirname "$0")/.."

preset=asan build=1 options=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-build) build=0 ;;
    --release) preset=release ;;
    --help) sed -n '2,/^set/{/^#/p}' "$0"; exit 0 ;;
    *) options+=("$1") ;;
  esac
  shift
done
if [ "$build" = 1 ]; then
  cmake --preset "$preset" >/dev/null
  cmake --build "build/$preset" --target ziggurat_fuzz
  [ -x build/release/ziggurat ] || { cmake --preset release >/dev/null && cmake --build build/release --target ziggurat; }
fi

folder=$(mktemp -d -p /dev/shm)  # readers that write, sync
trap 'rm -rf "$folder"' EXIT
fuzz=build/$preset/tests/ziggurat_fuzz
scripts/fuzz_seeds.sh build/release/ziggurat "$fuzz" "$folder/seeds" >"$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
if [ "$preset" = release ]; then
  nice "$fuzz" "$folder/seeds" "$folder/work" --memory "${options[@]}"
  exit
fi
# What HDF5 does inside its own calls on damaged files is not ours to mend; a crash there ends with our message.
printf 'interceptor_via_lib:libhdf5\n' >"$folder/suppressions"
ASAN_OPTIONS=suppressions=$folder/suppressions:detect_leaks=0:quarantine_size_mb=16:max_allocation_size_mb=4096 \
  UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 nice "$fuzz" "$folder/seeds" "$folder/work" "${options[@]}"
