#!/usr/bin/env python3
"""Tokens/s of training steps of the models in configs/bench, written in PyTorch as one would:
scaled_dot_product_attention, fused AdamW, bf16 by autocast. One JSON line per model and precision.

pytorch_step.py [--models small_dense small_moe gpt2_124m ...] [--precisions bf16 fp32] [--length T] [--sequences B]
                [--compile] [--moe permute|deepspeed] [--device cpu|cuda] [--steps N] [--threads N]

--moe deepspeed takes DeepSpeed's own layer (deepspeed.moe.layer.MoE) for the experts. A tuned allocator is the caller's
to preload: see run.sh.
"""
import argparse
import json
import math
import os
import time

import torch
import torch.nn.functional as F
from torch import nn

VOCAB = 50304
MODELS = {  # layers, width, heads, experts in every other layer, sequences, length: as in configs/bench/*.yaml
    "small_dense": (6, 384, 6, 0, 8, 256),
    "small_moe": (6, 384, 6, 8, 8, 256),
    "gpt2_124m": (12, 768, 12, 0, 4, 256),
    "gpt2_1558m": (48, 1600, 25, 0, 8, 1024),
    "gpt_7b": (32, 4096, 32, 0, 4, 1024),
    "350m_moe64": (24, 1024, 16, 64, 16, 1024),
}


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.down(F.gelu(self.up(x), approximate="tanh")), 0.0


class MoeMlp(nn.Module):
    """Top-1 with capacity: rows sorted by expert into [E, capacity, C], two batched products, rows put back. On a GPU
    rows that are dropped go to a row of nobody: to ask how many there are would stop the host."""

    def __init__(self, width, experts, capacity_factor=1.25):
        super().__init__()
        self.experts, self.capacity_factor = experts, capacity_factor
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(0.02 * torch.randn(experts, width, 4 * width))
        self.up_bias = nn.Parameter(torch.zeros(experts, 1, 4 * width))
        self.down = nn.Parameter(0.02 * torch.randn(experts, 4 * width, width))
        self.down_bias = nn.Parameter(torch.zeros(experts, 1, width))

    def forward(self, x):
        shape, x = x.shape, x.flatten(0, 1)
        tokens, experts = x.shape[0], self.experts
        capacity = math.ceil(tokens * self.capacity_factor / experts)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.float(), self.router.weight)
            probabilities = logits.softmax(-1)
            gumbel = -torch.log(-torch.log(torch.rand_like(logits).clamp_(1e-9, 1 - 1e-7)))
            expert = (logits + gumbel).argmax(-1)
        gate = probabilities.gather(1, expert[:, None])
        one_hot = F.one_hot(expert, experts)
        balance = experts * (one_hot.float().mean(0) * probabilities.mean(0)).sum()
        place = one_hot.cumsum(0).gather(1, expert[:, None])[:, 0] - 1
        if x.is_cuda:
            nobody = experts * capacity
            slot = torch.where(place < capacity, expert * capacity + place, nobody)
            rows = x.new_zeros(nobody + 1, x.shape[1]).index_copy(0, slot, x)[:nobody]
        else:
            kept = (place < capacity).nonzero()[:, 0]
            slot = expert[kept] * capacity + place[kept]
            rows = x.new_zeros(experts * capacity, x.shape[1]).index_copy(0, slot, x[kept])
        rows = rows.view(experts, capacity, -1)
        inner = F.gelu(torch.bmm(rows, self.up) + self.up_bias, approximate="tanh")
        out = (torch.bmm(inner, self.down) + self.down_bias).flatten(0, 1)
        if x.is_cuda:
            y = torch.cat([out, out.new_zeros(1, out.shape[1])])[slot] * gate.to(out.dtype)
            return y.view(shape), balance
        y = torch.zeros_like(x, dtype=out.dtype).index_copy(0, kept, out[slot] * gate[kept].to(out.dtype))
        return y.view(shape), balance


class DeepSpeedMlp(nn.Module):
    """DeepSpeed's own MoE layer, top-1 with capacity 1.25, on a world of one process."""

    def __init__(self, width, experts):
        super().__init__()
        import deepspeed
        import torch.distributed
        from deepspeed.moe.layer import MoE

        if not torch.distributed.is_initialized():
            for key, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29577", "RANK": "0", "WORLD_SIZE": "1",
                               "LOCAL_RANK": "0"}.items():
                os.environ.setdefault(key, value)
            deepspeed.init_distributed("gloo")
        self.moe = MoE(width, MlpAlone(width), num_experts=experts, ep_size=1, k=1, capacity_factor=1.25, min_capacity=4,
                       use_rts=False)
        self.moe.set_deepspeed_parallelism()

    def forward(self, x):
        y, balance, _ = self.moe(x)
        return y, balance


class MlpAlone(Mlp):
    def forward(self, x):
        return super().forward(x)[0]


class Block(nn.Module):
    moe = MoeMlp

    def __init__(self, width, heads, experts):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = self.moe(width, experts) if experts else Mlp(width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(self.norm1(x)).split(c, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
        fed, balance = self.mlp(self.norm2(x))
        return x + fed, balance


class Gpt(nn.Module):
    def __init__(self, layers, width, heads, experts, length):
        super().__init__()
        self.token, self.position = nn.Embedding(VOCAB, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, experts if i % 2 else 0) for i in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.token.weight, std=0.02)

    def forward(self, tokens, targets):
        x, balance = self.token(tokens) + self.position.weight[: tokens.shape[1]], 0.0
        for block in self.blocks:
            x, b = block(x)
            balance = balance + b
        logits = F.linear(self.norm(x), self.token.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()) + 0.01 * balance


def measure(name, precision, length, sequences, compiled, device, steps):
    layers, width, heads, experts, default_sequences, default_length = MODELS[name]
    length, sequences = length or default_length, sequences or default_sequences
    torch.manual_seed(1)
    with torch.device(device):
        model = Gpt(layers, width, heads, experts, length)
    if compiled:
        model = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    best = math.inf
    warm_up = 2  # compiles, then fills caches
    for i in range(steps + warm_up):
        tokens = torch.randint(VOCAB, (sequences, length + 1), device=device)
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            loss = model(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        if i >= warm_up:
            best = min(best, time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"tokens_per_second": sequences * length / best, "sequences": sequences, "length": length,
            "device_bytes": memory}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["small_dense", "small_moe"], choices=MODELS)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    parser.add_argument("--length", type=int, default=0, help="tokens of a sequence; 0: the model's own")
    parser.add_argument("--sequences", type=int, default=0, help="of a step; 0: the model's own")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--moe", default="permute", choices=["permute", "deepspeed"])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    Block.moe = DeepSpeedMlp if arguments.moe == "deepspeed" else MoeMlp
    for name in arguments.models:
        for precision in arguments.precisions:
            figures = measure(name, precision, arguments.length, arguments.sequences, arguments.compile,
                              arguments.device, arguments.steps)
            print(json.dumps({"model": name, "precision": precision, "threads": arguments.threads,
                              "torch": torch.__version__, **figures}), flush=True)


if __name__ == "__main__":
    main()
