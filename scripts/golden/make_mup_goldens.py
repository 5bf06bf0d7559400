#!/usr/bin/env python3
"""What the authors' package makes of width (microsoft/mup, PyPI: mup): for each kind of parameter of a model that is
four times as wide as its base, by how much the standard deviation of its initial values and its learning rate under
Adam differ from the base's. Where the package multiplies a layer's output instead, as of its readouts, that is the
same as so much smaller initial values and, under Adam, steps: such rows are given that way.
tests/unit/model/width_rules_test.cpp holds this table; no file is written.

usage: make_mup_goldens.py    (needs torch and mup)
"""
import torch
from mup import MuAdam, MuReadout, MuSharedReadout, init, set_base_shapes

BASE, WIDTH, VOCABULARY, EXPERTS, STD, LR = 64, 256, 32, 4, 0.1, 1.0


class Model(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.embedding = torch.nn.Embedding(VOCABULARY, width)
        self.norm = torch.nn.LayerNorm(width)
        self.hidden = torch.nn.Linear(width, 4 * width)
        self.router = MuReadout(width, EXPERTS, bias=False)
        self.head = MuReadout(width, VOCABULARY, bias=False, readout_zero_init=False)
        self.tied_head = MuSharedReadout(self.embedding.weight, bias=False)


def effective(model):
    for module in (model.embedding, model.hidden, model.router, model.head):
        init.normal_(module.weight, std=STD)
    rates = {}
    for group in MuAdam(model.parameters(), lr=LR).param_groups:
        for parameter in group["params"]:
            rates[id(parameter)] = group["lr"]
    rows = {}
    for name, module, parameter in (("embedding", None, model.embedding.weight), ("norm", None, model.norm.weight),
                                    ("bias", None, model.hidden.bias), ("hidden matrix", None, model.hidden.weight),
                                    ("router", model.router, model.router.weight),
                                    ("head", model.head, model.head.weight),
                                    ("tied head", model.tied_head, model.embedding.weight)):
        factor = 1.0 if module is None else module.output_mult / module.width_mult()
        drawn = parameter.ndim == 2
        rows[name] = (parameter.std().item() * factor if drawn else None, rates[id(parameter)] * factor)
    return rows


def main():
    torch.manual_seed(1)
    base, delta = Model(BASE), Model(2 * BASE)
    models = [Model(BASE), Model(WIDTH)]
    for model in models:
        set_base_shapes(model, base, delta=delta)
    narrow, wide = map(effective, models)
    for name, (std, lr) in wide.items():
        of_std = "none" if std is None else f"{std / narrow[name][0]:.2f}"
        print(f"{name:14} initial values x {of_std:>5}   learning rate x {lr / narrow[name][1]:.2f}")


if __name__ == "__main__":
    main()
