#!/usr/bin/env bash
# One small good file of every kind that ziggurat_fuzz damages:   scripts/fuzz_seeds.sh ZIGGURAT ZIGGURAT_FUZZ FOLDER
set -euo pipefail
ziggurat=$(realpath "$1") fuzz=$(realpath "$2")
mkdir -p "$3"
cd "$3"
export OMP_NUM_THREADS=1

mkdir corpus
for i in 1 2 3; do printf 'the cat %s sat on the mat\nand the other cat that sat there, caf\xc3\xa9\n' $i >corpus/$i.txt; done
"$ziggurat" data train-tokenizer --input corpus --vocab-size 262 --output tokenizer
"$ziggurat" data tokenize --input corpus --tokenizer tokenizer --split 1,0,0 --output shards
mkdir shard
cp shards/*.h5 shard/shard.h5
"$ziggurat" data convert --to megatron shards --output megatron/corpus

cat >config.yaml <<'YAML'
name: seeds
output: run
precision: fp32
model: {vocab_size: 262, vocab_multiple: 2, max_sequence: 8, hidden: 8, heads: 2, norm: rms_norm, positions: rope,
  activation: swiglu, bias: false, tied_embeddings: false, blocks: [{repeat: 1, pattern: [{ffn: dense}]}]}
batch: {sequence_length: 8, micro_batch: 1, global_batch: 1}
train: {tokens: 16}
eval: {sequences: 0}
optimizer: {warmup_tokens: 8, decay_tokens: 16}
data: {train: shards, tokenizer: tokenizer}
YAML
"$ziggurat" train config.yaml
cp -r run/checkpoints/step_00000002 checkpoint
mkdir metrics && cp run/metrics.jsonl metrics
"$ziggurat" export --checkpoint run --output model_folder --shard-size 8KB
rm -f model_folder/*.md model_folder/*.py
mkdir safetensors && cp model_folder/model-00001*.safetensors safetensors/model.safetensors
mkdir config && mv config.yaml config && mv run/config.yaml config/base.yaml
sed -i '1i include: base.yaml' config/config.yaml

mkdir gpt2_tokenizer text
python3 - tokenizer/tokenizer.json <<'PYTHON'
import json, sys
model = json.load(open(sys.argv[1]))["model"]
json.dump(model["vocab"], open("gpt2_tokenizer/encoder.json", "w"))
merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
open("gpt2_tokenizer/vocab.bpe", "w").write("\n".join(["#version: 0.2", *merges]) + "\n")
PYTHON
printf '{"id": 1, "text": "one\\u00e9 \\ud83d\\ude00"}\n{"meta": {"text": [1, 2.5e3]}, "text": "two"}\n' >text/a.jsonl
gzip -n <corpus/1.txt >text/b.gz
! command -v zstd >/dev/null || zstd -q <corpus/1.txt >text/c.zst
cp corpus/2.txt text/d.txt
mkdir sentencepiece && "$fuzz" --sentencepiece sentencepiece/tokenizer.model
rm -rf run corpus
