#!/usr/bin/env bash
# From nothing to a trained PR-MoE and a text it wrote, in about ten minutes on two cores. Run again, it reuses what
# exists; remove run/quickstart to start over.
#   --no-install  do not install missing packages
set -euo pipefail
cd "$(dirname "$0")/.."

install=1
for argument in "$@"; do
  case $argument in
    --no-install) install=0 ;;
    *) echo "usage: scripts/quickstart.sh [--no-install]" >&2; exit 2 ;;
  esac
done

run=run/quickstart
corpus=$run/corpus
ziggurat=build/release/ziggurat
say() { printf '\n== %s\n' "$*"; }

say "1/6 Packages"
if [ "$install" = 1 ]; then scripts/install_packages.sh; else echo "not installing anything (--no-install)"; fi
source scripts/mpi_environment.sh

say "2/6 Building $ziggurat"
cmake --preset release >/dev/null
cmake --build --preset release --target ziggurat

say "3/6 Corpus: English text out of Debian packages"
scripts/make_corpus.sh "$corpus"

say "4/6 Tokenizer and shards"
[ -e $run/tokenizer/tokenizer.json ] ||
  $ziggurat data train-tokenizer --input $corpus/text --vocab-size 4096 --output $run/tokenizer
[ -e $run/data/tokenizer.json ] ||  # which is put there last
  $ziggurat data tokenize --input $corpus/text --tokenizer $run/tokenizer --output $run/data --source corpus \
    --split 0.98,0.02,0
$ziggurat data stats $run/data

say "5/6 Training a PR-MoE on two ranks, its experts spread over both"
mpirun -n 2 $ziggurat train configs/quickstart/pr_moe.yaml

say "6/6 A sample"
$ziggurat generate --checkpoint $run/model/checkpoints --prompt "The system " --tokens 60

cat <<'END'

What to try next
  build/release/ziggurat plan configs/published/1.3b_pr_moe.yaml        what the paper's 31B model needs
  build/release/ziggurat config help                                    every key of a config
  build/release/ziggurat train configs/tiny/350m_moe128.yaml            a tiny twin of a published model, in seconds
  build/release/ziggurat train configs/quickstart/pr_moe.yaml train.tokens=4M   goes on with the model just trained
  scripts/test.sh                                                       the tests: is the mathematics right?
END
