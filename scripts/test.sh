#!/usr/bin/env bash
# Builds Ziggurat and runs its tests.
#   --fast        a subset in a few minutes: everything but the end-to-end runs
#   --no-install  do not install missing packages
set -euo pipefail
cd "$(dirname "$0")/.."

fast=0 install=1
for argument in "$@"; do
  case $argument in
    --fast) fast=1 ;;
    --no-install) install=0 ;;
    *) echo "usage: scripts/test.sh [--fast] [--no-install]" >&2; exit 2 ;;
  esac
done

[ "$install" = 0 ] || scripts/install_packages.sh strace  # of tests/faults
source scripts/mpi_environment.sh

cmake --preset release
cmake --build --preset release
labels=()
[ "$fast" = 0 ] || labels=(--label-exclude slow)
ctest --preset release --parallel 1 "${labels[@]}"
