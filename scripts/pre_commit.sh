#!/usr/bin/env bash
# What a commit should pass: formatting of the staged files, layers, syntax of scripts, leftovers, the unit tests of the
# rooms that changed, where they are built, and clang-tidy, where it is installed (half a minute for a file).
#   scripts/pre_commit.sh              checks what is staged; TIDY=0: without clang-tidy
#   scripts/pre_commit.sh --install    git asks it before every commit (git commit --no-verify does without)
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --install ]; then
  hook=$(git rev-parse --git-path hooks)/pre-commit
  mkdir -p "$(dirname "$hook")"
  [ ! -e "$hook" ] || { echo "pre_commit.sh: $hook is there already; remove it first" >&2; exit 1; }
  printf '#!/bin/sh\nexec scripts/pre_commit.sh\n' >"$hook"
  chmod +x "$hook"
  echo "git asks scripts/pre_commit.sh from now on ($hook)"
  exit 0
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
problems=0
problem() { echo "pre-commit: $*" >&2; problems=1; }

mapfile -t staged < <(git diff --cached --name-only --diff-filter=d)
[ ${#staged[@]} -gt 0 ] || exit 0
format=$(command -v clang-format-14 || command -v clang-format || true)
rooms=() sources=()
for file in "${staged[@]}"; do
  case $file in
    *.h|*.cpp|*.cu|*.cuh)
      [ -z "$format" ] || "$format" --dry-run --Werror "$file" 2>/dev/null || problem "$file: not formatted: scripts/lint.sh --fix"
      case $file in src/*.cpp|kernels/cpu/*.cpp|data_tools/*.cpp) sources+=("$file") ;; esac
      case $file in
        src/*|include/ziggurat/*|tests/unit/*) rooms+=("$(sed -E 's#^(src|include/ziggurat|tests/unit)/([^/]+)/.*#\2#' <<<"$file")") ;;
      esac ;;
    *.sh) bash -n "$file" || problem "$file: no valid bash" ;;
    *.py) python3 -m py_compile "$file" || problem "$file: no valid Python" ;;
  esac
  if git diff --cached -- "$file" | grep -qE '^\+(<<<<<<<|>>>>>>>) '; then problem "$file: a conflict is left in it"; fi
  size=$(git cat-file -s ":$file" 2>/dev/null || echo 0)
  [ "$size" -lt 2000000 ] || problem "$file: $size bytes: data stay outside the repository"
done
python3 scripts/check_layers.py . >/dev/null || problem "layers: python3 scripts/check_layers.py ."

tests=build/release/tests/ziggurat_tests
if [ ${#rooms[@]} -gt 0 ] && [ -x $tests ]; then
  suites=$(for room in $(printf '%s\n' "${rooms[@]}" | sort -u); do
    grep -hoE '^(TEST|TEST_F|TEST_P)\((\w+)' "tests/unit/$room"/*.cpp 2>/dev/null | sed -E 's/.*\(//'
  done | sort -u | sed 's/$/.*:*\/&.*/' | paste -sd:)
  [ -z "$suites" ] || OMP_WAIT_POLICY=passive $tests --gtest_brief=1 --gtest_filter="$suites" >"$log" 2>&1 ||
    { grep -B 8 '^\[  FAILED' "$log" >&2; problem "unit tests: $tests --gtest_filter='$suites'"; }
fi
if [ ${#sources[@]} -gt 0 ] && [ "${TIDY:-1}" != 0 ] && [ -e build/release/compile_commands.json ] &&
  { command -v clang-tidy-14 || command -v clang-tidy; } >/dev/null; then
  scripts/tidy.sh "${sources[@]}" >"$log" 2>&1 || { grep -E 'error|warning' "$log" >&2; problem "clang-tidy: scripts/tidy.sh"; }
fi
exit $problems
