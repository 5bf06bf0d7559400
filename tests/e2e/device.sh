#!/usr/bin/env bash
# device=cuda where it cannot be: told at once, with what to do, and nothing is written. A build with CUDA plans for a
# GPU without having one.
source "$(dirname "$0")/common.sh"
tiny=$source_dir/configs/tiny/pr_moe.yaml

# expect_no_gpu TEXT...: what measures a GPU, or answers on one, says so.
expect_no_gpu() {
  for command in "bench roof" "bench kernels" "generate --checkpoint none --prompt x" "serve --checkpoint none" \
      "bench decode $tiny" "bench serve $tiny"; do
    # shellcheck disable=SC2086
    expect_end 1 log "$ziggurat" $command --device cuda
    expect_text log "device error" "$@"
  done
}
if "$ziggurat" --version | grep -q '^CUDA *none'; then
  for command in train plan verify "bench step"; do
    # shellcheck disable=SC2086
    expect_end 2 log "$ziggurat" $command "$tiny" device=cuda output=out
    expect_text log "device: " "-DZIGGURAT_CUDA=ON"
  done
  expect_no_gpu "-DZIGGURAT_CUDA=ON"
  expect_end 2 log "$source_dir/scripts/bench/gpu.sh" --ziggurat "$ziggurat"
  expect_text log "no Ziggurat with CUDA" "cmake --preset cuda"
else
  for config in "$source_dir"/configs/{tiny,published,presets,openmoe}/*.yaml; do
    expect_end 0 log "$ziggurat" plan "$config" device=cuda
    expect_text log "GPU memory of rank 0" "CUDA's own" "host memory of rank 0"
  done
  "$ziggurat" doctor >log 2>&1 || true
  if ! grep -q 'GPU .*compute capability' log; then
    for command in train verify "bench step"; do
      # shellcheck disable=SC2086
      expect_end 1 log "$ziggurat" $command "$tiny" device=cuda output=out
      expect_text log "device error" "device=cuda: no GPU" "or use device=cpu"
    done
    expect_no_gpu "no GPU"
    expect_end 77 log "$source_dir/scripts/bench/gpu.sh" --ziggurat "$ziggurat"
    expect_text log "no GPU that"
  fi
fi
[ ! -e out ] || fail "something was written"
