#!/usr/bin/env python3
"""Makes tests/golden/data/gpt_*.safetensors: tiny GPT models trained for six steps in plain PyTorch, float64, CPU.

The oracle for "the whole model is right": initial weights, tokens, logits, gradients, per-step losses and norms, final
weights. It is made from the written definition of the models, with no code from the C++ side and none from DeepSpeed.
The tensor names are described in tests/golden/data/FORMAT.md.

    python3 -m venv /tmp/gold && /tmp/gold/bin/pip install torch safetensors numpy
    /tmp/gold/bin/python scripts/golden/make_gpt_goldens.py tests/golden/data

The committed files were made with Python 3.11.7, torch 2.15.0, safetensors 0.8.0, numpy 2.4.6; gpt_prefixes
with torch 1.13.0, which makes the others within 3e-14 of what they are.
"""
import json
import math
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

STEPS, MICROS = 6, 2
LR, BETAS, EPS, DECAY, CLIP, AUX_COEFFICIENT = 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0, 0.01
NORM_EPS, ROPE_THETA = 1e-5, 10000.0
EOD = 5  # of packed documents
# A float32 run of the same model must take the same routing decisions: no choice may hang on less than this
# difference of probabilities.
SMALLEST_ROUTER_MARGIN = 1e-5
NEWER = (
    "four_matrices sequential summed attention_scale head_dim raw_weights without_top_k group_tokens all_choices "
    "z_coefficient dropless sigmoid weight_scale expert_groups chosen_groups bias_rate "
    "window prefixes z_loss label_smoothing"
).split()


@dataclass(frozen=True)
class Model:
    name: str
    layers: tuple  # per layer: ("dense",) or (kind, experts) with kind "moe" or "residual_moe"
    seed: int
    top_k: int = 1
    capacity_factor: float = 1.0
    min_capacity: int = 2
    packed: str = ""  # what begins anew after the end of a document: "positions", "attention", or both words
    qk_norm: str = ""  # RMSNorm of queries and keys: over each "head", or over the "width" of all heads
    modern: bool = False  # RMSNorm, RoPE, SwiGLU and no biases instead of LayerNorm, learned positions and tanh-GELU
    # Of OpenMoE (arXiv 2402.01739) as its code has it, and of DeepSeek-V3 (arXiv 2412.19437).
    four_matrices: bool = False  # down(silu(gate) * value * up)
    sequential: bool = False  # the MLP of a residual layer after the experts, with a norm of its own
    summed: bool = False  # experts + MLP in a residual layer
    attention_scale: float = 0.0  # of scores; 0: 1 / sqrt(head_dim)
    head_dim: int = 0  # 0: width / heads
    raw_weights: bool = False  # weights are not divided by their sum, whatever top_k is
    without_top_k: bool = False  # capacity round(S / E * capacity_factor)
    group_tokens: int = 0  # capacity and aux are those of each run of so many tokens; 0: of all
    all_choices: bool = False  # aux counts all choices, divided by top_k
    z_coefficient: float = 0.0  # of the router's z-loss
    dropless: bool = False
    sigmoid: bool = False  # scores instead of probabilities
    weight_scale: float = 1.0
    expert_groups: int = 1
    chosen_groups: int = 1
    bias_rate: float = 0.0  # not 0: experts are chosen by score + bias, which moves by it after each step
    window: int = 0  # a token sees so many at most, the last its own; 0: all
    prefixes: tuple = ()  # of each sequence of a micro-batch: so many first tokens that see all of each other
    z_loss: float = 0.0  # coefficient of logsumexp^2 of a token's logits
    label_smoothing: float = 0.0
    vocabulary: int = 64
    sequence: int = 12
    width: int = 16
    heads: int = 2
    kv_heads: int = 2
    hidden: int = 32
    batch: int = 3  # sequences per micro-batch


