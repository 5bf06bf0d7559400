#!/usr/bin/env bash
# Whatever ends `data tokenize --overwrite`, the old shards or the new ones can be read, whole; and two do not write at
# once.
source "$(dirname "$0")/common.sh"

for text in old new; do
  mkdir $text
  for n in {1..40}; do
    for m in {1..1500}; do echo "$text $((n * 7919 % 1000)) document $n, line $m of the river"; done >$text/$n.txt
  done
done
tokenize=("$ziggurat" data tokenize --tokenizer bytes --source text --split 0.8,0.2,0 --shard-bytes 200000 --threads 2)
hashes() { grep -h xxh3 "$1"/text-train.json "$1"/text-valid.json; }
for text in old new; do
  "${tokenize[@]}" --input $text --output reference-$text >log 2>&1 || { cat log; fail "tokenize"; }
  hashes reference-$text >$text.hashes
done

# A process that is killed at any moment, then the same command again; the other text in the next round.
"${tokenize[@]}" --input old --output data >log 2>&1
was=old
for round in {1..10}; do
  will=$([ $was = old ] && echo new || echo old)
  for kill in {1..3}; do
    { timeout -s KILL 0.$(printf '%03d' $((RANDOM % 400))) \
      "${tokenize[@]}" --input $will --output data --overwrite >log 2>&1 || true; } 2>/dev/null
    for split in train valid; do
      expect_end 0 verify.log "$ziggurat" data verify data --split $split
      expect_end 0 sample.log "$ziggurat" data sample data --split $split --count 20
    done
    hashes data >data.hashes
    cmp -s data.hashes old.hashes || cmp -s data.hashes new.hashes ||
      { [ -e data/.text.exchange ] && echo "killed between two manifests"; } || fail "shards of both texts"
  done
  expect_end 0 log "${tokenize[@]}" --input $will --output data --overwrite
  hashes data >data.hashes
  cmp -s data.hashes $will.hashes || fail "after round $round the shards are not those of '$will'"
  [ "$(ls -A data | wc -l)" = "$(ls -A reference-$will | wc -l)" ] || { ls -A data; fail "something is left behind"; }
  was=$will
done

# What fails leaves every byte, also where one rank of two fails.
before=$(cd data && sha256sum * | sha256sum)
unchanged() { [ "$(cd data && sha256sum * | sha256sum)" = "$before" ] || fail "the old shards have changed: $*"; }
expect_end 3 log "${tokenize[@]}" --input nowhere --output data --overwrite
unchanged "missing input"
expect_end 3 log "${tokenize[@]}" --input old --output data
expect_text log "--overwrite"
unchanged "without --overwrite"
cp -r new broken
printf '\x1f\x8bno gzip' >broken/39.txt
got=0
mpirun -n 2 "${tokenize[@]}" --input broken --output data --overwrite >log 2>&1 || got=$?
[ $got != 0 ] || fail "expected broken text to be refused"
unchanged "a rank failed"
(trap '' XFSZ; ulimit -f 64; expect_end 3 log "${tokenize[@]}" --input new --output data --overwrite)
unchanged "no space"

mkfifo pipe
"${tokenize[@]}" --input - --output data --overwrite <pipe >first.log 2>&1 &
first=$!
exec 8>pipe
wait_for eval "grep -qs $first data/.write.lock*"
expect_end 2 log "${tokenize[@]}" --input new --output data --overwrite
expect_text log "$first"
kill -9 $first
wait $first 2>/dev/null || true
exec 8>&-
unchanged "killed while it read"
expect_end 0 log "${tokenize[@]}" --input new --output data --overwrite
