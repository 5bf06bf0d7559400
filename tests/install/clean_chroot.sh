#!/usr/bin/env bash
# Installs a Debian package of Ziggurat by apt into a Debian 12 that holds nothing else, and runs the quickstart's
# training there. As root; ten minutes and 1 GB below build/chroot, so not one of ctest's tests:
#   cmake --preset package && cmake --build --preset package
#   tests/install/clean_chroot.sh build/package/ziggurat_*.deb [key=value ...]
# The overrides are the training's, e.g. train.tokens=100K for a short one. Text comes from scripts/make_corpus.sh.
# Exit code 77: skipped.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,7s/^# //p' "$0"; exit 2; }
package=$(realpath "$1")
overrides=("${@:2}")
cd "$(dirname "$0")/../.."

skip() { echo "SKIPPED: $*" >&2; exit 77; }
[ "$(id -u)" = 0 ] || skip "a chroot is made and entered by root; run it again with sudo"
command -v debootstrap >/dev/null || skip "debootstrap is missing: apt-get install debootstrap"
mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' |
  awk '$1 == "Debian" && $2 == "bookworm" { print $3; exit }')
[ -n "$mirror" ] || skip "apt has no archive of Debian bookworm configured"
unshare --mount true 2>/dev/null || skip "this container may not mount /proc for the chroot"

fail() { echo "FAILED: $*" >&2; exit 1; }
say() { printf '\n== %s\n' "$*"; }
work=$PWD/build/chroot
root=$work/root
rm -rf "$root"
trap 'rm -rf "$root"' EXIT
mkdir -p "$work"

say "Debian 12 out of $mirror"
if [ ! -e "$work/bare.tar" ]; then  # kept for the next time
  debootstrap --variant=minbase bookworm "$root" "$mirror" >"$work/debootstrap.log" || fail "see $work/debootstrap.log"
  tar -C "$root" -cf "$work/bare.tar.tmp" .
  mv "$work/bare.tar.tmp" "$work/bare.tar"
else
  mkdir "$root"
  tar -C "$root" -xf "$work/bare.tar"
fi

# inside COMMAND: in the chroot, with its own /proc and shared memory, which end with the command.
inside() {
  unshare --mount --pid --fork sh -c 'mount -t proc proc "$1/proc" && mount -t tmpfs shm "$1/dev/shm" &&
    exec chroot "$1" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive \
      bash -euo pipefail -c "$2" bash' sh "$root" "$1"
}

say "apt install $(basename "$package")"
cp "$package" "$root/tmp/"
inside "apt-get update -q && apt-get install -y -q /tmp/$(basename "$package")" >"$work/apt.log" 2>&1 ||
  { tail -30 "$work/apt.log"; fail "see $work/apt.log"; }
inside 'dpkg-query -W -f "\${Package} \${Version}: \${Installed-Size} kB, depends on \${Depends}\n" ziggurat'

say "What is there"
inside 'ziggurat --version
  ldd /usr/bin/ziggurat | grep "not found" && exit 1
  man1=/usr/share/man/man1  # which minimal systems leave out, if told to
  for file in /usr/share/ziggurat/configs/quickstart/pr_moe.yaml /usr/share/bash-completion/completions/ziggurat \
    /usr/share/zsh/vendor-completions/_ziggurat $man1/ziggurat.1 $man1/ziggurat-train.1; do
    [ -s "$file" ] || { echo "$file is missing"; exit 1; }
  done
  source /usr/share/bash-completion/completions/ziggurat && complete -p ziggurat
  for config in /usr/share/ziggurat/configs/{tiny,published}/*.yaml; do ziggurat config check "$config"; done | tail -3
  apt-get check -q && dpkg --audit'

say "The quickstart's data and training"
scripts/make_corpus.sh "$work/corpus"
mkdir -p "$root/root/run/quickstart"
cp -r "$work/corpus/text" "$root/root/run/quickstart/text"
inside "cd /root
  source /usr/share/ziggurat/mpi_environment.sh
  ziggurat data train-tokenizer --input run/quickstart/text --vocab-size 4096 --output run/quickstart/tokenizer
  ziggurat data tokenize --input run/quickstart/text --tokenizer run/quickstart/tokenizer --output run/quickstart/data \
    --source corpus --split 0.98,0.02,0
  mpirun -n 2 ziggurat train /usr/share/ziggurat/configs/quickstart/pr_moe.yaml ${overrides[*]@Q}
  ziggurat generate --checkpoint run/quickstart/model/checkpoints --prompt 'The system ' --tokens 40"

say "apt remove"
inside 'apt-get remove -y -q ziggurat >/dev/null 2>&1; ! [ -e /usr/bin/ziggurat ] && ! [ -e /usr/share/ziggurat ]'
echo "OK: $(basename "$package") installs, trains and goes"
