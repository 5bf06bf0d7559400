#!/usr/bin/env python3
"""`ziggurat data tokenize` beside Hugging Face `tokenizers` and `tiktoken`: speed on the same text, and the same ids.

usage: scripts/bench/tokenizer_speed.py TEXT_FOLDER [TOKENIZER] [--threads 1 2] [--ziggurat build/release/ziggurat]
TOKENIZER is a tokenizer.json or a folder with GPT-2's vocab.bpe and encoder.json; without it, `data train-tokenizer`
learns one of --vocab-size from the text. The other two come from PyPI into build/tokenizer-venv.

Ours is the whole program: start, reading, encoding, hashing, writing and syncing shards. Theirs is encoding alone, from
memory to Python lists. On a busy machine only the rate by processor time means anything.
"""
import argparse
import array
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

root = pathlib.Path(__file__).resolve().parents[2]
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("text", type=pathlib.Path)
parser.add_argument("tokenizer", type=pathlib.Path, nargs="?")
parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
parser.add_argument("--vocab-size", type=int, default=16384)
parser.add_argument("--ziggurat", default=str(root / "build/release/ziggurat"))
parser.add_argument("--measure", choices=["tiktoken", "tokenizers"], help=argparse.SUPPRESS)  # in a process of its own
arguments = parser.parse_args()


def texts():
    files = sorted(path for path in arguments.text.rglob("*") if path.is_file())
    decoded = (f.read_bytes().decode("utf-8-sig", "replace") for f in files)
    return [text.replace("\r\n", "\n").replace("\r", "\n") for text in decoded]


def files_of_tokenizer():
    """Vocabulary and merges, in either format."""
    path = arguments.tokenizer / "tokenizer.json" if arguments.tokenizer.is_dir() else arguments.tokenizer
    if path.exists():
        model = json.loads(path.read_text())["model"]
        return model["vocab"], [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    lines = (arguments.tokenizer / "vocab.bpe").read_text().splitlines()[1:]
    return json.loads((arguments.tokenizer / "encoder.json").read_text()), [tuple(x.split()) for x in lines if x]


def tiktoken_encoder(threads):
    import tiktoken
    vocab, _ = files_of_tokenizer()
    printable = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE]
    others = [b for b in range(256) if b not in printable]
    byte_of = {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
    ranks = {bytes(byte_of[c] for c in token): i for token, i in vocab.items() if token != "<|endoftext|>"}
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    encoding = tiktoken.Encoding("bpe", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    if threads == 1:
        return lambda documents: [encoding.encode_ordinary(document) for document in documents]
    return lambda documents: encoding.encode_ordinary_batch(documents, num_threads=threads)


def tokenizers_encoder(threads):
    import tokenizers
    path = arguments.tokenizer / "tokenizer.json" if arguments.tokenizer.is_dir() else arguments.tokenizer
    if path.exists():
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    else:
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(*files_of_tokenizer()))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    if threads == 1:
        return lambda documents: [tokenizer.encode(document).ids for document in documents]
    return lambda documents: [encoding.ids for encoding in tokenizer.encode_batch(documents)]


def measure_here():
    threads = arguments.threads[0]
    encode = {"tiktoken": tiktoken_encoder, "tokenizers": tokenizers_encoder}[arguments.measure](threads)
    documents = texts()
    wall, cpu = time.perf_counter(), time.process_time()
    ids = encode(documents)
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}), file=sys.stderr)
    array.array("i", [i for document in ids for i in document]).tofile(sys.stdout.buffer)


def measure_theirs(name, threads):
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads),
                                "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false"}
    done = subprocess.run([sys.executable, __file__, arguments.text, arguments.tokenizer, "--measure", name,
                           "--threads", str(threads)], check=True, capture_output=True, env=environment)
    seconds = json.loads(done.stderr.splitlines()[-1])
    return seconds["wall"], seconds["cpu"], array.array("i", done.stdout)


def measure_ours(threads):
    with tempfile.TemporaryDirectory() as folder:
        command = [arguments.ziggurat, "data", "tokenize", "--input", arguments.text, "--tokenizer", arguments.tokenizer,
                   "--split", "1,0,0", "--no-eod", "--threads", str(threads), "--output", folder]
        wall, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, capture_output=True)
        wall, after = time.perf_counter() - wall, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        subprocess.run([arguments.ziggurat, "data", "convert", folder, "--to", "megatron", "--output", folder + "/ids"],
                       check=True, capture_output=True)
        narrow = json.loads(pathlib.Path(folder, "corpus-train.json").read_text())["vocab_size"] < 65500
        return wall, cpu, array.array("i", array.array("H" if narrow else "i", pathlib.Path(folder, "ids.bin").read_bytes()))


def compare():
    documents = texts()
    megabytes = sum(len(document.encode()) for document in documents) / 1e6
    print(f"{len(documents)} files, {megabytes:.1f} MB; MB/s by the clock, and by seconds of processor time\n")
    print("| program | threads | MB/s | ours is | MB per CPU s | ours is | tokens | ids |")
    print("|---|---|---|---|---|---|---|---|")
    same = True
    for threads in arguments.threads:
        our_wall, our_cpu, our_ids = measure_ours(threads)
        rows = [("ziggurat data tokenize", our_wall, our_cpu, our_ids)]
        rows += [(name, *measure_theirs(name, threads)) for name in ("tiktoken", "tokenizers")]
        for name, wall, cpu, ids in rows:
            same = same and ids == our_ids
            print(f"| {name} | {threads} | {megabytes / wall:.1f} | {wall / our_wall:.1f} x | {megabytes / cpu:.1f} | "
                  f"{cpu / our_cpu:.1f} x | {len(ids)} | {'the same' if ids == our_ids else 'DIFFER'} |", flush=True)
    return 0 if same else 1


if arguments.measure:
    sys.exit(measure_here())
try:
    import tiktoken  # noqa: F401
    import tokenizers  # noqa: F401
except ImportError:
    venv = root / "build/tokenizer-venv"
    if pathlib.Path(sys.prefix) == venv:
        sys.exit(f"{venv} lacks tiktoken or tokenizers; remove the folder and run this again")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin/pip", "install", "--quiet", "tiktoken", "tokenizers"], check=True)
    os.execv(venv / "bin/python", [str(venv / "bin/python"), *sys.argv])
if arguments.tokenizer is None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([arguments.ziggurat, "data", "train-tokenizer", "--input", arguments.text, "--vocab-size",
                        str(arguments.vocab_size), "--output", folder], check=True, capture_output=True)
        arguments.tokenizer = pathlib.Path(folder)
        sys.exit(compare())
sys.exit(compare())
