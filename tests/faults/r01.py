"""SIGKILL all ranks at a random time, again and again; every start goes on from a verified checkpoint."""

import statistics
import time

from lab import DONE, Run, expect, resumed_at

EVERY = 2
# Steps that take longer than a save, as real ones do: then a save is committed before the next step is told.
REAL = {"ZIGGURAT_INJECT": "step:delay:ms=300:times=0"}


def test(lab):
    steps = 16 if lab.short else 60
    options = (f"checkpoint.every={EVERY}",)
    reference = lab.reference(*options, ranks=2, steps=steps)
    run, runs, lost = Run(lab.output("run")), 1, []
    cycles = lab.trials(full=200, short=4)
    for _ in range(cycles):
        before, told = run.last_step(), max((r["step"] for r in run.records("checkpoint") if r["saved"]), default=0)
        job = lab.start_train(run.folder, *options, ranks=2, steps=steps, environment=REAL)
        # Anywhere in the start, or anywhere in the steps after it.
        goal = before + lab.random.randrange(0, 12)
        if lab.random.random() < 0.8:
            job.wait_for(lambda: run.last_step() >= min(goal, steps) or "already" in job.log(), "step")
        time.sleep(lab.random.uniform(0, 0.1))
        job.kill()
        at = resumed_at(job.log())
        if at:
            expect("checkpoint skipped" not in job.log(), f"a checkpoint could not be used: {job.log()[-300:]}")
            lost.append(before - at)
            expect(at >= told, f"step {told} was told to be saved, but the start went on from step {at}")
            # On a machine that others share a save may take longer than a step: two may be under way, and no more.
            expect(before - at < 3 * EVERY, f"step {before} was reached, but the start went on from step {at}")
        if run.last_step() == steps:
            finish(lab, run, reference, options, steps)
            run, runs = Run(lab.output("run")), runs + 1
    finish(lab, run, reference, options, steps)
    usual = statistics.median(lost or [0])
    expect(usual <= EVERY, f"most kills lost {usual} steps, of {EVERY} between saves")
    return f"{cycles} kills of 2 ranks, {len(lost)} resumes, {sum(x > EVERY for x in lost)} lost more than one " \
           f"interval, {runs} runs ended Same"


def finish(lab, run, reference, options, steps):
    lab.train(run.folder, *options, ranks=2, steps=steps).expect(DONE)
    lab.expect_same(run, reference, "after kills")
