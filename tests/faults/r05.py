"""Saves in the background: what is saved is the step's state, however far the run is by then, and whatever kills it."""

from lab import DONE, Run, expect, expect_same_losses, resumed_at

STEPS = 8


def test(lab):
    every = ("checkpoint.every=1", "checkpoint.keep=0")
    # Slow writing: parameters have changed many times before a file is finished.
    run = Run(lab.output("run"))
    lab.train(run.folder, *every, steps=STEPS, environment={"ZIGGURAT_INJECT": "write:delay:ms=100:times=0"}).expect(DONE)
    expect(run.steps_saved() == list(range(1, STEPS + 1)), f"saved {run.steps_saved()}")
    tried = lab.some(range(1, STEPS + 1), short=3)
    for step in tried:
        until = Run(lab.output("until"))
        lab.train(until.folder, "checkpoint.every=0", steps=step).expect(DONE)
        expect(run.state(step) == until.state(), f"what was saved of step {step} is not its state")
    reference = lab.reference(*every, steps=STEPS)
    places = [f"{site}:kill:step={step}" for site in ("save", "stage", "write", "commit") for step in (5, STEPS)]
    killed = lab.some(places, short=3)
    for place in killed:
        run = Run(lab.output("run"))
        ended = lab.train(run.folder, *every, steps=STEPS, environment={"ZIGGURAT_INJECT": place})
        expect(ended.code == -9, f"{place}: it was not killed: {ended.tail()}")
        again = lab.train(run.folder, *every, steps=STEPS).expect(DONE)
        expect("checkpoint skipped" not in again.log, f"{place}: half a checkpoint: {again.tail()}")
        # Two saves may have been in memory when it was killed.
        step = int(place.rpartition("=")[2])
        expect(resumed_at(again.log) >= step - 3, f"{place}: went on from step {resumed_at(again.log)}")
        lab.expect_same(run, reference, place)
        expect_same_losses(run.losses(), reference.losses(), place)
    return f"{len(tried)} states saved while training went on, {len(killed)} kills in staging, writing and committing"
