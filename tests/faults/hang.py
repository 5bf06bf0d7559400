"""Jobs of which some ranks stand still."""

import re

from lab import HANG, Run, expect

LIMIT = 3


def expect_named(lab, what, stopped, ranks, inject, options=()):
    """The others tell what they did and who is missing, and end with 76, saving nothing more."""
    run = Run(lab.output("run"))
    job = lab.start_train(run.folder, f"watch.timeout={LIMIT}s", "eval.every=2", "eval.sequences=8", *options, ranks=ranks,
                          steps=100_000, environment={"ZIGGURAT_INJECT": inject})
    job.wait_for(lambda: len(job.ranks()) == ranks, "all ranks")
    ended = job.wait(LIMIT + 60)
    ended.expect(HANG, "no progress", "missing")
    for rank in range(ranks):
        if rank in stopped:
            expect(f"missing: rank {rank}" in ended.log or f", rank {rank} (pid" in ended.log, f"{what}: rank {rank} is not named: {ended.log[-900:]}")
        else:
            flight = run.folder / "flight" / f"rank_{rank}.log"
            text = flight.read_text() if flight.exists() else ""
            # A rank that has waited a little less may have been told by another.
            why = re.search(r"no progress|another rank ended for want of progress", text)
            phase = re.search(r"begins (step|save|evaluation) of step \d+", text)
            collective = re.search(r"\w+ #\d+ of \d+ bytes on '\w+'", text)
            expect(why and phase and collective, f"{what}: rank {rank} has not told what it did: {text[-600:]}")
    waited = [float(word) for word in re.findall(r"no progress for ([\d.]+) s", ended.log)]
    expect(waited and max(waited) <= LIMIT + 2, f"{what}: waited {waited} s, the limit is {LIMIT} s")
    expect(not [s for s in run.steps_saved() if s > run.last_step()], f"{what}: a later step was saved")
    return run, max(waited)
