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
        # mpirun reads no more while it ends: a rank that prints more than a pipe holds would stand still until it is killed.
        run, ended = stop_at_random(lab, "run", lambda job: os.kill(job.pid, number), None, "log.every=1000")
        expect(ended.code != DONE, "the exit code says that all is done")
        # mpirun may not hand on what is printed while it ends.
        told = ended.log + (run.folder / "rank_0.log").read_text()
        expect("send SIGUSR1" in told, f"no word of SIGUSR1: {ended.tail()}")
        saved += bool(run.steps_saved()) and run.steps_saved()[-1] == run.last_step()
        expect_goes_on_same(lab, run, "log.every=1000", exact=False)
    return f"{trials} times, in {saved} the last step was saved; all went on Same"
