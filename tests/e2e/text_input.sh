#!/usr/bin/env bash
# Text that is none, or odd: refused by name with exit code 3, or mended and told.
source "$(dirname "$0")/common.sh"

tokenize() { "$ziggurat" data tokenize --tokenizer bytes --split 1,0,0 --output out --overwrite "$@"; }
told() { "$ziggurat" data sample out --count 100; }

printf 'A line of honest text.\n%.0s' {1..2000} >good.txt

# A folder with foreign files: all are named, and nothing is read.
mkdir -p corpus/below
cp good.txt corpus/a.txt
printf 'PK\x03\x04\x14\0\0\0' >corpus/b.docx
printf '\x89HDF\r\n\x1a\n\0\0' >corpus/below/c.h5
for ranks in 1 3; do
  expect_end 3 log mpirun --oversubscribe -n $ranks "$ziggurat" data tokenize --tokenizer bytes --split 1,0,0 --output none \
    --input corpus
  expect_text log "2 of 3 files" "b.docx is a zip archive" "below/c.h5 is an HDF5 file" "data convert"
done
expect_end 3 log tokenize --input - <corpus/b.docx
expect_text log "standard input is a zip archive"
gzip -c corpus/below/c.h5 >c.gz
expect_end 3 log tokenize --input c.gz
expect_text log "c.gz holds an HDF5 file"

# Other encodings: by the share of each file, whatever the others hold.
rm -r corpus && mkdir corpus
for i in 1 2 3 4 5 6 7 8 9; do cp good.txt corpus/$i.txt; done
printf 'O\xf9 est n\xe9e la f\xe9e?\n' >corpus/x.txt
expect_end 3 log tokenize --input corpus
expect_text log "corpus/x.txt is not UTF-8 text" "3 not valid UTF-8" "byte 1 (line 1)" "iconv" "--allow-invalid-utf8"
expect_end 3 log "$ziggurat" data train-tokenizer --vocab-size 260 --output tok --input corpus
expect_text log "corpus/x.txt is not UTF-8 text"
expect_end 0 log tokenize --input corpus/x.txt --allow-invalid-utf8 0.2
expect_text log "no valid UTF-8 or NUL: 3 (first: corpus/x.txt, byte 1 (line 1))"

# JSON as Python writes it.
cat >a.jsonl <<'JSON'
{"text": "a\ud83d", "score": NaN, "n": 1e999}
{"text": "first", "text": "b"}
{"text": null}
JSON
expect_end 3 log tokenize --input a.jsonl --document-per json
expect_text log "a.jsonl, line 3 has null" "--missing-text skip"
expect_end 0 log tokenize --input a.jsonl --document-per json --missing-text skip
expect_text log "surrogate pairs in JSON texts: 1 (first: a.jsonl, line 1)" "more than once: 1 (first: a.jsonl, line 2)" \
  "without a string under the key \"text\": 1 (first: a.jsonl, line 3)"
[ "$(told)" = $'a\xef\xbf\xbd<|endoftext|>b<|endoftext|>' ] || fail "the texts are others: $(told)"
expect_end 3 log tokenize --input a.jsonl --document-per json --lone-surrogates refuse
expect_text log "a.jsonl, line 1" "--lone-surrogates replace"

# Separators and line ends.
printf 'a\r\n\r\nb' >crlf.txt
expect_end 0 log tokenize --input crlf.txt --document-per separator --separator '\n\n'
expect_text log "CRLF or CR: 2 (first: crlf.txt)" "2 documents"
expect_end 0 log tokenize --input crlf.txt --document-per separator --separator '\n\n' --newlines keep
expect_text log 'the separator "\n\n" occurs nowhere' "1 documents"
expect_end 0 log tokenize --input crlf.txt --document-per separator --separator '\x0d\n\r\n' --newlines keep
expect_text log "2 documents"
expect_end 2 log tokenize --input crlf.txt --document-per separator --separator 'a\q'
expect_text log "--separator" "backslash"

# One long word is learnt from like many short ones, and the work is shown.
awk 'BEGIN { srand(1); for (i = 0; i < 300000; ++i) printf "%c", 97 + int(rand() * 26) }' >word.txt
expect_end 0 log "$ziggurat" data train-tokenizer --vocab-size 1000 --input word.txt --output tok
expect_text log "count pieces" "learn merges 100% | 743 merges of 743 merges" "tokenizer of 1000 tokens from 1 distinct pieces"
