"""One job in a folder: a second is refused by name, a dead one's lock taken over; a file stops a job in good order."""

import os
import signal
import socket

from lab import DONE, REQUEUE, USAGE, Run, expect


def test(lab):
    run = Run(lab.output("run"))
    first = lab.start_train(run.folder, ranks=2, steps=100_000)
    first.wait_for(lambda: run.steps_saved(), "checkpoint")
    ranks = first.ranks()
    owner = f"pid {ranks[0]} on {socket.gethostname()}"
    for options in ({}, {"ranks": 2}):
        lab.train(run.folder, steps=4, **options).expect(USAGE, "another job that is alive", owner)
    expect(first.running() and "error" not in first.log(), "the first job was disturbed")
    stopped = ranks[0]
    os.kill(stopped, signal.SIGSTOP)  # asleep is alive
    lab.train(run.folder, steps=4).expect(USAGE, owner)
    first.kill()
    goal = run.last_step() + 5
    lab.train(run.folder, ranks=2, steps=goal).expect(DONE, "taken over from a job that is dead", f"pid {ranks[0]}")
    expect(run.last_step() == goal, "the next job did not go on")

    last = lab.start_train(run.folder, ranks=2, steps=100_000)
    last.wait_for(lambda: run.last_step() > goal + 2, "more steps")
    (run.folder / "STOP").touch()
    last.wait().expect(REQUEUE, "STOP")
    expect(run.steps_saved()[-1] == run.last_step(), "stopped without saving its last step")
    lab.train(run.folder, ranks=2, steps=100_000).expect(USAGE, "STOP")
    (run.folder / "STOP").unlink()
    lab.train(run.folder, ranks=2, steps=run.last_step() + 2).expect(DONE)
    return "2 refused, 1 beside a sleeping owner, 1 lock taken over, 1 stopped by a file"