MODELS = [
    Model("dense", (("dense",), ("dense",)), seed=11),
    Model("moe_top1", (("dense",), ("moe", 4)), seed=12),
    Model("moe_top2", (("dense",), ("moe", 4)), seed=13, top_k=2),
    Model("pr_moe", (("dense",), ("residual_moe", 2), ("dense",), ("residual_moe", 4)), seed=14),
    Model("modern", (("dense",), ("dense",)), seed=15, modern=True),
    Model("packed", (("dense",), ("dense",)), seed=16, packed="positions attention"),
    Model("packed_modern", (("dense",), ("dense",)), seed=17, packed="positions", modern=True),
    Model("qk_norm_head", (("dense",), ("dense",)), seed=18, qk_norm="head", modern=True, heads=4),
    Model("qk_norm_width", (("dense",), ("moe", 4)), seed=19, qk_norm="width", heads=4),
    Model("openmoe", (("dense",), ("residual_moe", 4)), seed=20, modern=True, four_matrices=True, sequential=True,
          attention_scale=1.0, head_dim=6, top_k=2, raw_weights=True, without_top_k=True, group_tokens=12,
          capacity_factor=1.25, all_choices=True, z_coefficient=0.001),
    Model("sigmoid", (("dense",), ("residual_moe", 8)), seed=22, modern=True, summed=True, top_k=3, dropless=True,
          all_choices=True, sigmoid=True, weight_scale=2.5, expert_groups=4, chosen_groups=2, bias_rate=0.05),
    Model("prefixes", (("dense",), ("dense",)), seed=23, modern=True, window=4, prefixes=(7, 0, 3), z_loss=0.01,
          label_smoothing=0.1),
]


# ---- Parameters -----------------------------------------------------------------------------------------------------
def parameter_shapes(m):
    V, T, C, H = m.vocabulary, m.sequence, m.width, m.hidden
    shapes = {"embed.token.weight": (V, C)}

    def linear(name, rows, columns):
        shapes[f"{name}.weight"] = (rows, columns)
        if not m.modern:
            shapes[f"{name}.bias"] = (rows,)

    def norm(name):
        shapes[f"{name}.weight"] = (C,)
        if not m.modern:
            shapes[f"{name}.bias"] = (C,)

    if not m.modern:
        shapes["embed.position.weight"] = (T, C)
    for i, (kind, *experts) in enumerate(m.layers):
        b = f"blocks.{i}"
        norm(f"{b}.norm1")
        d = m.head_dim or C // m.heads
        linear(f"{b}.attention.qkv", (m.heads + 2 * m.kv_heads) * d, C)
        if m.qk_norm:
            for part, heads in (("q", m.heads), ("k", m.kv_heads)):
                shapes[f"{b}.attention.{part}_norm.weight"] = (d if m.qk_norm == "head" else heads * d,)
        linear(f"{b}.attention.out", C, m.heads * d)
        norm(f"{b}.norm2")
        if kind != "moe":
            if m.modern:
                linear(f"{b}.mlp.gate", H, C)
            if m.four_matrices:
                linear(f"{b}.mlp.value", H, C)
            linear(f"{b}.mlp.up", H, C)
            linear(f"{b}.mlp.down", C, H)
        if kind != "dense":
            E = experts[0]
            shapes[f"{b}.moe.router.weight"] = (E, C)
            if m.bias_rate:
                shapes[f"{b}.moe.router.balance_bias"] = (E,)
            for part in ("gate",) * m.modern + ("value",) * m.four_matrices + ("up",):
                shapes[f"{b}.moe.experts.{part}.weight"] = (E, H, C)
                if not m.modern:
                    shapes[f"{b}.moe.experts.{part}.bias"] = (E, H)
            shapes[f"{b}.moe.experts.down.weight"] = (E, C, H)
            if not m.modern:
                shapes[f"{b}.moe.experts.down.bias"] = (E, C)
        if kind == "residual_moe" and m.sequential:
            norm(f"{b}.norm3")
        if kind == "residual_moe" and not (m.sequential or m.summed):
            linear(f"{b}.moe.coefficient", 2, C)
    norm("final_norm")
    return shapes


