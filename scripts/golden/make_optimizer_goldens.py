#!/usr/bin/env python3
"""Makes tests/golden/data/optimizers.safetensors: matrices after four updates by optimizers that others wrote.

The oracle for Lion (package lion-pytorch), Muon and Adafactor (torch.optim). Muon there makes matrices orthogonal in
bfloat16, so that it agrees to a percent only.

    python3 -m venv /tmp/gold && /tmp/gold/bin/pip install torch safetensors numpy lion-pytorch
    /tmp/gold/bin/python scripts/golden/make_optimizer_goldens.py tests/golden/data
"""
import sys
from pathlib import Path

import torch
from lion_pytorch import Lion
from safetensors.torch import save_file

SHAPES = {"wide": (6, 17), "tall": (19, 5)}
STEPS, LR, DECAY = 4, 0.02, 0.1
OPTIMIZERS = {
    "lion": lambda p: Lion(p, lr=LR, betas=(0.9, 0.99), weight_decay=DECAY),
    "muon": lambda p: torch.optim.Muon(p, lr=LR, weight_decay=DECAY, momentum=0.95, nesterov=True,
                                       adjust_lr_fn="match_rms_adamw"),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=LR, beta2_decay=-0.8, eps=(1e-30, 1e-3), d=1.0,
                                                 weight_decay=DECAY),
}  # fmt: skip


def main(folder):
    random = torch.Generator().manual_seed(1)

    def draw(shape):
        return torch.randn(shape, generator=random, dtype=torch.float64)

    tensors = {f"initial.{name}": 0.5 * draw(shape) for name, shape in SHAPES.items()}
    for step in range(STEPS):
        tensors |= {f"grad.{step}.{name}": draw(shape) for name, shape in SHAPES.items()}
    for kind, make in OPTIMIZERS.items():
        parameters = {name: tensors[f"initial.{name}"].clone().requires_grad_() for name in SHAPES}
        optimizer = make(list(parameters.values()))
        for step in range(STEPS):
            for name, parameter in parameters.items():
                parameter.grad = tensors[f"grad.{step}.{name}"].clone()
            optimizer.step()
        tensors |= {f"{kind}.{name}": parameter.detach() for name, parameter in parameters.items()}
    metadata = {"lr": str(LR), "weight_decay": str(DECAY), "steps": str(STEPS)}
    save_file(tensors, Path(folder) / "optimizers.safetensors", metadata)


if __name__ == "__main__":
    main(*sys.argv[1:])
