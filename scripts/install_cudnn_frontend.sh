#!/usr/bin/env bash
# Puts the headers of NVIDIA's cudnn-frontend into build/cudnn_frontend, where CMake looks for them: with them a
# build for GPUs has cuDNN's attention besides its own. From the wheel on PyPI, known by its hash; of it only the
# headers are kept. Needs python3 with pip. Configure again afterwards: cmake --preset cuda
set -euo pipefail
[ $# = 0 ] || { sed -n '2,/^set /{s/^# *//p}' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
source scripts/wheel_headers.sh
wheel_headers nvidia-cudnn-frontend 1.32.0 c6006556017a4d1c914c52a556c71b1267f2d6a0500f742e7b4edef539878df0 \
  include/ build/cudnn_frontend --python-version 3.11 --platform manylinux_2_28_x86_64
