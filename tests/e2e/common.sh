# Sourced by the end-to-end tests: a temporary folder as working folder, $ziggurat and $source_dir from the
# arguments, and the checks.   usage: NAME.sh ZIGGURAT SOURCE_DIR
set -euo pipefail
ziggurat=$(realpath "$1")
source_dir=$(realpath "$2")
source "$source_dir/scripts/mpi_environment.sh"
export OMP_NUM_THREADS=1
export OMPI_MCA_mpi_yield_when_idle=1  # the tests share their cores
folder=$(mktemp -d)
running=      # processes of a job of start_job()
on_kernel=()  # what start_job() starts it under
trap '[ -z "$running" ] || kill -KILL $running 2>/dev/null; rm -rf "$folder"' EXIT
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

# wait_for COMMAND...: until it succeeds, at most two minutes.
wait_for() {
  local i
  for ((i = 0; i < 2400; ++i)); do
    "$@" >/dev/null 2>&1 && return 0  # also in a trap, where it would be what ended the script
    sleep 0.05
  done
  fail "waited in vain for: $*"
}

# wait_in_job COMMAND...: the same, but not longer than the process $job lives.
wait_in_job() {
  wait_for succeeds_or_gone "$@"
  "$@" >/dev/null 2>&1 || { cat ./*.log; fail "the job ended before: $*"; }
}
succeeds_or_gone() { "$@" || gone "$job"; }

# has_saved OUTPUT STEP: a checkpoint of this step or a later one is there; of a fast run the first are gone soon.
has_saved() {
  local path
  for path in "$1"/checkpoints/step_????????; do
    [ ! -e "$path" ] || [ "$((10#${path##*_}))" -lt "$2" ] || return 0
  done
  return 1
}

# gone PROCESS: it has ended, whether or not somebody has taken notice.
gone() { ! grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$1/status"; }

# find_ranks N: sets $ranks, the processes of the N ranks of mpirun's process $job, and $running.
find_ranks() {
  ranks=()
  local process rank
  for process in $(pgrep -P "$job"); do
    rank=$(tr '\0' '\n' <"/proc/$process/environ" | sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
    [ -z "$rank" ] || ranks[rank]=$process
  done
  running="$job ${ranks[*]}"
  [ "${#ranks[@]}" = "$1" ] || { tail -n 30 ./*.log; fail "found ${#ranks[@]} of $1 ranks"; }
}

# start_job OUTPUT RANKS [key=value ...]: a long run under mpirun in the background, in its first steps and past
# the measurement of the roof; its output goes to OUTPUT.log. Sets $job, mpirun's process, and $ranks, those of the ranks.
start_job() {
  local output=$1 n=$2
  shift 2
  rm -f "$output.log"
  "${on_kernel[@]}" mpirun -n "$n" "$ziggurat" train "$source_dir/configs/tiny/pr_moe.yaml" output="$output" train.tokens=100M threads=1 \
    eval.sequences=4 eval.every=0 checkpoint.every=0 checkpoint.resume=auto log.every=1 "$@" >"$output.log" 2>&1 &
  job=$! running=$!
  wait_for eval "sed '1,/GEMM roof/d' $output.log | grep -q 'info step' || gone $job"
  grep -q 'GEMM roof' "$output.log" || { cat "$output.log"; fail "the job did not start"; }
  find_ranks "$n"
}

# ends_with CODE: the job ends with this code (`any`: with any but 0) within ten seconds of work of this machine, which
# others may share, and leaves no rank behind.
ends_with() {
  local got=0 i process
  for ((i = 0; i < 600; ++i)); do gone "$job" && break; sleep 0.05; done
  gone "$job" || fail "the job goes on"
  wait "$job" || got=$?
  [ "$got" = "$1" ] || { [ "$1" = any ] && [ "$got" != 0 ]; } || { cat ./*.log; fail "expected exit code $1, got $got"; }
  for process in "${ranks[@]}"; do wait_for gone "$process"; done
  running=
}
