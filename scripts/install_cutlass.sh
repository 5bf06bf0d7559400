#!/usr/bin/env bash
# Puts the headers of NVIDIA's CUTLASS into build/cutlass, where CMake looks for them: with them a build for GPUs has its
# grouped products for Hopper besides our own. From the wheel on PyPI, known by its hash; of it only the headers are kept.
# Needs python3 with pip. Configure again afterwards: cmake --preset cuda
set -euo pipefail
[ $# = 0 ] || { sed -n '2,/^set /{s/^# *//p}' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
source scripts/wheel_headers.sh
wheel_headers nvidia-cutlass 4.2.0.0 f9599ada45c7bcb6bf53f7d3f0a7d154183e53451c01bfa59eecd37dd4a693f6 \
  cutlass_library/source/include/ build/cutlass
