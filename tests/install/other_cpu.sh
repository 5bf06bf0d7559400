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
     $output == *"-DZIGGURAT_MARCH=$march,"* && $output != *$'\n'*$'\n'* ]] ||
    problem "expected '$lacked' and '$march', got: $output"
}

must_refuse xop 'x86-64*' "$wrong_cpu"

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
