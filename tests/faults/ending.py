"""Runs that are asked to end, and the runs that go on from them."""

import time

from lab import DONE, REQUEUE, Run, expect, expect_same_losses

RANKS = 2


def stop_at_random(lab, name, ask, code, *options):
    """Asks at a random moment after the first step; returns the run and how it ended."""
    run = Run(lab.output(name))
    job = lab.start_train(run.folder, *options, ranks=RANKS, steps=100_000)
    goal = lab.random.randrange(1, 10)
    job.wait_for(lambda: run.last_step() >= goal, f"step {goal}")
    time.sleep(lab.random.uniform(0, 0.05))
    begun = time.monotonic()
    ask(job)
    ended = job.wait(60)
    seconds = time.monotonic() - begun
    if code is not None:
        ended.expect(code)
    expect(seconds < 30, f"ended {seconds:.0f} s after it was asked to")
    return run, ended


def expect_goes_on_same(lab, run, *options, exact=True):
    """Its last step is saved, and what follows is what an undisturbed run would have done."""
    last = run.last_step()
    expect(not exact or run.steps_saved()[-1] == last, f"step {last} was done, step {run.steps_saved()[-1:]} saved")
    lab.train(run.folder, *options, ranks=RANKS, steps=last + 3).expect(DONE)
    whole = lab.reference(*options, ranks=RANKS, steps=(last + 3 + 29) // 30 * 30)
    expect_same_losses(run.losses(), {s: x for s, x in whole.losses().items() if s <= last + 3}, "after the end")
