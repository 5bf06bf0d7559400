#!/usr/bin/env bash
# Fails if a source file is not formatted as .clang-format says; `--fix` formats it.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v clang-format-14 >/dev/null && ! command -v clang-format >/dev/null; then
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  echo "Installing with apt: clang-format-14"
  "${as_root[@]}" apt-get update -q
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -q --no-install-recommends clang-format-14
fi
format=$(command -v clang-format-14 || command -v clang-format)
mapfile -t files < <(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh')
if [ "${1:-}" = --fix ]; then
  "$format" -i "${files[@]}"
else
  "$format" --dry-run --Werror "${files[@]}"
fi
