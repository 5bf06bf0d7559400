#!/usr/bin/env python3
"""Makes tests/golden/data/deepspeed_*.safetensors: what DeepSpeed's own gates and MoE layers compute.

The oracle for "the routing is the paper's": deepspeed.moe.sharded_moe's top1gating, top2gating and topkgating on given
logits, and deepspeed.moe.layer.MoE forwards and backwards, on CPU. At the end the routes that make_gpt_goldens.py has
saved (if they lie in the same folder) are held against DeepSpeed's. Names: tests/golden/data/FORMAT.md.

    python3 -m venv /tmp/gold && DS_BUILD_OPS=0 /tmp/gold/bin/pip install torch deepspeed safetensors numpy
    /tmp/gold/bin/python scripts/golden/make_deepspeed_goldens.py tests/golden/data

The committed files were made with Python 3.11.7, deepspeed 0.19.8, torch 2.15.0, safetensors 0.8.0, numpy 2.4.6.

Facts met on the way, on which the C++ side should not be judged:
- top1gating without random token selection picks the survivors by torch.topk over a 0/1 mask. Ties decide, and they do
  *not* fall to the earliest tokens. Those cases have policy "unspecified": only the number kept per expert is binding.
  Dropping by position is made here by giving random token selection keys that fall with the position.
- top1gating refuses fewer tokens than min_capacity; there are no top-1 cases of that kind.
- topkgating with policy "position" queues whole tokens in order, top2gating all first choices before all second ones.
- The gate always works in float32, so nothing behind it is more exact than that, whatever the experts' type.
"""
import json
import os
import socket
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import multiprocessing

os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed  # noqa: E402
from deepspeed.moe import sharded_moe  # noqa: E402
from deepspeed.moe.layer import MoE  # noqa: E402

CPU = torch.device("cpu")
WIDTH, HIDDEN, EXPERTS, AUX_COEFFICIENT = 16, 32, 4, 0.01
# Float32 implementations may differ in the last bits of a probability; no decision may hang on that.
SMALLEST_MARGIN = 1e-5


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_keys(seed, S, E):
    return torch.rand(S, E, generator=torch.Generator().manual_seed(seed))


def position_keys(S, E):
    """Keys that fall from 1 towards 0 with the position: the largest are the earliest."""
    return (1.0 - torch.arange(S) / (S + 1.0))[:, None].expand(S, E).contiguous()


def use_keys(keys):
    sharded_moe.exp_selection_uniform_map[CPU] = lambda shape: keys.clone()


def use_gumbel(noise):
    sharded_moe.gumbel_map[CPU] = lambda shape: noise.clone()


# ---- Gates ----------------------------------------------------------------------------------------------------------
def call_gate(logits, o, drop, sparse):
    k, cf, room = o["k"], o["capacity_factor"], o["min_capacity"]
    logits = logits.clone()  # top2gating adds its noise in place
    if k == 1:
        rts = drop and o["policy"] != "unspecified"
        return sharded_moe.top1gating(logits, cf, room, drop_tokens=drop, use_rts=rts, sparse_routes=sparse)
    if k == 2:
        noisy = o["noise"] != "none"
        return sharded_moe.top2gating(
            logits, cf, room, drop_tokens=drop, top2_2nd_expert_sampling=noisy, sparse_routes=sparse
        )
    policy = o["policy"] if drop else "probs"
    return sharded_moe.topkgating(logits, k, cf, room, drop_tokens=drop, drop_policy=policy, sparse_routes=sparse)


def decide(logits, o):
    """One gate call as tensors per (token, choice), taken from combine_weights and dispatch_mask [S, E, capacity]."""
    aux, combine, dispatch, counts = call_gate(logits, o, o["drop"], sparse=False)
    expert = call_gate(logits, o, False, sparse=True)[3].T.long()  # no drops: names every choice
    kept = dispatch.any(2).gather(1, expert)
    weight = combine.sum(2).gather(1, expert)
    capacity = int(call_gate(logits, o, o["drop"], sparse=True)[1])
    assert torch.equal(kept, weight > 0) and combine.sum(2).count_nonzero() == kept.sum()
    return dict(
        expert=expert.int(), kept=kept.int(), weight=weight, l_aux=aux.reshape(1), exp_counts=counts.int(),
        capacity=torch.tensor([capacity], dtype=torch.int32),
    )  # fmt: skip


