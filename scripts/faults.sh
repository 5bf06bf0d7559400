#!/usr/bin/env bash
# The reliability scorecard: what a run survives, tried out. One line a test, then `passed N/35`; exit code 0 when all
# of those asked for pass. All of it takes about two hours on two cores, one of them R11's fuzzing, and wants them for
# itself: seconds are those of the clock.
#   scripts/faults.sh [--no-install] [--ziggurat BINARY] [--short] [--scale X] [--seed N] [--keep] [R7 ...]
#   --no-install  do not install missing packages, nor build
#   --short       a few trials of each, minutes in all: what ctest runs (label faults)
#   --scale X     times as many trials; --seed N: other random ones; --keep: leave the tests' folders in /tmp
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/.." && pwd)

install=1 ziggurat=$source_dir/build/release/ziggurat options=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) install=0 ;;
    --ziggurat) ziggurat=$2; shift ;;
    --help) sed -n '2,/^set/{/^#/p}' "$0"; exit 0 ;;
    *) options+=("$1") ;;
  esac
  shift
done

if [ "$install" = 1 ]; then
  "$source_dir/scripts/install_packages.sh" strace
  (cd "$source_dir" && cmake --preset release >/dev/null)
  cmake --build "$source_dir/build/release" --target ziggurat ziggurat_fuzz
fi
source "$source_dir/scripts/mpi_environment.sh"
export OMP_NUM_THREADS=1 OMPI_MCA_mpi_yield_when_idle=1 PYTHONDONTWRITEBYTECODE=1
run=(python3 "$source_dir/tests/faults/run.py" "$ziggurat" "$source_dir" "${options[@]}")
[ "$(id -u)" = 0 ] || run=(unshare -rm "${run[@]}")  # a small disk is mounted in some tests
exec "${run[@]}"
