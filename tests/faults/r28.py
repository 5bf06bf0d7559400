"""Started again by requeue.sh after kills it gets on; a fault that comes again and again ends it with 93."""

import os
import signal

from lab import DONE, GIVE_UP, Run, expect


def test(lab):
    requeue = lab.source / "scripts" / "slurm" / "requeue.sh"
    cycles = lab.trials(full=20, short=2)
    steps = 4 * cycles + 8
    reference = lab.reference(ranks=2, steps=steps)
    run = Run(lab.output("run"))
    job = lab.start([requeue, run.folder, *lab.train_command(run.folder, ranks=2, steps=steps)])
    for cycle in range(cycles):
        # After a further save, so that each round gets on; then anywhere.
        goal = 4 * cycle + lab.random.randrange(3, 7)
        job.wait_for(lambda: run.last_step() >= goal and len(job.ranks()) == 2, f"step {goal}")
        with_pid = list(job.ranks().values())
        os.kill(lab.random.choice(with_pid), signal.SIGKILL)
        job.wait_for(lambda: job.log().count("starting again") > cycle, "another round")
    job.wait().expect(DONE)
    lab.expect_same(run, reference, "after rounds")

    # Saves that are waited for: these steps are so short that one in the background has no time before the kill.
    run = Run(lab.output("repeating"))
    command = lab.train_command(run.folder, "checkpoint.async=false", ranks=2, steps=steps)
    ended = lab.run([requeue, run.folder, *command],
                    environment={"ZIGGURAT_INJECT": "step:kill:rank=1:step=3"})
    ended.expect(GIVE_UP, "look at")
    expect(run.steps_saved() == [2], f"expected step 2, got {run.steps_saved()}")
    rounds = ended.log.count("starting again")
    return f"{cycles} kills, {cycles + 1} rounds Same; a repeating fault given up after {rounds} rounds"
