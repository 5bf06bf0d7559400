#!/usr/bin/env bash
# Which lines the unit tests run: a build of its own without optimisation (build/coverage, as long as a debug build), then
# a table by room, least covered first, and build/coverage/index.html.
#   scripts/coverage.sh [GTEST_FILTER]
set -euo pipefail
cd "$(dirname "$0")/.."
command -v gcovr >/dev/null || {
  as_root=(); [ "$(id -u)" = 0 ] || as_root=(sudo)
  echo "Installing with apt: gcovr"
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -q --no-install-recommends gcovr
}
build=build/coverage
# Kernels keep their loops whole: their speed is most of the tests' time.
cmake -S . -B $build -G Ninja -DCMAKE_BUILD_TYPE=Debug -DZIGGURAT_CUDA=OFF \
  -DCMAKE_CXX_FLAGS="--coverage -O1 -fprofile-update=atomic" -DCMAKE_EXE_LINKER_FLAGS=--coverage >/dev/null
cmake --build $build --target ziggurat_tests
find $build -name '*.gcda' -delete
status=0
OMP_WAIT_POLICY=passive $build/tests/ziggurat_tests --gtest_brief=1 --gtest_filter="${1:-*}" || status=$?
gcovr --root . --filter src/ --filter kernels/cpu/ --filter data_tools/ --exclude-unreachable-branches \
  --json-summary $build/summary.json --html-details $build/index.html --gcov-ignore-parse-errors $build >/dev/null
python3 - $build/summary.json <<'PY'
import collections
import json
import sys

rooms = collections.defaultdict(lambda: [0, 0])
for entry in json.load(open(sys.argv[1]))["files"]:
    parts = entry["filename"].split("/")
    room = "/".join(parts[:2]) if parts[0] in ("src", "kernels") else parts[0]
    rooms[room][0] += entry["line_covered"]
    rooms[room][1] += entry["line_total"]
for room, (covered, total) in sorted(rooms.items(), key=lambda r: r[1][0] / max(1, r[1][1])):
    print(f"{room:24} {100 * covered / max(1, total):5.1f} % of {total} lines")
covered, total = (sum(r[i] for r in rooms.values()) for i in (0, 1))
print(f"{'all':24} {100 * covered / max(1, total):5.1f} % of {total} lines")
PY
exit $status
