"""The time of the job is over: saved, and ended with 75, before."""

import time

from ending import RANKS, expect_goes_on_same
from lab import REQUEUE, Run, expect


def test(lab):
    trials = lab.trials(full=20, short=2)
    least = 1e9
    for trial in range(trials):
        run = Run(lab.output("run"))
        # Of a few seconds, of which the launcher and its end may take some on a busy machine.
        limit = lab.random.randrange(12, 18)
        if trial % 2:
            how = {"environment": {"SLURM_JOB_END_TIME": str(int(time.time()) + limit)}}
            options = ()
        else:
            how, options = {}, (f"train.max_walltime={limit}s",)
        ended = lab.train(run.folder, *options, "checkpoint.every=0", ranks=RANKS, steps=100_000, **how)
        ended.expect(REQUEUE, "time limit")
        least = min(least, limit - ended.seconds)
        expect(ended.seconds < limit, f"ended after {ended.seconds:.1f} s, the limit was {limit} s")
        expect(run.steps_saved() == [run.last_step()], f"step {run.last_step()} done, {run.steps_saved()} saved")
        if trial == 0:
            expect_goes_on_same(lab, run, "checkpoint.every=0")
    return f"{trials} of {trials} in time, with {least:.1f} s to spare at least"
