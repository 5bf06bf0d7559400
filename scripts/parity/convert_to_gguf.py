#!/usr/bin/env python3
"""llama.cpp's own convert_hf_to_gguf.py on tokenizers that it has never seen.

convert_to_gguf.py LLAMA_CPP [its arguments]

It knows a byte-level BPE's rule of splitting text by a hash of ids, which only a known vocabulary gives. Here it is told
GPT-2's rule where tokenizer.json says that rule; all else is its own.
"""
import json
import runpy
import sys
from pathlib import Path


def splits_as_gpt2(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    rule = tokenizer["pre_tokenizer"] or {}
    return (rule.get("type") == "ByteLevel" and rule.get("use_regex", True) and not rule["add_prefix_space"]
            and tokenizer["normalizer"] is None)  # fmt: skip


def main(llama_cpp):
    sys.path.insert(0, llama_cpp)
    from conversion.base import TextModel

    by_hash = TextModel.get_vocab_base_pre
    TextModel.get_vocab_base_pre = lambda self, tokenizer: (
        "gpt-2" if splits_as_gpt2(Path(self.dir_model)) else by_hash(self, tokenizer)
    )
    runpy.run_path(str(Path(llama_cpp) / "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv.pop(1))
