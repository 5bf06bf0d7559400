# Sourced by run.sh and gpu.sh, in the repository's root: rounds in which every variant of PyTorch runs right after
# Ziggurat, as the clock of a machine changes from second to second. Of the caller: $python, $results, $round,
# ziggurat_step NAME (our own figure of the row under way, to $results/NAME.ziggurat.json) and $environment.

# python_with MODULE...: sets $python to one that has them: $BENCH_PYTHON, or a virtual environment from PyPI.
python_with() {
  local imports
  imports=$(IFS=,; echo "$*")
  python=${BENCH_PYTHON:-build/bench-venv/bin/python}
  if ! "$python" -c "import $imports" >/dev/null 2>&1; then
    python3 -m venv build/bench-venv
    DS_BUILD_OPS=0 build/bench-venv/bin/pip install --quiet "$@"
    python=build/bench-venv/bin/python
  fi
}

# torch NAME ARGUMENTS...: one PyTorch figure, and ours right before it; what fails, Ziggurat's step or the
# variant, leaves an empty column and its log.
torch() {
  local name=$1.$round
  shift
  ziggurat_step "$name" 2> "$results/$name.ziggurat.log" || {
    echo "  Ziggurat beside $name failed: see $results/$name.ziggurat.log" >&2
    rm -f "$results/$name.ziggurat.json"
    return 0
  }
  "${environment[@]}" "$python" scripts/bench/pytorch_step.py "$@" \
    > "$results/$name.torch.json" 2> "$results/$name.log" ||
    { echo "  $name failed: see $results/$name.log" >&2; rm -f "$results/$name.torch.json"; }
}
