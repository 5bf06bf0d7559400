#!/usr/bin/env bash
# Follows the build stage of a Dockerfile without Docker: its COPY and RUN lines, one after the other, in a Debian 12 that
# holds nothing else. By default up to a configured build, for which every package that it names must be there: three
# minutes. With --build the package is compiled too, and the last stage installed out of it: as long as a cold build.
#   tests/install/dockerfile.sh [--build] [DOCKERFILE]     as root; default: scripts/container/cpu.dockerfile
# What it copies is what git has: commit first. Exit code 77: skipped.
set -euo pipefail
build=0
[ "${1:-}" != --build ] || { build=1; shift; }
cd "$(dirname "$0")/../.."
file=${1:-scripts/container/cpu.dockerfile}
source tests/install/chroot.sh

# follow STAGE: what its lines do. Of a line that builds, only what comes before the build, unless --build.
follow() {
  local folder=/ word text
  while IFS=$'\t' read -r word text; do
    case $word in
      FROM) [[ $text == debian:12* ]] || skip "stage $1 of $file starts from $text, and only a bare Debian 12 is here" ;;
      WORKDIR) folder=$text; mkdir -p "$root$folder" ;;
      COPY) copy "$folder" "$text" ;;
      ENV | CMD) ;;
      RUN)
        [ $build = 1 ] || text=${text%%&& cmake --build*}
        say "RUN ${text:0:100}"
        inside "$text" "$folder" </dev/null >"$work/run.log" 2>&1 || { tail -20 "$work/run.log"; fail "RUN $text"; } ;;
      *) fail "$word: not a line that this script knows" ;;
    esac
  done < <(python3 tests/install/dockerfile.py "$file" "$1")
}

# copy FOLDER "[--from=build] FROM ... TO"
copy() {
  local words to
  read -ra words <<<"$2"
  to=${words[-1]}
  unset 'words[-1]'
  [[ $to == /* ]] || to=$1/$to
  if [[ ${words[0]} == --from=* ]]; then
    cp "$work"/built/*.deb "$root$to"
    return
  fi
  for from in "${words[@]}"; do  # a folder's contents go into a folder, as Docker does it; .git may be a worktree's file
    if [ "$from" = .git ]; then
      git clone -q --bare --depth 1 "file://$PWD" "$root$to" && git -C "$root$to" config core.bare false
    elif [ -d "$from" ]; then
      mkdir -p "$root$to" && git ls-files -z "$from" | tar --null -T - -cf - | tar -C "$root$1" -xf -
    else
      mkdir -p "$(dirname "$root$to/x")" && cp "$from" "$root${to%/}/"
    fi
  done
}

follow 1
if [ $build = 0 ]; then
  grep -E 'building without' "$work/run.log" && fail "a package is missing from $file"
  echo "OK: $file names all that a build asks for"
  exit 0
fi
rm -rf "$work/built"
mkdir "$work/built"
cp "$root"/build/ziggurat_*.deb "$work/built/"
rm -rf "$root"
mkdir "$root"
tar -C "$root" -xf "$work/bare.tar"
follow 2
inside 'ziggurat --version && ziggurat config help optimizer.lr'
echo "OK: $file builds a package, and its last stage runs it"
