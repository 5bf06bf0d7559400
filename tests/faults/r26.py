"""SIGTERM and SIGINT to mpirun, which leaves a second: whatever is done in it, nothing is spoilt."""

import os
import signal

from ending import expect_goes_on_same, stop_at_random
from lab import DONE, expect


def test(lab):
    trials = lab.trials(full=20, short=2)
    saved = 0
    for trial in range(trials):
        number = (signal.SIGTERM, signal.SIGINT)[trial % 2]
        # With a line for each step: mpirun reads no more of them while it ends.
        run, ended = stop_at_random(lab, "run", lambda job: os.kill(job.pid, number), None)
        expect(ended.code != DONE, "the exit code says that all is done")
        expect("send SIGUSR1" in ended.log, f"no word of SIGUSR1: {ended.tail()}")
        saved += bool(run.steps_saved()) and run.steps_saved()[-1] == run.last_step()
        expect_goes_on_same(lab, run, exact=False)
    # The second that is left is enough for a machine that has nothing else to do, as it should when all are tried.
    expect(lab.short or saved >= 0.9 * trials, f"the last step was saved in {saved} of {trials} only")
    return f"{trials} times, in {saved} the last step was saved; all went on Same"
