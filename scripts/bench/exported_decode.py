#!/usr/bin/env python3
"""Milliseconds a step of writing texts with a model that `ziggurat export` wrote as GPT-2's class, in transformers
(generate, eager, greedy) or llama.cpp (llama-cpp-python; the folder becomes a GGUF file beside it). One JSON line.

exported_decode.py transformers|llama FOLDER [--texts B] [--context T] [--tokens N] [--rounds N]
                   [--precision fp32|bf16|int8] [--threads N]
int8: llama.cpp's Q8_0.
"""
import argparse
import json
import math
import pathlib
import time

import numpy as np


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("peer", choices=("transformers", "llama"))
    p.add_argument("folder", type=pathlib.Path)
    for name, value in (("texts", 1), ("context", 128), ("tokens", 32), ("rounds", 3), ("threads", 2)):
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="fp32")
    return p.parse_args()


def best_of(rounds, read, write, tokens):
    """Seconds of read(), and of each of `tokens` steps of write(): the fastest; the first round warms up."""
    fastest = [math.inf, math.inf]
    for i in range(rounds + 1):
        began = time.perf_counter()
        read()
        middle = time.perf_counter()
        write()
        times = middle - began, (time.perf_counter() - middle) / tokens
        if i > 0:
            fastest = [min(a, b) for a, b in zip(fastest, times)]
    return fastest


def in_transformers(a):
    import torch
    import transformers
    torch.set_num_threads(a.threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[a.precision]
    model = transformers.AutoModelForCausalLM.from_pretrained(a.folder, dtype=dtype).eval()
    context = torch.randint(model.config.vocab_size, (a.texts, a.context))

    def generate(tokens):
        with torch.inference_mode():
            model.generate(context, attention_mask=torch.ones_like(context), max_new_tokens=tokens,
                           min_new_tokens=tokens, do_sample=False, pad_token_id=0)

    # A call reads the context and writes a token; a longer one, the same and the steps.
    read, step = best_of(a.rounds, lambda: generate(1), lambda: generate(1 + a.tokens), a.tokens)
    return read, step - read / a.tokens


def to_gguf(folder, precision):
    import gguf
    from safetensors import safe_open
    path = folder / f"{precision}.gguf"
    if path.exists():
        return path
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as f:
            tensors.update({name.removeprefix("transformer."): f.get_tensor(name).float().numpy() for name in f.keys()})
    names = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm",
             "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    kind = {"fp32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16,
            "int8": gguf.GGMLQuantizationType.Q8_0}[precision]

    def add(name, values, matrix):
        if matrix:
            writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values.astype(np.float32))

    add("token_embd.weight", tensors["wte.weight"], True)
    add("position_embd.weight", tensors["wpe.weight"], False)
    for i in range(config["n_layer"]):
        for ours, theirs in names.items():
            weight = tensors[f"h.{i}.{ours}.weight"]
            matrix = weight.ndim == 2
            add(f"blk.{i}.{theirs}.weight", weight.T if matrix else weight, matrix)  # Conv1D is [in, out]
            add(f"blk.{i}.{theirs}.bias", tensors[f"h.{i}.{ours}.bias"], False)
    add("output_norm.weight", tensors["ln_f.weight"], False)
    add("output_norm.bias", tensors["ln_f.bias"], False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def in_llama(a):
    import llama_cpp as llama
    path = to_gguf(a.folder, a.precision)
    llama.llama_backend_init()
    silent = llama.llama_log_callback(lambda *_: None)  # kept: llama.cpp calls it until the end
    llama.llama_log_set(silent, None)
    model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
    assert model, f"llama.cpp cannot load {path}"
    p = llama.llama_context_default_params()
    p.n_seq_max, p.n_threads, p.n_threads_batch = a.texts, a.threads, a.threads
    p.n_ctx = a.texts * (a.context + a.tokens + 1)
    p.n_batch = p.n_ubatch = max(a.texts, min(512, a.texts * a.context))
    context = llama.llama_init_from_model(model, p)
    assert context, "llama.cpp has no context for this"
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    batch = llama.llama_batch_init(p.n_batch, 0, 1)

    def decode(rows):  # (token, position, text, whether its logits are wanted)
        for begin in range(0, len(rows), p.n_batch):
            part = rows[begin:begin + p.n_batch]
            batch.n_tokens = len(part)
            for i, (token, position, text, wanted) in enumerate(part):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wanted
                batch.seq_id[i][0] = text
            assert llama.llama_decode(context, batch) == 0

    prompt = [(int(t), i, text, False) for text in range(a.texts)
              for i, t in enumerate(np.random.default_rng(text).integers(vocabulary, size=a.context))]

    def read():
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        decode(prompt)

    def write():
        tokens = list(range(a.texts))
        for i in range(a.tokens):
            decode([(token, a.context + i, text, True) for text, token in enumerate(tokens)])
            tokens = [int(np.ctypeslib.as_array(llama.llama_get_logits_ith(context, text), (vocabulary,)).argmax())
                      for text in range(a.texts)]

    return best_of(a.rounds, read, write, a.tokens)


def main():
    a = arguments()
    read, step = {"transformers": in_transformers, "llama": in_llama}[a.peer](a)
    print(json.dumps({"peer": a.peer, "texts": a.texts, "precision": a.precision, "seconds_per_step": step,
                      "prefill_tokens_per_second": a.texts * a.context / read}))


main()