def initial_parameters(m):
    """Large, nothing zero or one, so that a forgotten bias or norm weight shows. Exact in float32."""
    rng = torch.Generator().manual_seed(m.seed)
    parameters = {}
    for name, shape in parameter_shapes(m).items():
        value = 0.3 * torch.randn(shape, generator=rng, dtype=torch.float64)
        if "norm" in name and name.endswith("weight"):
            value += 1.0
        parameters[name] = value.float().double().requires_grad_(not name.endswith("balance_bias"))
    return parameters


def decays(name, parameter):
    return parameter.dim() >= 2 and not name.endswith("bias")  # stacked expert biases have two dims and are biases


# ---- Forward --------------------------------------------------------------------------------------------------------
class Forward:
    """One micro-batch through the model; keeps the routing of every MoE layer."""

    def __init__(self, model, parameters):
        self.m, self.p = model, parameters
        self.routes = {}  # layer -> dict(logits, expert, kept, weight, aux)

    def linear(self, name, x):
        y = x @ self.p[f"{name}.weight"].T
        return y if self.m.modern else y + self.p[f"{name}.bias"]

    def rms(self, name, x):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + NORM_EPS) * self.p[f"{name}.weight"]

    def norm(self, name, x):
        if self.m.modern:
            return self.rms(name, x)
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + NORM_EPS) * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def look(self, tokens):
        """Sets the positions, [T] or [B, T], and what every token must not attend to, [T, T] or [B, 1, T, T]."""
        T = tokens.shape[1]
        self.positions = torch.arange(T)
        self.hidden = torch.triu(torch.ones(T, T, dtype=torch.bool), diagonal=1)
        ends = (tokens == EOD).long()
        document = ends.cumsum(1) - ends  # how many have ended before this token
        same = document[:, :, None] == document[:, None, :]
        if "positions" in self.m.packed:
            self.positions = (same & ~self.hidden).sum(-1) - 1  # how many tokens of its document came before
        if "attention" in self.m.packed:
            self.hidden = (self.hidden | ~same)[:, None]
        if self.m.prefixes:
            within = torch.arange(T) < torch.tensor(self.m.prefixes)[:, None]
            self.hidden = (self.hidden & ~(within[:, :, None] & within[:, None, :]))[:, None]
        if self.m.window:
            self.hidden = self.hidden | (torch.arange(T)[:, None] - torch.arange(T) >= self.m.window)

    def rotate(self, x):  # [B, heads, T, d]: element j turns with element j + d/2
        d = x.shape[-1]
        frequency = ROPE_THETA ** (-2.0 * torch.arange(d // 2, dtype=torch.float64) / d)
        angle = (self.positions.double()[..., None] * frequency).unsqueeze(-3)
        cos, sin = torch.cos(angle), torch.sin(angle)
        a, b = x[..., : d // 2], x[..., d // 2 :]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, name, x):
        B, T, C = x.shape
        d, heads, kv_heads = self.m.head_dim or C // self.m.heads, self.m.heads, self.m.kv_heads
        q, k, v = self.linear(f"{name}.qkv", x).split([heads * d, kv_heads * d, kv_heads * d], -1)
        if self.m.qk_norm == "width":
            q, k = self.rms(f"{name}.q_norm", q), self.rms(f"{name}.k_norm", k)
        q, k, v = (part.reshape(B, T, -1, d).transpose(1, 2) for part in (q, k, v))
        if self.m.qk_norm == "head":
            q, k = self.rms(f"{name}.q_norm", q), self.rms(f"{name}.k_norm", k)
        if self.m.modern:
            q, k = self.rotate(q), self.rotate(k)
        # Neighbouring query heads share a key head.
        k, v = (part.repeat_interleave(heads // kv_heads, dim=1) for part in (k, v))
        scores = q @ k.transpose(-1, -2) * (self.m.attention_scale or 1 / math.sqrt(d))
        weights = torch.softmax(scores.masked_fill(self.hidden, -math.inf), -1)
        return self.linear(f"{name}.out", (weights @ v).transpose(1, 2).reshape(B, T, heads * d))

    def mlp(self, name, x):
        if self.m.modern:
            gate = self.linear(f"{name}.gate", x)
            h = gate * torch.sigmoid(gate) * self.linear(f"{name}.up", x)
            if self.m.four_matrices:
                h = h * self.linear(f"{name}.value", x)
            return self.linear(f"{name}.down", h)
        return self.linear(f"{name}.down", F.gelu(self.linear(f"{name}.up", x), approximate="tanh"))

    def experts(self, name, x, route):
        p, y = self.p, torch.zeros_like(x)
        for s in range(x.shape[0]):  # token by token: slow, and plainly right
            for j in range(route["expert"].shape[1]):
                if route["kept"][s, j]:
                    e = route["expert"][s, j]
                    y[s] = y[s] + route["weight"][s, j] * self.expert(name, e, x[s])
        return y

    def expert(self, name, e, x):
        p = self.p
        if self.m.modern:
            gate = p[f"{name}.gate.weight"][e] @ x
            h = gate * torch.sigmoid(gate) * (p[f"{name}.up.weight"][e] @ x)
            if self.m.four_matrices:
                h = h * (p[f"{name}.value.weight"][e] @ x)
            return p[f"{name}.down.weight"][e] @ h
        h = p[f"{name}.up.weight"][e] @ x + p[f"{name}.up.bias"][e]
        return p[f"{name}.down.weight"][e] @ F.gelu(h, approximate="tanh") + p[f"{name}.down.bias"][e]

    def feed_forward(self, i, kind, x):
        b = f"blocks.{i}"
        if kind == "dense":
            return self.mlp(f"{b}.mlp", x)
        x_SC = x.reshape(-1, x.shape[-1])
        bias = self.p.get(f"{b}.moe.router.balance_bias")
        self.routes[i] = route(self.m, x_SC @ self.p[f"{b}.moe.router.weight"].T, bias)
        y = self.experts(f"{b}.moe.experts", x_SC, self.routes[i])
        if kind == "residual_moe" and self.m.summed:
            y = y + self.mlp(f"{b}.mlp", x_SC)
        elif kind == "residual_moe" and not self.m.sequential:
            c = torch.softmax(self.linear(f"{b}.moe.coefficient", x_SC), -1)
            y = c[:, :1] * y + c[:, 1:] * self.mlp(f"{b}.mlp", x_SC)
        return y.reshape(x.shape)

    def logits(self, tokens):
        self.look(tokens)
        x = self.p["embed.token.weight"][tokens]
        if not self.m.modern:
            x = x + self.p["embed.position.weight"][self.positions]
        for i, (kind, *_) in enumerate(self.m.layers):
            x = x + self.attention(f"blocks.{i}.attention", self.norm(f"blocks.{i}.norm1", x))
            x = x + self.feed_forward(i, kind, self.norm(f"blocks.{i}.norm2", x))
            if kind == "residual_moe" and self.m.sequential:
                x = x + self.mlp(f"blocks.{i}.mlp", self.norm(f"blocks.{i}.norm3", x))
        return self.norm("final_norm", x) @ self.p["embed.token.weight"].T


# ---- Router ---------------------------------------------------------------------------------------------------------
def choose(m, scores, bias):
    """The top_k experts of every token, best first, and by how much the last one beat the next."""
    by = scores.detach() if bias is None else scores.detach() + bias
    if m.chosen_groups < m.expert_groups:
        grouped = by.reshape(len(by), m.expert_groups, -1)
        best = grouped.sort(dim=-1, descending=True).values[..., : 2 if m.sigmoid else 1].sum(-1)
        of_groups = best.sort(dim=-1, descending=True)
        margin = (of_groups.values[:, m.chosen_groups - 1] - of_groups.values[:, m.chosen_groups]).min().item()
        assert margin > SMALLEST_ROUTER_MARGIN, f"{m.name}: the choice of a group hangs on {margin}; take another seed"
        for s in range(len(by)):
            for group in of_groups.indices[s, m.chosen_groups :]:
                grouped[s, group] = -math.inf
        by = grouped.reshape(len(by), -1)
    ranked = torch.sort(by, dim=-1, descending=True)
    gaps = ranked.values[:, : m.top_k] - ranked.values[:, 1 : m.top_k + 1]
    return ranked.indices[:, : m.top_k], gaps.min().item() if by.shape[1] > m.top_k else 1.0


def route(m, logits, bias=None):
    """Choices 0..k-1 of every token, which of them found room, and with what weight they count (0 if dropped)."""
    S, E = logits.shape
    scores = torch.sigmoid(logits) if m.sigmoid else torch.softmax(logits, -1)
    probabilities = scores / scores.sum(-1, keepdim=True)
    expert, margin = choose(m, scores, bias)
    assert margin > SMALLEST_ROUTER_MARGIN, f"{m.name}: a routing decision hangs on {margin}; take another seed"

    group = m.group_tokens or S
    share = group / E * m.capacity_factor
    capacity = max(round(share) if m.without_top_k else math.ceil(share * m.top_k), m.min_capacity)
    kept = torch.zeros(S, m.top_k, dtype=torch.bool)
    for begin in range(0, S, group):
        used = [0] * E
        for j in range(m.top_k):  # every token's first choice queues before anybody's second choice
            for s in range(begin, begin + group):
                kept[s, j] = m.dropless or used[expert[s, j]] < capacity
                used[expert[s, j]] += 1

    weight = scores.gather(1, expert) * kept
    if m.top_k > 1 and not m.raw_weights:
        weight = weight / weight.sum(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).eps)
    weight = m.weight_scale * weight
    chosen = F.one_hot(expert, E).double()
    counted = chosen.mean(1) if m.all_choices else chosen[:, 0]
    aux = 0
    for begin in range(0, S, group):
        part = slice(begin, begin + group)
        aux = aux + E * (probabilities[part].mean(0) * counted[part].mean(0)).sum() * group / S
    z = torch.logsumexp(logits, -1).square().mean()
    loads = chosen.sum((0, 1))
    return dict(logits=logits, expert=expert, kept=kept, weight=weight, aux=aux, capacity=capacity, z=z, loads=loads)


# ---- Training -------------------------------------------------------------------------------------------------------
def train(m):
    parameters = initial_parameters(m)
    out = {f"init.{name}": p.detach().float() for name, p in parameters.items()}
    rng = torch.Generator().manual_seed(1000 + m.seed)
    tokens = torch.randint(0, m.vocabulary, (STEPS, MICROS, m.batch, m.sequence + 1), generator=rng)
    if m.packed:
        tokens[torch.rand(tokens.shape, generator=rng) < 0.25] = EOD
    out["tokens"] = tokens.int()

    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in trained.items() if decays(n, p)], "weight_decay": DECAY},
            {"params": [p for n, p in trained.items() if not decays(n, p)], "weight_decay": 0.0},
        ],
        lr=LR, betas=BETAS, eps=EPS,
    )  # fmt: skip
    curves = {"loss.ce": [], "loss.aux": [], "loss.total": [], "grad_norm": []}
    curves |= {"loss.z": []} if m.z_coefficient else {}
    curves |= {"loss.head": []} if m.z_loss else {}
    drops = 0
    for step in range(STEPS):
        optimizer.zero_grad()
        ce_sum, aux_sum, z_sum, head_sum = 0.0, 0.0, 0.0, 0.0
        loads = {}  # of every layer, over the step
        for micro in range(MICROS):
            forward = Forward(m, parameters)
            logits = forward.logits(tokens[step, micro, :, :-1])
            of_tokens = logits.reshape(-1, m.vocabulary), tokens[step, micro, :, 1:].reshape(-1)
            ce = F.cross_entropy(*of_tokens)
            head = F.cross_entropy(*of_tokens, label_smoothing=m.label_smoothing) - ce
            head = head + m.z_loss * torch.logsumexp(of_tokens[0], -1).square().mean()
            aux = sum((r["aux"] for r in forward.routes.values()), torch.zeros((), dtype=torch.float64))
            z = sum((r["z"] for r in forward.routes.values()), torch.zeros((), dtype=torch.float64))
            ((ce + head + AUX_COEFFICIENT * aux + m.z_coefficient * z) / MICROS).backward()
            ce_sum, aux_sum = ce_sum + ce.item() / MICROS, aux_sum + aux.item() / MICROS
            z_sum, head_sum = z_sum + z.item() / MICROS, head_sum + head.item() / MICROS
            for i, r in forward.routes.items():
                loads[i] = loads.get(i, 0) + r["loads"]
            drops += sum((~r["kept"]).sum().item() for r in forward.routes.values())
            if step == 0 and micro == 0:
                out["logits"] = logits.detach()
                for i, r in forward.routes.items():
                    out[f"route.{i}.logits"] = r["logits"].detach()
                    out[f"route.{i}.weight"] = r["weight"].detach()
                    out[f"route.{i}.aux"] = r["aux"].detach().reshape(1)
                    out[f"route.{i}.expert"] = r["expert"].int()
                    out[f"route.{i}.kept"] = r["kept"].int()
                    out[f"route.{i}.capacity"] = torch.tensor([r["capacity"]], dtype=torch.int32)
        if step == 0:
            out |= {f"grad.{name}": p.grad.clone() if p.requires_grad else torch.zeros_like(p)
                    for name, p in parameters.items()}  # fmt: skip
        norm = math.sqrt(sum((p.grad * p.grad).sum().item() for p in trained.values()))
        for p in trained.values():
            p.grad *= min(1.0, CLIP / norm)
        optimizer.step()
        for i, load in loads.items():
            if m.bias_rate:  # arXiv 2408.15664, algorithm 1
                parameters[f"blocks.{i}.moe.router.balance_bias"] += m.bias_rate * torch.sign(load.mean() - load)
        total = ce_sum + head_sum + AUX_COEFFICIENT * aux_sum + m.z_coefficient * z_sum
        for key, value in (("ce", ce_sum), ("aux", aux_sum), ("total", total), ("z", z_sum), ("head", head_sum)):
            if f"loss.{key}" in curves:
                curves[f"loss.{key}"].append(value)
        curves["grad_norm"].append(norm)
    out |= {key: torch.tensor(values, dtype=torch.float64) for key, values in curves.items()}
    out |= {f"final.{name}": p.detach().float() for name, p in parameters.items()}
    if any(kind != "dense" for kind, *_ in m.layers) and not m.dropless:
        assert drops > 0, f"{m.name}: no token was dropped; take another seed"
    assert min(curves["grad_norm"]) > CLIP, f"{m.name}: clipping never acts"
    return out, drops


