# Sourced by the tests that need a Debian 12 which holds nothing else. Sets $work, the folder of what is kept for the next
# time, and $root, a fresh chroot that goes when the test ends. Exit code 77: skipped.
skip() { echo "SKIPPED: $*" >&2; exit 77; }
fail() { echo "FAILED: $*" >&2; exit 1; }
say() { printf '\n== %s\n' "$*"; }

[ "$(id -u)" = 0 ] || skip "a chroot is made and entered by root; run it again with sudo"
command -v debootstrap >/dev/null || skip "debootstrap is missing: apt-get install debootstrap"
mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' |
  awk '$1 == "Debian" && $2 == "bookworm" { print $3; exit }')
[ -n "$mirror" ] || skip "apt has no archive of Debian bookworm configured"
unshare --mount true 2>/dev/null || skip "this container may not mount /proc for the chroot"

work=$PWD/build/chroot
root=$work/root.$$
trap 'rm -rf "$root"' EXIT
mkdir -p "$work"

say "Debian 12 out of $mirror"
if [ ! -e "$work/bare.tar" ]; then
  debootstrap --variant=minbase bookworm "$root" "$mirror" >"$work/debootstrap.log" || fail "see $work/debootstrap.log"
  tar -C "$root" -cf "$work/bare.tar.tmp" .
  mv "$work/bare.tar.tmp" "$work/bare.tar"
else
  mkdir "$root"
  tar -C "$root" -xf "$work/bare.tar"
fi

# inside COMMAND [FOLDER]: in the chroot, with its own /proc and shared memory, which end with the command.
inside() {
  unshare --mount --pid --fork sh -c 'mount -t proc proc "$1/proc" && mount -t tmpfs shm "$1/dev/shm" &&
    exec chroot "$1" /usr/bin/env -i -C "$3" PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive \
      bash -euo pipefail -c "$2" bash' sh "$root" "$1" "${2:-/}"
}