def smallest_gap(logits):
    """Smallest difference between two probabilities of one token, or between two tokens' of one expert."""
    p = torch.softmax(logits, 1)
    gaps = [p.sort(dim=1).values.diff(dim=1)] + ([p.sort(dim=0).values.diff(dim=0)] if len(p) > 1 else [])
    return min(gap.min().item() for gap in gaps)


def spread_logits(S, E):
    """Uneven logits (later experts more popular) on which no decision hangs on rounding."""
    for seed in range(1000):
        logits = random(100 * S + E + 7919 * seed, S, E) + 0.15 * torch.arange(E)
        if smallest_gap(logits) > SMALLEST_MARGIN:
            return logits
    raise RuntimeError("no logits with clear decisions found")


def gate_cases():
    #         S, E, capacity factor, minimum capacity
    shapes = [(33, 4, 0.5, 4), (33, 4, 1.0, 4), (33, 4, 2.0, 4), (33, 8, 1.0, 2), (64, 8, 0.5, 1), (64, 8, 2.0, 4),
              (7, 8, 1.0, 4), (2, 4, 1.0, 4), (1, 4, 1.0, 1)]  # fmt: skip
    variants = [  # k, drop, policy, noise
        (1, True, "unspecified", "none"), (1, True, "rts", "none"), (1, True, "position", "none"),
        (1, False, "none", "none"), (2, True, "position", "none"), (2, True, "position", "gumbel"),
        (2, False, "none", "none"), (3, True, "probs", "none"), (3, True, "position", "none"),
        (3, False, "none", "none"),
    ]  # fmt: skip
    for S, E, cf, room in shapes:
        for k, drop, policy, noise in variants:
            if not (k == 1 and S < room) and (drop or cf == 1.0):
                yield S, E, dict(k=k, capacity_factor=cf, min_capacity=room, drop=drop, policy=policy, noise=noise)


def make_gates(path):
    tensors, facts, names = {}, {}, []
    for S, E, o in gate_cases():
        shape = f"s{S}e{E}"
        logits = tensors.setdefault(f"{shape}.logits", spread_logits(S, E))
        keys = tensors.setdefault(f"{shape}.keys", random_keys(S + E, S, E))
        gumbel = tensors.setdefault(f"{shape}.gumbel", -torch.log(-torch.log(random_keys(3 * S + E, S, E))))
        use_keys(position_keys(S, E) if o["policy"] == "position" else keys)
        use_gumbel(gumbel)
        policy = o["policy"] if o["drop"] else "nodrop"
        name = f"{shape}.cf{o['capacity_factor']}.top{o['k']}.{policy}" + (".gumbel" if o["noise"] != "none" else "")
        names.append(name)
        tensors |= {f"{name}.{key}": value for key, value in decide(logits, o).items()}
        facts |= {f"{name}.{key}": str(int(v) if isinstance(v, bool) else v) for key, v in o.items()}
        facts[f"{name}.shape"] = shape
    save(path, tensors, facts | {"cases": " ".join(names)})
    dropped = sum(int((1 - tensors[f"{name}.kept"]).sum()) for name in names)
    print(f"{path}: {path.stat().st_size} bytes, {len(names)} cases, {dropped} dropped choices")