def metadata(m, drops):
    facts = asdict(m) | dict(
        layers=" ".join(":".join(map(str, layer)) for layer in m.layers), steps=STEPS, micro_batches=MICROS, lr=LR,
        beta1=BETAS[0], beta2=BETAS[1], adam_eps=EPS, weight_decay=DECAY, clip=CLIP, aux_coefficient=AUX_COEFFICIENT,
        norm_eps=NORM_EPS, rope_theta=ROPE_THETA, dropped_choices=drops, torch=torch.__version__.split("+")[0],
    )  # fmt: skip
    facts["prefixes"] = " ".join(map(str, m.prefixes))
    if m.packed:
        facts["eod"] = EOD
    if m.kv_heads == m.heads:
        del facts["kv_heads"]
    for field in fields(m):  # what only the newer models have
        if field.name in NEWER and getattr(m, field.name) == field.default:
            del facts[field.name]
    return {key: str(value) for key, value in facts.items() if value != ""}


def write(path, tensors, facts):
    """safetensors writes its metadata in random order; sorted, the same numbers always give the same file."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, facts)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    assert len(text) == length
    path.write_bytes(content[:8] + text + content[8 + length :])


def main():
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    for m in MODELS:
        tensors, drops = train(m)
        path = folder / f"gpt_{m.name}.safetensors"
        write(path, tensors, metadata(m, drops))
        losses = [f"{x:.4f}" for x in tensors["loss.total"].tolist()]
        print(f"{path}: {path.stat().st_size} bytes, {drops} dropped choices, losses {' '.join(losses)}")


if __name__ == "__main__":
    main()
