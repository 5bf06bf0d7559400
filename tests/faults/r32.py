"""A flipped bit in a gradient of one rank, once and again and again: found by computing twice, told apart, 77 if lasting."""

from lab import DONE, NUMERIC, Run, expect

# Every rank holds all of this model, so that each can check another.
DENSE = ("model.blocks=[{repeat: 2, pattern: [{ffn: dense}]}]", "guard.rerun_every=1")


def test(lab):
    trials = lab.trials(full=10, short=1)
    reference = lab.reference(*DENSE, ranks=2, steps=8)
    for _ in range(trials):
        step, rank, bit = lab.random.randrange(2, 8), lab.random.randrange(2), lab.random.randrange(8, 24)
        flip = f"gradient:flip:rank={rank}:step={step}:bit={bit}"
        run = Run(lab.output("once"))
        ended = lab.train(run.folder, *DENSE, ranks=2, steps=8, environment={"ZIGGURAT_INJECT": flip}).expect(DONE, "passing fault")
        expect(f"step {step}" in ended.log, f"{flip}: the step is not told")
        lab.expect_same(run, reference, f"after a passing fault, {flip}")
        run = Run(lab.output("lasting"))
        ended = lab.train(run.folder, *DENSE, ranks=2, steps=8, environment={"ZIGGURAT_INJECT": flip + ":times=0"})
        ended.expect(NUMERIC, "lasting fault", f"step {step}")
        expect(all(s < step for s in run.steps_saved()), f"{flip}: saved {run.steps_saved()}")
    return f"{trials} passing faults went on Same, {trials} lasting ones ended with 77"
