#!/usr/bin/env python3
"""Makes tests/golden/data/hf_*: small models as transformers itself saves them, with the logits that it computes.

    python3 -m venv /tmp/gold && /tmp/gold/bin/pip install -r scripts/parity/requirements.txt
    /tmp/gold/bin/python scripts/golden/make_hf_goldens.py tests/golden/data

Every folder has config.json, model.safetensors and logits.safetensors (tokens [n] i32, logits [n, vocabulary] f32).
hf_ziggurat is a PR-MoE in the code that an export brings along (src/hf/remote_code), hf_ziggurat_qk_norm one that
normalises queries and keys, hf_ziggurat_openmoe and hf_ziggurat_sigmoid have OpenMoE's layers and DeepSeek-V3's router.
NAMES after the folder: only these.
The committed files were made with torch 2.15.0, transformers 5.24.0.
"""
import importlib
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, OlmoeConfig,
    OlmoeForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)  # fmt: skip

SOURCE = Path(__file__).resolve().parents[2]
BLOCK = dict(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=32, rope_parameters={"rope_type": "default", "rope_theta": 100.0},
)  # fmt: skip


def remote_classes(folder):
    package = Path(folder) / "remote_ziggurat"
    shutil.copytree(SOURCE / "src/hf/remote_code", package)
    (package / "__init__.py").touch()
    sys.path.insert(0, str(folder))
    return (
        importlib.import_module("remote_ziggurat.configuration_ziggurat").ZigguratConfig,
        importlib.import_module("remote_ziggurat.modeling_ziggurat").ZigguratForCausalLM,
    )


def models(folder):
    yield "gpt2", GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=32, n_embd=16, n_layer=2, n_head=4))
    yield "llama", LlamaForCausalLM(LlamaConfig(**BLOCK, attention_bias=True, head_dim=6))
    yield "mixtral", MixtralForCausalLM(MixtralConfig(**BLOCK, num_local_experts=4, num_experts_per_tok=2))
    yield "qwen2_moe", Qwen2MoeForCausalLM(Qwen2MoeConfig(
        **BLOCK, moe_intermediate_size=24, num_experts=4, num_experts_per_tok=1, decoder_sparse_step=2,
        shared_expert_intermediate_size=8, tie_word_embeddings=True,
    ))  # fmt: skip
    config, model = remote_classes(folder)
    yield "ziggurat", model(config(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, head_dim=4, max_position_embeddings=32,
        ffn_kinds=["dense", "residual_moe", "moe"], ffn_experts=[0, 2, 4],
    ))  # fmt: skip
    yield "qwen3", Qwen3ForCausalLM(Qwen3Config(**BLOCK, head_dim=6))
    yield "qwen3_moe", Qwen3MoeForCausalLM(Qwen3MoeConfig(
        **BLOCK, head_dim=6, moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True,
        mlp_only_layers=[0],
    ))  # fmt: skip
    yield "olmoe", OlmoeForCausalLM(OlmoeConfig(**BLOCK, num_experts=4, num_experts_per_tok=2, pad_token_id=None))
    yield "ziggurat_qk_norm", model(config(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=6, max_position_embeddings=32, norm="rms_norm", positions="rope",
        rope_theta=100.0, qk_norm="width", hidden_act="swiglu", use_bias=False,
        ffn_kinds=["residual_moe", "dense"], ffn_experts=[2, 0],
    ))  # fmt: skip
    yield "qwen2_moe_shared", Qwen2MoeForCausalLM(Qwen2MoeConfig(
        **BLOCK, moe_intermediate_size=12, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=2,
        shared_expert_intermediate_size=20,
    ))  # fmt: skip
    modern = dict(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, norm="rms_norm", positions="rope", rope_theta=100.0,
        use_bias=False, ffn_kinds=["residual_moe", "dense"],
    )  # fmt: skip
    yield "ziggurat_openmoe", model(config(
        **modern, head_dim=6, hidden_act="swiglu_linear", attention_scale=1.0, residual_mix="sequential",
        ffn_experts=[4, 0], num_experts_per_tok=2, tie_word_embeddings=False,
    ))  # fmt: skip
    yield "ziggurat_sigmoid", model(config(
        **modern, head_dim=4, hidden_act="swiglu", residual_mix="sum", ffn_experts=[6, 0], num_experts_per_tok=3,
        norm_topk_prob=True, scoring_func="sigmoid", routed_scaling_factor=2.5, n_group=3, topk_group=2,
        balance_bias=True, moe_intermediate_size=12, sliding_window=5,
    ))  # fmt: skip
    yield "mixtral_window", MixtralForCausalLM(MixtralConfig(
        **BLOCK, num_local_experts=4, num_experts_per_tok=2, sliding_window=5,
    ))  # fmt: skip


def main(out, *names):
    with tempfile.TemporaryDirectory() as temporary:
        for seed, (name, model) in enumerate(models(temporary)):
            if names and name not in names:
                continue
            torch.manual_seed(seed)
            for key, value in model.named_parameters():  # far from the initial values, so that every part matters
                value.data = torch.randn(value.shape) * 0.3 + (1.0 if key.endswith(("norm.weight", "ln_1.weight")) else 0)
                if name.startswith("qwen2_moe") and key.endswith("_proj.bias"):
                    value.data.zero_()
                if name == "qwen2_moe" and "shared_expert" in key:
                    value.data.zero_()
            model.tie_weights()
            folder = Path(out) / f"hf_{name}"
            shutil.rmtree(folder, ignore_errors=True)
            model.eval().save_pretrained(folder)
            for extra in list(folder.glob("*.py")) + list(folder.glob("generation_config.json")):
                extra.unlink()
            tokens = torch.randint(0, 40, (12,))
            with torch.no_grad():
                logits = model(tokens[None]).logits[0]
            save_file({"tokens": tokens.int(), "logits": logits.contiguous()}, folder / "logits.safetensors")
            print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
