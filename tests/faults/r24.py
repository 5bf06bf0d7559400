"""One bit of a weight that several ranks hold flips on one: rank, tensor and step are named, and it is not saved."""

from lab import NUMERIC, Run, expect

EVERY = 3
TENSORS = ["blocks.0.norm1.weight", "final_norm.weight", "embed.token.weight", "blocks.1.norm2.bias"]


def test(lab):
    trials = lab.trials(full=20, short=2)
    for trial in range(trials):
        run = Run(lab.output("run"))
        rank, step, tensor = lab.random.randrange(4), lab.random.randrange(2, 9), TENSORS[trial % len(TENSORS)]
        bit = lab.random.randrange(0, 24)
        ended = lab.train(run.folder, f"guard.replica_check_every={EVERY}", "checkpoint.every=2", "checkpoint.keep=0", ranks=4,
                          steps=14, environment={"ZIGGURAT_INJECT": f"weight:flip:rank={rank}:step={step}:tensor={tensor}:bit={bit}"})
        what = f"bit {bit} of {tensor} on rank {rank} at step {step}"
        expect(ended.code == NUMERIC, f"{what}: exit code {ended.code}: {ended.tail()}")
        expect(tensor in ended.log and f"rank {rank} " in ended.log, f"{what}: not named: {ended.log[-600:]}")
        expect(step <= run.last_step() + 1 <= step + EVERY, f"{what}: found after step {run.last_step()}")
        expect(all(s < step for s in run.steps_saved()), f"{what}: saved at {run.steps_saved()}")
    return f"{trials} flipped bits, each named within {EVERY} steps, none saved"
