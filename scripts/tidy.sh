#!/usr/bin/env bash
# clang-tidy with .clang-tidy, without findings: on the named files, else on those that differ from the branch main.
#   scripts/tidy.sh [--all | FILE.cpp ...]        --all takes hours of a CPU
# The build folder is build/release (or $BUILD): its compile_commands.json says how files are compiled. At the lowest
# priority, so that it may run beside other work.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build/release}
if ! command -v clang-tidy-14 >/dev/null && ! command -v clang-tidy >/dev/null; then
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  echo "Installing with apt: clang-tidy-14"
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -q --no-install-recommends clang-tidy-14
fi
tidy=$(command -v clang-tidy-14 || command -v clang-tidy)
[ -e "$build/compile_commands.json" ] || { echo "tidy.sh: no $build/compile_commands.json: cmake --preset release" >&2; exit 2; }
case ${1:-} in
  --all) mapfile -t files < <(git ls-files 'src/*.cpp' 'kernels/cpu/*.cpp' 'data_tools/*.cpp') ;;
  '') mapfile -t files < <(git diff --name-only --diff-filter=d main -- 'src/*.cpp' 'kernels/cpu/*.cpp' 'data_tools/*.cpp') ;;
  *) files=("$@") ;;
esac
[ ${#files[@]} -gt 0 ] || { echo "tidy: nothing differs from main"; exit 0; }
echo "tidy: ${#files[@]} files"
printf '%s\0' "${files[@]}" | nice -n 15 xargs -0 -n 1 -P "${JOBS:-1}" "$tidy" -p "$build" --quiet \
  --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-unused-command-line-argument --extra-arg=-Wno-ignored-optimization-argument
