"""Stopped and resumed after every step: losses, weights, moments, random numbers and cursor are Same."""

from lab import DONE, Run, resumed_at, expect


def test(lab):
    last = 6 if lab.short else 20
    options = ("checkpoint.every=0", "eval.every=3", "eval.sequences=4", "precision=bf16")
    reference = lab.reference(*options, steps=last)
    run = Run(lab.output("run"))
    for step in range(1, last + 1):
        ended = lab.train(run.folder, *options, steps=step).expect(DONE)
        expect(resumed_at(ended.log) == step - 1, f"step {step} began from {resumed_at(ended.log)}")
    lab.expect_same(run, reference, "stopped after every step")
    return f"{last} starts of one step each, with dropout and bf16"
