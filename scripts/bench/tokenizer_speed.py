#!/usr/bin/env python3
"""GPT-2 BPE of this project beside Hugging Face `tokenizers` and `tiktoken`, one thread each, on the same text.

usage: scripts/bench/tokenizer_speed.py TEXT_FOLDER GPT2_FOLDER [--ziggurat build/release/ziggurat]
GPT2_FOLDER holds vocab.bpe and encoder.json. Needs `pip install tokenizers tiktoken`. Ours includes reading,
hashing and writing the shards, and the start of the process; theirs is encoding alone, from memory.
"""
import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("text", type=pathlib.Path)
parser.add_argument("gpt2", type=pathlib.Path)
parser.add_argument("--ziggurat", default="build/release/ziggurat")
arguments = parser.parse_args()
os.environ["RAYON_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tiktoken
import tiktoken.load
import tokenizers

files = sorted(path for path in arguments.text.rglob("*") if path.is_file())
texts = [f.read_bytes().decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n") for f in files]
megabytes = sum(len(text.encode()) for text in texts) / 1e6


def timed(name, count_tokens):
    start = time.process_time()
    tokens = count_tokens()
    seconds = time.process_time() - start
    print(f"{name:24} {megabytes / seconds:8.1f} MB/s {tokens:12} tokens")
    return megabytes / seconds, tokens


def ours():
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.ziggurat, "data", "tokenize", "--input", arguments.text, "--tokenizer", arguments.gpt2,
                   "--split", "1,0,0", "--no-eod", "--output", folder]
        before = os.times()
        subprocess.run(command, check=True, capture_output=True)
        after = os.times()
        seconds = after.children_user + after.children_system - before.children_user - before.children_system
        tokens = json.loads((pathlib.Path(folder) / "corpus-train.json").read_text())["n_tokens"]
    print(f"{'ziggurat data tokenize':24} {megabytes / seconds:8.1f} MB/s {tokens:12} tokens")
    return megabytes / seconds, tokens


ranks = tiktoken.load.data_gym_to_mergeable_bpe_ranks(str(arguments.gpt2 / "vocab.bpe"),
                                                      str(arguments.gpt2 / "encoder.json"))
pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
tik = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
vocab = json.loads((arguments.gpt2 / "encoder.json").read_text())
merges = [tuple(line.split()) for line in (arguments.gpt2 / "vocab.bpe").read_text().splitlines()[1:] if line]
hf = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
hf.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)

print(f"{len(texts)} files, {megabytes:.1f} MB, processor time of one thread")
our_speed, our_tokens = ours()
for name, count in (("tiktoken", lambda: sum(len(tik.encode_ordinary(text)) for text in texts)),
                    ("Hugging Face tokenizers", lambda: sum(len(hf.encode(text).ids) for text in texts))):
    speed, tokens = timed(name, count)
    print(f"  ziggurat is {our_speed / speed:.1f} times as fast" + ("" if tokens == our_tokens else
          f"; TOKENS DIFFER: {our_tokens} and {tokens}"))
