# Sourced by the end-to-end tests: a temporary folder as working folder, $ziggurat and $source_dir from the
# arguments, and the checks.   usage: NAME.sh ZIGGURAT SOURCE_DIR
set -euo pipefail
ziggurat=$(realpath "$1")
source_dir=$(realpath "$2")
source "$source_dir/scripts/mpi_environment.sh"
export OMP_NUM_THREADS=1
export OMPI_MCA_mpi_yield_when_idle=1  # the tests share their cores
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

fail() { echo "FAILED: $*" >&2; exit 1; }

# expect_end CODE OUTPUT COMMAND...: the command ends with this code; what it prints goes to OUTPUT.
expect_end() {
  local code=$1 output=$2 got=0
  shift 2
  "$@" >"$output" 2>&1 || got=$?
  [ "$got" = "$code" ] || { cat "$output"; fail "expected exit code $code, got $got: $*"; }
}

# expect_text OUTPUT TEXT...: each TEXT stands in the file.
expect_text() {
  local output=$1 text
  shift
  for text in "$@"; do
    grep -qF -- "$text" "$output" || { cat "$output"; fail "expected '$text' in $output"; }
  done
}

# Losses with all their bits, one a line: losses FILE step|validation
losses() { grep "\"kind\":\"$2\"" "$1" | sed 's/.*"step":\([0-9]*\),.*"loss_hex":"\([^"]*\)".*/\1 \2/'; }

# The peak of what a command holds, in bytes, as the kernel saw it; what it prints goes to stderr: peak_of COMMAND...
peak_of() {
  python3 - "$@" <<'PYTHON'
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
PYTHON
}