# ---- Layers ---------------------------------------------------------------------------------------------------------
class Expert(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Linear(WIDTH, HIDDEN)
        self.down = torch.nn.Linear(HIDDEN, WIDTH)

    def forward(self, x):
        return self.down(torch.nn.functional.gelu(self.up(x), approximate="tanh"))


def layer_weights():
    shapes = {
        "moe.router.weight": (EXPERTS, WIDTH),
        "moe.experts.up.weight": (EXPERTS, HIDDEN, WIDTH), "moe.experts.up.bias": (EXPERTS, HIDDEN),
        "moe.experts.down.weight": (EXPERTS, WIDTH, HIDDEN), "moe.experts.down.bias": (EXPERTS, WIDTH),
        "mlp.up.weight": (HIDDEN, WIDTH), "mlp.up.bias": (HIDDEN,),
        "mlp.down.weight": (WIDTH, HIDDEN), "mlp.down.bias": (WIDTH,),
        "moe.coefficient.weight": (2, WIDTH), "moe.coefficient.bias": (2,),
    }  # fmt: skip
    return {name: 0.3 * random(500 + i, *shape) for i, (name, shape) in enumerate(shapes.items())}


def local_parameters(layer, first_expert):
    """(our name, expert index or None, DeepSpeed's parameter) for every parameter that this process holds."""
    yield "moe.router.weight", None, layer.deepspeed_moe.gate.wg.weight
    for i, expert in enumerate(layer.deepspeed_moe.experts.deepspeed_experts):
        for name, p in expert.named_parameters():
            yield f"moe.experts.{name}", first_expert + i, p
    if layer.use_residual:
        for name, p in layer.mlp.named_parameters():
            yield f"mlp.{name}", None, p
        for name, p in layer.coefficient.named_parameters():
            yield f"moe.coefficient.{name}", None, p


def run_layer(o, x, r, rank=0, ep_size=1):
    """Forward and backward of loss = sum(output * r) + 0.01 * l_aux; gradients of absent experts stay zero."""
    S = x.shape[0] * x.shape[1]
    use_keys(position_keys(S, EXPERTS) if o["policy"] == "position" else random_keys(77, S, EXPERTS))
    layer = MoE(
        WIDTH, Expert(), EXPERTS, ep_size, o["k"], capacity_factor=o["capacity_factor"],
        min_capacity=o["min_capacity"], use_residual=o["residual"], drop_tokens=o["drop"], use_rts=o["drop"],
        top2_2nd_expert_sampling=False,
    ).double()  # fmt: skip
    layer.set_deepspeed_parallelism()
    weights = layer_weights()
    parameters = list(local_parameters(layer, rank * EXPERTS // ep_size))
    for name, e, p in parameters:
        p.data.copy_(weights[name] if e is None else weights[name][e])

    x = x.double().requires_grad_()
    y, aux, counts = layer(x)
    ((y * r.double()).sum() + AUX_COEFFICIENT * aux).backward()
    out = {"output": y.detach(), "l_aux": aux.detach().reshape(1), "exp_counts": counts.int(), "grad.x": x.grad}
    for name, e, p in parameters:
        if e is None:
            out[f"grad.{name}"] = p.grad
        else:
            grad = out.setdefault(f"grad.{name}", torch.zeros(weights[name].shape, dtype=torch.float64))
            grad[e] = 0 if p.grad is None else p.grad
    return {key: value if value.dtype == torch.int32 else value.float() for key, value in out.items()}


def layer_cases():
    common = dict(capacity_factor=1.0, min_capacity=2)
    for residual in (False, True):
        kind = "residual" if residual else "plain"
        for k, policy in ((1, "rts"), (1, "position"), (2, "position"), (3, "probs")):
            yield f"k{k}.{policy}.{kind}", common | dict(k=k, drop=True, policy=policy, residual=residual)
        for k in (1, 2, 3):
            yield f"k{k}.nodrop.{kind}", common | dict(k=k, drop=False, policy="none", residual=residual)


EP2_CASE = dict(k=1, capacity_factor=1.0, min_capacity=2, drop=True, policy="position", residual=True)


def layer_inputs(rank):
    return random(300 + rank, 2, 10, WIDTH), random(400 + rank, 2, 10, WIDTH)


def ep2_process(rank, port, folder):
    init(rank, 2, port)
    save_file(run_layer(EP2_CASE, *layer_inputs(rank), rank, ep_size=2), Path(folder) / f"{rank}.safetensors")
    torch.distributed.barrier()  # whoever ends first would take the other's connection along
    torch.distributed.destroy_process_group()


def make_ep2():
    """The same layer with its experts spread over two processes; parameter gradients summed over both."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(ep2_process, (free_port(), folder), nprocs=2)
        ranks = [load_file(Path(folder) / f"{rank}.safetensors") for rank in (0, 1)]
    alone = [run_layer(EP2_CASE, *layer_inputs(rank)) for rank in (0, 1)]
    out, worst = {}, 0.0
    for key in ranks[0]:
        if key.startswith("grad.") and key != "grad.x":
            out[f"ep2.{key}"], expected = ranks[0][key] + ranks[1][key], alone[0][key] + alone[1][key]
            worst = max(worst, (out[f"ep2.{key}"] - expected).abs().max().item())
        else:
            for rank in (0, 1):
                out[f"ep2.rank{rank}.{key}"] = ranks[rank][key]
                worst = max(worst, (ranks[rank][key] - alone[rank][key]).abs().max().item())
    print(f"two processes against one: largest difference {worst:.2e}")
    assert worst < 1e-5
    return out


def make_layers(path):
    tensors = {f"weights.{name}": w for name, w in layer_weights().items()}
    for rank in (0, 1):
        tensors[f"rank{rank}.x"], tensors[f"rank{rank}.r"] = layer_inputs(rank)
        logits = tensors[f"rank{rank}.x"].reshape(-1, WIDTH) @ tensors["weights.moe.router.weight"].T
        assert smallest_gap(logits) > SMALLEST_MARGIN, "a decision hangs on rounding; take another seed"
    tensors["keys"] = random_keys(77, 20, EXPERTS)
    facts, names = {"aux_coefficient": str(AUX_COEFFICIENT)}, []
    for name, o in layer_cases():
        names.append(name)
        tensors |= {f"{name}.{key}": value for key, value in run_layer(o, *layer_inputs(0)).items()}
        facts |= {f"{name}.{key}": str(int(v) if isinstance(v, bool) else v) for key, v in o.items()}
    tensors |= make_ep2()
    facts |= {f"ep2.{key}": str(int(v) if isinstance(v, bool) else v) for key, v in EP2_CASE.items()}
    for dropping, free in (("k1.rts", "k1.nodrop"), ("k2.position", "k2.nodrop"), ("k3.probs", "k3.nodrop")):
        difference = tensors[f"{dropping}.plain.output"] - tensors[f"{free}.plain.output"]
        assert difference.abs().max() > 0.1, f"{dropping}: nothing was dropped; take another seed"
    save(path, tensors, facts | {"cases": " ".join(names)})
    print(f"{path}: {path.stat().st_size} bytes, {len(names)} cases and ep2")


# ---- The independent router of make_gpt_goldens.py against DeepSpeed's ----------------------------------------------
def compare_saved_routes(path):
    with safe_open(path, "pt") as file:
        facts, names = file.metadata(), set(file.keys())
        routes = {
            name.split(".")[1]: {key: file.get_tensor(f"route.{name.split('.')[1]}.{key}")
                                 for key in ("logits", "expert", "kept", "weight", "aux", "capacity")}
            for name in names if name.startswith("route.") and name.endswith(".logits")
        }  # fmt: skip
    o = dict(k=int(facts["top_k"]), capacity_factor=float(facts["capacity_factor"]),
             min_capacity=int(facts["min_capacity"]), drop=True, policy="position", noise="none")  # fmt: skip
    for layer, saved in sorted(routes.items()):
        use_keys(position_keys(*saved["logits"].shape))
        ours = decide(saved["logits"].float(), o)
        for key in ("expert", "kept", "capacity"):
            assert torch.equal(ours[key], saved[key]), f"{path} layer {layer}: {key} differs"
        weight = (ours["weight"] - saved["weight"]).abs().max().item()
        aux = (ours["l_aux"] - saved["aux"]).abs().item()
        print(f"{path.name} layer {layer}: same experts and drops; weights differ by {weight:.1e}, aux by {aux:.1e}")
        assert max(weight, aux) < 1e-6


# ---- Plumbing -------------------------------------------------------------------------------------------------------
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


def save(path, tensors, facts):
    versions = {"deepspeed": deepspeed.__version__.split("+")[0], "torch": torch.__version__.split("+")[0]}
    write(path, tensors, {key: str(value) for key, value in (facts | versions).items()})


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def init(rank, world, port):
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    os.environ.update(zip(names, map(str, ("127.0.0.1", port, rank, world, rank))))
    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo")


def main():
    folder = Path(sys.argv[1])
    init(0, 1, free_port())
    make_gates(folder / "deepspeed_gates.safetensors")
    make_layers(folder / "deepspeed_layers.safetensors")
    for path in sorted(folder.glob("gpt_*moe*.safetensors")):
        compare_saved_routes(path)


if __name__ == "__main__":
    main()
