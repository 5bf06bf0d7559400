#!/usr/bin/env bash
# Builds Ziggurat with CUDA for one architecture and checks what needs no GPU: that every kernel compiles and links, that
# runs can be planned for a GPU, that cuDNN takes our descriptions of attention, and what is said where no GPU is. In
# build/release, whose other objects it shares. Without nvcc there is nothing to do; nor where build/release has CUDA
# itself, which scripts/test.sh has then tested.
set -euo pipefail
[ $# = 0 ] || { sed -n '2,/^set /{s/^# *//p}' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/local/cuda/bin"
if ! command -v nvcc >/dev/null; then
  echo "test_cuda.sh: no nvcc, so nothing is built for GPUs"
  exit 0
fi
if build/release/ziggurat --version 2>/dev/null | grep -q '^CUDA *built in'; then
  echo "test_cuda.sh: build/release has CUDA itself"
  exit 0
fi

# cuDNN's attention, with windows too, is compiled where cuDNN is; the headers of its frontend are fetched once.
if [ ! -e build/cudnn_frontend/include/cudnn_frontend.h ] && ! scripts/install_cudnn_frontend.sh; then
  echo "test_cuda.sh: without the headers of cudnn-frontend, cuDNN's attention is not compiled"
fi
cmake --preset release -DZIGGURAT_CUDA=BESIDE
cmake --build --preset release --target ziggurat_with_cuda ziggurat_cuda_products
with_cuda=$PWD/build/release/tests/ziggurat_with_cuda
"$with_cuda" --version | grep '^CUDA *built in'
build/release/ziggurat_cuda_products --descriptions
source scripts/mpi_environment.sh
tests/e2e/device.sh "$with_cuda" "$PWD"
echo "test_cuda.sh: passed"
