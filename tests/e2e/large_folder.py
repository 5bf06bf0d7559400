"""Writes folders of Hugging Face transformers without its libraries, and compares two of them.

large_folder.py write FOLDER [key=value ...]    a Mixtral of bf16: layers, hidden, ffn, experts, vocab, files
large_folder.py compare FOLDER FOLDER           the same tensors, byte for byte; else exit code 1
"""

import json
import os
import struct
import sys


def tensors(size):
    hidden, ffn, layers = size["hidden"], size["ffn"], size["layers"]
    yield "model.embed_tokens.weight", [size["vocab"], hidden]
    for i in range(layers):
        layer = f"model.layers.{i}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield layer + name + ".weight", [hidden]
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield layer + f"self_attn.{name}.weight", [hidden, hidden]
        yield layer + "block_sparse_moe.gate.weight", [size["experts"], hidden]
        for e in range(size["experts"]):
            for name, shape in (("w1", [ffn, hidden]), ("w2", [hidden, ffn]), ("w3", [ffn, hidden])):
                yield layer + f"block_sparse_moe.experts.{e}.{name}.weight", shape
    yield "model.norm.weight", [hidden]
    yield "lm_head.weight", [size["vocab"], hidden]


def byte_count(shape):
    count = 2
    for n in shape:
        count *= n
    return count


def write_file(path, of_file, block):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in of_file:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + byte_count(shape)]}
        at += byte_count(shape)
    text = json.dumps(header).encode()
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for number, (name, shape) in enumerate(of_file):
            left, begin = byte_count(shape), 2 * 997 * number % len(block)
            while left > 0:
                piece = block[begin : begin + left]
                out.write(piece)
                left, begin = left - len(piece), 0


def write(folder, options):
    size = {"layers": 1, "hidden": 64, "ffn": 128, "experts": 4, "vocab": 512, "files": 1}
    size.update((key, int(value)) for key, value in (option.split("=") for option in options))
    os.makedirs(folder)
    config = {
        "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "hidden_size": size["hidden"],
        "intermediate_size": size["ffn"], "num_hidden_layers": size["layers"], "num_attention_heads": 8,
        "num_key_value_heads": 8, "num_local_experts": size["experts"], "num_experts_per_tok": 2,
        "vocab_size": size["vocab"], "max_position_embeddings": 64, "tie_word_embeddings": False,
    }  # fmt: skip
    with open(f"{folder}/config.json", "w") as out:
        json.dump(config, out)
    # Any bf16 below 2 in size: one exponent bit is cleared, so that none is an infinity or no number.
    block = os.urandom(1 << 20).translate(bytes(b & 0xBF for b in range(256)))
    everything, files = list(tensors(size)), size["files"]
    if files == 1:
        return write_file(f"{folder}/model.safetensors", everything, block)
    index = {}
    for f in range(files):
        name = f"model-{f + 1:05}-of-{files:05}.safetensors"
        write_file(f"{folder}/{name}", everything[f::files], block)
        index.update((tensor, name) for tensor, _ in everything[f::files])
    with open(f"{folder}/model.safetensors.index.json", "w") as out:
        json.dump({"metadata": {}, "weight_map": index}, out)


def read(folder):
    found = {}
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".safetensors"):
            continue
        path = f"{folder}/{file}"
        with open(path, "rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            found[name] = (path, 8 + length + entry["data_offsets"][0], entry["dtype"], entry["shape"])
    return found


def compare(one, other):
    a, b = read(one), read(other)
    assert a.keys() == b.keys(), f"tensors of one only: {sorted(a.keys() ^ b.keys())}"
    for name, (path, begin, dtype, shape) in a.items():
        assert (dtype, shape) == b[name][2:], f"{name}: {dtype} {shape} and {b[name][2:]}"
        with open(path, "rb") as x, open(b[name][0], "rb") as y:
            x.seek(begin)
            y.seek(b[name][1])
            same = x.read(byte_count(shape)) == y.read(byte_count(shape))
        assert same, f"{name} differs"


if sys.argv[1] == "write":
    write(sys.argv[2], sys.argv[3:])
else:
    compare(sys.argv[2], sys.argv[3])
