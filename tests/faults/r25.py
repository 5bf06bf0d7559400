"""SIGUSR1 to mpirun or to one rank, once or again and again, in a save too: the step is done, saved, exit code 75."""

import contextlib
import os
import signal

from ending import REQUEUE, expect_goes_on_same, stop_at_random


def test(lab):
    def to_launcher(job):
        os.kill(job.pid, signal.SIGUSR1)

    def to_one(job):
        os.kill(lab.random.choice(list(job.ranks().values())), signal.SIGUSR1)

    def to_all_often(job):
        for pid in [job.pid, *job.ranks().values()] * 5:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)

    kinds = {"to mpirun": (to_launcher, ()), "to one rank": (to_one, ()), "to all, 5 times": (to_all_often, ()),
             "in saves": (to_launcher, ("checkpoint.every=1",))}
    trials = lab.trials(full=20, short=2)
    for trial in range(trials):
        ask, options = list(kinds.values())[trial % len(kinds)]
        run, ended = stop_at_random(lab, "run", ask, REQUEUE, *options)
        ended.expect(REQUEUE, "SIGUSR1")
        expect_goes_on_same(lab, run, *options)
    return f"{trials} times ({', '.join(kinds)}), each saved its last step and went on Same"
