"""GGUF files that llama.cpp's own converter makes of exported folders: every tensor and token beside what was exported.

GGUF expresses GPT-2, Llama, Mixtral, Qwen3, and, with experts in every layer, Qwen2-MoE, Qwen3-MoE (weights that sum to
1) and OLMoE (raw probabilities); classes of our own the converter refuses.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

ARCHITECTURES = {
    "GPT2LMHeadModel": gguf.MODEL_ARCH.GPT2,
    "LlamaForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "MixtralForCausalLM": gguf.MODEL_ARCH.LLAMA,
    "Qwen2MoeForCausalLM": gguf.MODEL_ARCH.QWEN2MOE,
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
    "Qwen3MoeForCausalLM": gguf.MODEL_ARCH.QWEN3MOE,
    "OlmoeForCausalLM": gguf.MODEL_ARCH.OLMOE,
}
EXPERT = re.compile(r"layers\.(\d+)\.\w+\.experts\.(\d+)\.(\w+)\.weight$")
EXPERT_TENSORS = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def rotated_in_pairs(weight, heads):
    """Rows in the order in which llama.cpp's `llama` turns them: neighbours, where transformers turns halves."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def expected_tensors(folder, config):
    """The exported tensors, by the names and in the layout of GGUF."""
    architecture = ARCHITECTURES[config["architectures"][0]]
    layers = config.get("num_hidden_layers") or config["n_layer"]
    names = gguf.get_tensor_name_map(architecture, layers)
    tensors, experts = {}, {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, weight in load_file(file).items():
            if match := EXPERT.search(name):
                layer, expert, kind = match.groups()
                experts.setdefault(f"blk.{layer}.ffn_{EXPERT_TENSORS[kind]}_exps.weight", {})[int(expert)] = weight
                continue
            if re.search(r"\.c_\w+\.weight$", name):  # GPT-2's are [in, out]
                weight = weight.T
            if architecture == gguf.MODEL_ARCH.LLAMA and (match := re.search(r"\.([qk])_proj\.", name)):
                heads = config["num_attention_heads" if match[1] == "q" else "num_key_value_heads"]
                weight = rotated_in_pairs(weight, heads)
            tensors[names.get_name(name, try_suffixes=(".weight", ".bias")) or name] = weight
    for name, parts in experts.items():
        tensors[name] = np.stack([parts[i] for i in range(len(parts))])
    return tensors


def compare_tensors(expected, found):
    faults = [f"{name} is on one side only" for name in sorted(expected.keys() ^ found.keys())]
    for name in expected.keys() & found.keys():
        a, b = expected[name].squeeze(), found[name].squeeze()
        if a.shape != b.shape or not np.array_equal(a, b):
            faults.append(f"{name} differs")
    return faults


def check_that_faults_are_found():
    """What compare_tensors must not take for equal."""
    weight = np.arange(8, dtype=np.float32).reshape(4, 2)
    assert not compare_tensors({"a": weight}, {"a": weight.copy()})
    for other in ({"a": weight + np.float32(1e-6)}, {"a": weight.T}, {"a": rotated_in_pairs(weight, 1)}, {"b": weight}):
        assert compare_tensors({"a": weight}, other), other
    assert compare_tensors({"a": weight}, {"a": weight, "b": weight})


def compare(reader, folder, config):
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    faults = compare_tensors(expected_tensors(folder, config), found)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = {**vocabulary["model"]["vocab"], **{t["content"]: t["id"] for t in vocabulary["added_tokens"]}}
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    if any(tokens[i] != token for token, i in ids.items()):
        faults.append("tokens differ")
    return len(found), faults


def main(llama_cpp):
    check_that_faults_are_found()
    print("\n| model | class | GGUF by llama.cpp's converter |\n|---|---|---|")
    wrong = 0
    for folder in sorted(Path(".").glob("judged_*")):
        exported, file = folder / "hf", folder / "model.gguf"
        config = json.loads((exported / "config.json").read_text())
        (name,) = config["architectures"]
        file.unlink(missing_ok=True)
        converter = [sys.executable, Path(__file__).with_name("convert_to_gguf.py"), llama_cpp, exported]
        ended = subprocess.run([*converter, "--outtype", "f32", "--outfile", file], capture_output=True, text=True)
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        faults = []
        if name not in ARCHITECTURES:
            result = f"none: {last.removeprefix('ERROR:hf-to-gguf:')}"
            if ended.returncode == 0:
                faults.append("converted, though GGUF has no such model")
        elif ended.returncode != 0:
            result = "WRONG"
            faults.append(last)
        else:
            count, faults = compare(gguf.GGUFReader(file), exported, config)
            result = "WRONG" if faults else f"{count} tensors and all tokens equal"
        wrong += len(faults)
        print(f"| {folder.name} | {name} | {result} |", *faults, sep="\n  ", flush=True)
    return wrong
