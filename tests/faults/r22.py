"""SIGKILL mpirun: its ranks end soon, and what they leave does not disturb the next start."""

import os
import signal

from lab import DONE, Run, alive, expect, wait_until


def test(lab):
    reference = lab.reference(ranks=2, steps=40)
    trials = lab.trials(full=10, short=2)
    for trial in range(trials):
        run = Run(lab.output("run"))
        job = lab.start_train(run.folder, ranks=2, steps=40)
        goal = 0 if trial == 0 else lab.random.randrange(1, 20)
        job.wait_for(lambda: run.last_step() >= goal and len(job.ranks()) == 2, "two ranks at work")
        ranks = list(job.ranks().values())
        os.kill(job.pid, signal.SIGKILL)
        job.process.wait()
        wait_until(lambda: not any(map(alive, ranks)), "end of the ranks", timeout=10)
        lab.train(run.folder, ranks=2, steps=40).expect(DONE)
        expect(not (run.folder / "run.lock").exists(), "the lock was not given back")
        lab.expect_same(run, reference, "after mpirun was killed")
    return f"{trials} kills of mpirun, ranks gone within 10 s, next starts Same"
