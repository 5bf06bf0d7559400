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

source tests/install/chroot.sh

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
