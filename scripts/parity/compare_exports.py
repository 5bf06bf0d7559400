#!/usr/bin/env python3
"""Compares what scripts/parity/export.sh made, in the folder it runs in, with transformers, and prints a table."""
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = os.environ["TQDM_DISABLE"] = "1"
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import compare_gguf
import compare_scores

LARGEST_DIFFERENCE = 1e-4
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)


def same_files(a, b, suffixes):
    """Do two folders hold the same files of these kinds, byte for byte?"""
    names = [sorted(f.name for f in Path(d).iterdir() if f.suffix in suffixes) for d in (a, b)]
    return names[0] == names[1] and all((Path(a) / n).read_bytes() == (Path(b) / n).read_bytes() for n in names[0])


def greedy(model, tokenizer, prompt, use_cache):
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=20, do_sample=False, use_cache=use_cache)
    return tokenizer.decode(out[0], skip_special_tokens=True)


def padded_rows_agree(model, tokens):
    """A batch of texts of two lengths, padded on the left, gives the last logits of each text alone."""
    short = tokens[:5]
    ids = torch.stack([tokens[:8], torch.cat([torch.zeros(3, dtype=torch.long), short])])
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    together = model(ids, attention_mask=mask, position_ids=positions).logits[:, -1]
    alone = torch.stack([model(t[None]).logits[0, -1] for t in (tokens[:8], short)])
    return (together - alone).abs().max().item()


def compare_model(folder, prompt):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder / "hf", trust_remote_code=True, torch_dtype=torch.float32, output_loading_info=True
    )
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "hf", trust_remote_code=True)
    ours = load_file(folder / "logits.safetensors")
    tokens = ours["tokens"].long()
    faults = [f"{kind}: {names}" for kind, names in info.items() if names]
    with torch.no_grad():
        difference = (model(tokens[None]).logits[0] - ours["logits"]).abs().max().item()
        padding = padded_rows_agree(model, tokens)
    if not max(difference, padding) <= LARGEST_DIFFERENCE:
        faults.append(f"logits differ by {difference:.1e}, of padded texts by {padding:.1e}")
    text = (folder / "text").read_bytes().decode(errors="replace").removesuffix("\n")
    with torch.no_grad():
        for use_cache in (True, False):
            theirs = greedy(model, tokenizer, prompt, use_cache)
            if theirs != text:  # only ours ends with a newline of its own
                faults.append(f"greedy text (cache {use_cache}): {theirs!r}, ours {text!r}")
    round_trip = ""
    if (folder / "hf_again").exists():
        same = same_files(folder / "hf", folder / "hf_again", (".safetensors", ".json"))
        round_trip = "equal" if same else "DIFFERENT"
        if not same:
            faults.append("import and export again gives other files")
    return type(model).__name__, difference, round_trip, faults


def compare_upcycled(folder, dense):
    a, b = (load_file(f / "logits.safetensors")["logits"] for f in (folder, dense))
    difference = (a - b).abs().max().item()
    return [] if difference <= LARGEST_DIFFERENCE else [f"differs from the dense model by {difference:.1e}"]


def compare_tokenizer(folder, text_file):
    import h5py

    shards = sorted((folder / "data").glob("*.h5"))
    with h5py.File(shards[0]) as file:
        ours = file["data"][:].astype(int).tolist()
    tokenizer = AutoTokenizer.from_pretrained(folder / "hf", trust_remote_code=True)
    text = Path(text_file).read_text(encoding="utf-8")
    theirs = tokenizer(text).input_ids
    faults = []
    if ours[: len(theirs)] != theirs or len(ours) - len(theirs) > 1:
        faults.append(f"{len(theirs)} ids, ours {len(ours)}")
    if "sentencepiece" not in folder.name and tokenizer.decode(theirs) != text:  # that normalises
        faults.append("decoded text differs")
    return len(theirs), faults


def main(prompt, text_file, ziggurat, eval_data, limit, evaluations):
    wrong = 0
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, fp32\n")
    print("| model | class | largest difference of a logit | greedy text | import, export again |")
    print("|---|---|---|---|---|")
    upcycled_from = {
        "upcycled": "350m_dense", "upcycled_top1": "llama", "upcycled_qwen3": "qwen3",
        "upcycled_residual": "llama_biases_untied",
    }  # fmt: skip
    for folder in sorted(Path(".").iterdir()):
        if not (folder / "logits.safetensors").exists():
            continue
        name, difference, round_trip, faults = compare_model(folder, prompt)
        if folder.name in upcycled_from:
            faults += compare_upcycled(folder, Path(upcycled_from[folder.name]))
            round_trip = f"computes what {upcycled_from[folder.name]} does" if not faults else ""
        wrong += len(faults)
        print(f"| {folder.name} | {name} | {difference:.1e} | {'WRONG' if any('greedy' in f for f in faults) else 'equal'}"
              f" | {round_trip} |", *faults, sep="\n  ", flush=True)  # fmt: skip
    for folder in sorted(Path(".").glob("tokenizer_*")):
        tokens, faults = compare_tokenizer(folder, text_file)
        wrong += len(faults)
        print(f"{folder.name}: {tokens} ids of a text {'as ours' if not faults else 'WRONG'}", *faults, sep="\n  ")
    wrong += compare_scores.main(ziggurat, eval_data, int(limit), evaluations)
    wrong += compare_gguf.main("llama.cpp")
    print(f"\n{wrong} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
