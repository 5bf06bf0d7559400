#!/usr/bin/env python3
"""Milliseconds a step of writing texts with the models of configs/bench, in PyTorch, eager, with a cache of keys and
values: the baseline of DeepSpeed-MoE's inference (arXiv 2201.05596, section 5). One JSON line.

pytorch_decode.py MODEL [--experts N] [--texts B] [--context T] [--tokens N] [--rounds N] [--precision fp32|bf16]
                  [--moe deepspeed|lean] [--threads N]

--moe deepspeed: DeepSpeed's gate, and its dense one-hot einsums around a loop over all experts, as its PyTorch code runs
(deepspeed/moe/sharded_moe.py, experts.py). --moe lean: each row's expert by index, no others are touched.
"""
import argparse
import json
import math
import time

import torch
import torch.nn.functional as F
from torch import nn

VOCAB = 50304
MODELS = {"small_dense": (6, 384, 6, 0), "small_moe": (6, 384, 6, 8), "gpt2_124m": (12, 768, 12, 0)}


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Gate(nn.Module):
    def __init__(self, width, experts):
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Mlp(width) for _ in range(experts))


class DeepSpeedMlp(Gate):
    def forward(self, x):
        S, E = x.shape[0], len(self.experts)
        gates = F.softmax(F.linear(x.float(), self.router.weight.float()), dim=1)
        capacity = max(math.ceil(S / E), 4)  # min_capacity
        mask = F.one_hot(gates.argmax(dim=1), num_classes=E)
        locations = torch.cumsum(mask, dim=0) - 1
        mask = mask * torch.lt(locations, capacity)
        places = F.one_hot(torch.sum(locations * mask, dim=1), num_classes=capacity).float()
        combine = torch.einsum("se,sc->sec", gates * mask.float(), places)
        rows = torch.einsum("sec,sm->ecm", combine.bool().type_as(x), x)
        out = torch.cat([expert(rows[e:e + 1]) for e, expert in enumerate(self.experts)])
        return torch.einsum("sec,ecm->sm", combine.type_as(x), out)


class LeanMlp(Gate):
    def forward(self, x):
        weight, expert = F.softmax(F.linear(x.float(), self.router.weight.float()), dim=1).max(dim=1)
        if x.shape[0] == 1:
            return self.experts[int(expert)](x) * weight[:, None].type_as(x)
        y = torch.empty_like(x)
        for e in expert.unique().tolist():
            rows = (expert == e).nonzero()[:, 0]
            y[rows] = self.experts[e](x[rows])
        return y * weight[:, None].type_as(x)


class Block(nn.Module):
    def __init__(self, width, heads, ffn):
        super().__init__()
        self.heads, self.ffn = heads, ffn
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, cache, at):  # x [B, T, C]
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        cache[0][:, :, at:at + T], cache[1][:, :, at:at + T] = k, v
        y = F.scaled_dot_product_attention(q, cache[0][:, :, :at + T], cache[1][:, :, :at + T], is_causal=T > 1)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        return x + self.ffn(self.norm2(x).flatten(0, 1)).view(B, T, C)


class Gpt(nn.Module):
    def __init__(self, layers, width, heads, experts, moe):
        super().__init__()
        kind = DeepSpeedMlp if moe == "deepspeed" else LeanMlp
        self.tokens, self.places = nn.Embedding(VOCAB, width), nn.Embedding(1024, width)
        self.blocks = nn.ModuleList(
            Block(width, heads, kind(width, experts) if experts and i % 2 else Mlp(width)) for i in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens, caches, at):
        x = self.tokens(tokens) + self.places(torch.arange(at, at + tokens.shape[1]))
        for block, cache in zip(self.blocks, caches):
            x = block(x, cache, at)
        return F.linear(self.norm(x[:, -1]), self.tokens.weight).float()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("model", choices=MODELS)
    p.add_argument("--experts", type=int)
    for name, value in (("texts", 1), ("context", 128), ("tokens", 32), ("rounds", 3), ("threads", 2)):
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    p.add_argument("--moe", choices=("deepspeed", "lean"), default="deepspeed")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    layers, width, heads, experts = MODELS[a.model]
    experts = experts if a.experts is None else a.experts
    dtype = torch.float32 if a.precision == "fp32" else torch.bfloat16
    model = Gpt(layers, width, heads, experts, a.moe).to(dtype).eval()
    caches = [torch.zeros(2, a.texts, heads, a.context + a.tokens, width // heads, dtype=dtype) for _ in range(layers)]
    context = torch.randint(VOCAB, (a.texts, a.context))
    step, read = math.inf, math.inf
    with torch.inference_mode():
        for _ in range(a.rounds + 1):  # the first warms up, and the fastest counts
            began = time.perf_counter()
            token = model(context, caches, 0).argmax(-1, keepdim=True)
            middle = time.perf_counter()
            for i in range(a.tokens):
                token = model(token, caches, a.context + i).argmax(-1, keepdim=True)
            read = min(read, middle - began)
            step = min(step, (time.perf_counter() - middle) / a.tokens)
    print(json.dumps({"model": a.model, "experts": experts, "texts": a.texts, "moe": a.moe, "precision": a.precision,
                      "seconds_per_step": step, "prefill_tokens_per_second": a.texts * a.context / read}))


main()
