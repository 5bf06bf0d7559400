#!/usr/bin/env python3
"""Makes tests/golden/data/distillation.safetensors: a tiny student that learns from a frozen teacher for three steps and
from next tokens alone for three more, in plain PyTorch, float64, CPU.

The oracle for objective/distillation.h. Models are those of make_gpt_goldens.py; the divergence is torch's own kl_div.
The tensor names are described in tests/golden/data/FORMAT.md.

    python3 -m venv /tmp/gold && /tmp/gold/bin/pip install torch safetensors numpy
    /tmp/gold/bin/python scripts/golden/make_distillation_goldens.py tests/golden/data

The committed file was made with Python 3.11, torch 2.15.0.
"""
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from make_gpt_goldens import (AUX_COEFFICIENT, BETAS, CLIP, DECAY, EPS, LR, MICROS, NORM_EPS, STEPS, Forward, Model,
                              decays, initial_parameters, write)

UNTIL, WEIGHT, TEMPERATURE = 3, 0.7, 2.0  # steps with the teacher
STUDENT = Model("student", (("dense",), ("residual_moe", 2)), seed=31)
# As in evaluation: no expert drops a token. Wider, deeper, and with other experts than the student.
TEACHER = Model("teacher", (("dense",), ("moe", 4), ("dense",)), seed=32, width=24, hidden=40, capacity_factor=100.0)


def divergence(student, teacher):
    """Summed over tokens. kl_div(input, target) is KL(target || input), of logarithms."""
    log_q = F.log_softmax(student / TEMPERATURE, -1)
    log_p = F.log_softmax(teacher / TEMPERATURE, -1)
    return TEMPERATURE**2 * F.kl_div(log_q, log_p, reduction="sum", log_target=True)


def main(folder):
    taught = {name: p.detach() for name, p in initial_parameters(TEACHER).items()}
    parameters = initial_parameters(STUDENT)
    out = {f"init.{name}": p.detach().float() for name, p in parameters.items()}
    out |= {f"teacher.{name}": p.float() for name, p in taught.items()}
    rng = torch.Generator().manual_seed(1031)
    tokens = torch.randint(0, STUDENT.vocabulary, (STEPS, MICROS, STUDENT.batch, STUDENT.sequence + 1), generator=rng)
    out["tokens"] = tokens.int()
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in parameters.items() if decays(n, p)], "weight_decay": DECAY},
            {"params": [p for n, p in parameters.items() if not decays(n, p)], "weight_decay": 0.0},
        ],
        lr=LR, betas=BETAS, eps=EPS,
    )  # fmt: skip
    curves = {"loss.ce": [], "loss.distillation": [], "loss.balance": [], "grad_norm": []}
    count = STUDENT.batch * STUDENT.sequence * MICROS
    for step in range(STEPS):
        optimizer.zero_grad()
        sums = [0.0, 0.0, 0.0]
        weight = WEIGHT if step < UNTIL else 0.0
        for micro in range(MICROS):
            forward = Forward(STUDENT, parameters)
            inputs, targets = tokens[step, micro, :, :-1], tokens[step, micro, :, 1:]
            logits = forward.logits(inputs)
            with torch.no_grad():
                wanted = Forward(TEACHER, taught).logits(inputs)
            ce = F.cross_entropy(logits.reshape(-1, STUDENT.vocabulary), targets.reshape(-1), reduction="sum") / count
            kd = weight * divergence(logits, wanted) / count
            balance = AUX_COEFFICIENT * sum(r["aux"] for r in forward.routes.values()) / MICROS
            (ce + kd + balance).backward()
            sums = [before + part.item() for before, part in zip(sums, (ce, kd, balance))]
        if step == 0:
            out |= {f"grad.{name}": p.grad.clone() for name, p in parameters.items()}
        norm = math.sqrt(sum((p.grad * p.grad).sum().item() for p in parameters.values()))
        for p in parameters.values():
            p.grad *= min(1.0, CLIP / norm)
        optimizer.step()
        for key, value in zip(curves, (*sums, norm)):
            curves[key].append(value)
    out |= {key: torch.tensor(values, dtype=torch.float64) for key, values in curves.items()}
    out |= {f"final.{name}": p.detach().float() for name, p in parameters.items()}
    facts = dict(
        steps=STEPS, micro_batches=MICROS, until=UNTIL, weight=WEIGHT, temperature=TEMPERATURE, lr=LR, beta1=BETAS[0],
        beta2=BETAS[1], adam_eps=EPS, weight_decay=DECAY, clip=CLIP, aux_coefficient=AUX_COEFFICIENT, norm_eps=NORM_EPS,
        torch=torch.__version__.split("+")[0],
    )  # fmt: skip
    for m in (STUDENT, TEACHER):
        facts[f"{m.name}_layers"] = " ".join(":".join(map(str, layer)) for layer in m.layers)
        facts[f"{m.name}_width"], facts[f"{m.name}_hidden"] = m.width, m.hidden
    facts |= dict(vocabulary=STUDENT.vocabulary, sequence=STUDENT.sequence, heads=STUDENT.heads, batch=STUDENT.batch,
                  capacity_factor=STUDENT.capacity_factor, min_capacity=STUDENT.min_capacity)  # fmt: skip
    write(Path(folder) / "distillation.safetensors", out, {key: str(value) for key, value in facts.items()})
    print("ce", curves["loss.ce"], "kd", curves["loss.distillation"], "norm", curves["grad_norm"])


if __name__ == "__main__":
    main(sys.argv[1])
