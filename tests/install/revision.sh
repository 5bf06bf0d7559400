#!/usr/bin/env bash
# The revision that --version tells: of the checkout that the sources are, of nothing else, and written only when it
# changes.   usage: revision.sh SOURCE_DIR
set -euo pipefail
script=$(realpath "$1")/scripts/cmake/revision.cmake
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CEILING_DIRECTORIES=$folder
fail() { echo "FAILED: $*" >&2; exit 1; }
revision() {
  cmake -DSOURCE_DIR="$1" -DOUTPUT="$folder/revision.cpp" -P "$script"
  sed -n 's/.*kRevision = "\(.*\)";/\1/p' revision.cpp
}
expect() { local got; got=$(revision "$2"); [ "$got" = "$1" ] || fail "expected '$1' of $2, got '$got'"; }

mkdir plain
expect "" plain
[ -s revision.cpp ] || fail "no file outside a checkout"

git init -q checkout
mkdir checkout/unpacked
echo one >checkout/file
git -C checkout add file
git -C checkout -c user.name=n -c user.email=e commit -qm one
git -C checkout tag v9
hash=$(git -C checkout rev-parse --short=12 HEAD)
expect "$hash" checkout
expect "" checkout/unpacked  # sources inside another project
expect "$hash" checkout
touch -d 2000-01-01 revision.cpp
expect "$hash" checkout
[ "$(stat -c %Y revision.cpp)" -lt 1000000000 ] || fail "the same revision was written again: all builds would link"
echo two >checkout/file
expect "$hash-dirty" checkout
[ "$(stat -c %Y revision.cpp)" -gt 1000000000 ] || fail "a new revision was not written"
