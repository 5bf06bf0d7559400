#!/usr/bin/env bash
# cmake --install: what is there afterwards runs from there, without the sources.   usage: cmake_install.sh BUILD_DIR
set -euo pipefail
build=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
fail() { echo "FAILED: $*" >&2; exit 1; }

cmake --install "$build" --prefix "$folder/prefix" >log || { cat log; fail "cmake --install"; }
share=prefix/share
for file in prefix/bin/ziggurat $share/man/man1/ziggurat.1 $share/man/man1/ziggurat-data.1 $share/doc/ziggurat/README.md \
  $share/bash-completion/completions/ziggurat $share/ziggurat/mpi_environment.sh; do
  [ -s "$file" ] || fail "$file is missing: $(find prefix | sort | tr '\n' ' ')"
done
find $share/zsh -name _ziggurat | grep -q . || fail "no completion for zsh"
readelf -d prefix/bin/ziggurat | grep -E 'RPATH|RUNPATH' && fail "the binary looks for libraries where it was built"
strings prefix/bin/ziggurat | grep -F "$build" && fail "the binary knows where it was built"
grep -rlF "$build" $share && fail "a file knows where it was built"

# Every config is there with what it includes, and a model trains from the installed ones alone.
for config in $share/ziggurat/configs/{tiny,published}/*.yaml; do
  prefix/bin/ziggurat config check "$config" >log || { cat log; fail "$config"; }
done
prefix/bin/ziggurat train $share/ziggurat/configs/tiny/pr_moe.yaml train.tokens=1K output=run >log 2>&1 ||
  { tail -5 log; fail "the installed program does not train"; }
[ -s run/metrics.jsonl ] || fail "no run/metrics.jsonl"
