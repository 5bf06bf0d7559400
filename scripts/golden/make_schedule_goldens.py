#!/usr/bin/env python3
"""Makes tests/golden/data/schedules.safetensors: learning rates of 40 steps by schedules that others wrote.

The oracle for cosine, linear, constant, wsd and rsqrt is transformers' optimization.py. flat_rsqrt, which t5x calls
constant * rsqrt_decay, is taken from its definition: rate = base / sqrt(max(step, warm-up)), here with the base that
makes its first value LR.

    python3 -m venv /tmp/gold && /tmp/gold/bin/pip install torch transformers safetensors numpy
    /tmp/gold/bin/python scripts/golden/make_schedule_goldens.py tests/golden/data
"""
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

LR, MIN_LR, WARMUP, STEPS, DECAY = 2.0, 0.25, 8, 32, 6  # steps; the last: of wsd's decay
T = transformers.optimization
SCHEDULES = {
    "cosine": lambda o: T.get_cosine_with_min_lr_schedule_with_warmup(o, WARMUP, STEPS, min_lr=MIN_LR),
    "linear": lambda o: T.get_polynomial_decay_schedule_with_warmup(o, WARMUP, STEPS, lr_end=MIN_LR, power=1.0),
    "constant": lambda o: T.get_constant_schedule_with_warmup(o, WARMUP),
    "wsd": lambda o: T.get_wsd_schedule(o, WARMUP, DECAY, num_training_steps=STEPS, decay_type="linear",
                                        min_lr_ratio=MIN_LR / LR),
    "rsqrt": lambda o: T.get_inverse_sqrt_schedule(o, WARMUP),
}  # fmt: skip


def rates(make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    schedule, found = make(optimizer), []
    for _ in range(STEPS + 8):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return torch.tensor(found, dtype=torch.float64)


def main(folder):
    tensors = {name: rates(make) for name, make in SCHEDULES.items()}
    steps = torch.arange(STEPS + 8, dtype=torch.float64)
    tensors["flat_rsqrt"] = LR * WARMUP**0.5 / steps.clamp(min=WARMUP).sqrt()
    metadata = {"lr": LR, "min_lr": MIN_LR, "warmup": WARMUP, "steps": STEPS, "decay": DECAY}
    save_file(tensors, Path(folder) / "schedules.safetensors", {k: str(v) for k, v in metadata.items()})
    for name, values in tensors.items():
        print(name, [round(v, 4) for v in values.tolist()[::4]])


if __name__ == "__main__":
    main(*sys.argv[1:])
