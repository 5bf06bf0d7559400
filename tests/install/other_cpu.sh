#!/usr/bin/env bash
# What was built for another CPU says so and ends with the code of a device error, instead of dying of SIGILL.
#   usage: other_cpu.sh ZIGGURAT WRONG_CPU
# WRONG_CPU was built for features that no CPU has together. Where qemu-user is installed (Debian: qemu-user), ZIGGURAT
# itself is tried on emulated CPUs too.
set -uo pipefail
ziggurat=$1 wrong_cpu=$2
failed=0
problem() { echo "FAILED: $*" >&2; failed=1; }

# must_refuse LACKED MARCH COMMAND...: ends with 1, names a feature and the build that would do; prints nothing else.
must_refuse() {
  local lacked=$1 march=$2 output code=0
  shift 2
  output=$("$@" 2>&1) || code=$?
  [ "$code" = 1 ] || problem "expected exit code 1, got $code: $* says: $output"
  [[ $output == "ziggurat: device error:"$'\n'* && $output == *" lacks "*"$lacked"* &&
     $output == *"-DZIGGURAT_MARCH="$march,* && $output != *$'\n'*$'\n'* ]] ||
    problem "expected '$lacked' and '$march', got: $output"
}

must_refuse xop 'x86-64*' "$wrong_cpu"

# The check itself runs on the oldest CPU: it has no instruction of a newer one, whatever all else is compiled for.
check=$(objdump -d --no-show-raw-insn "$wrong_cpu" | awk '/^[0-9a-f]+ <_ZN8ziggurat/ { on = 1 } /^$/ { on = 0 } on')
grep -q 'refuse_another_cpu' <<<"$check" || problem "the check is not in $wrong_cpu"
newer=$(grep -P '\t(v[a-z]|[a-z]+x? .*%[xyz]mm[0-9]+,.*,|shlx|shrx|sarx|rorx|mulx|andn|bextr|bzhi|pext|pdep|lzcnt|tzcnt|popcnt|movbe)' <<<"$check" | head -3)
[ -z "$newer" ] || problem "the check is not compiled for the oldest CPU: $newer"

if ! command -v qemu-x86_64 >/dev/null; then
  echo "qemu-x86_64 is not installed: the binary itself was not tried on an emulated CPU"
  exit $failed
fi
built_for=$("$ziggurat" --version | sed -n 's/^built for *-march=.*: //p')
echo "built for $built_for"
for cpu in Nehalem Haswell; do
  emulated=(qemu-x86_64 -cpu $cpu "$ziggurat" --version)
  case "$cpu $built_for" in
    "Nehalem x86-64-v"[34]*) must_refuse avx x86-64-v2 "${emulated[@]}" ;;
    "Haswell x86-64-v4"*) must_refuse avx512f x86-64-v3 "${emulated[@]}" ;;
    "Nehalem x86-64" | "Nehalem x86-64-v2" | "Haswell x86-64" | "Haswell x86-64-v"[23])
      "${emulated[@]}" 2>/dev/null | grep -q '^ziggurat ' || problem "does not start on a $cpu, which it was built for" ;;
    *) echo "$cpu: no test for this build" ;;
  esac
done
exit $failed
