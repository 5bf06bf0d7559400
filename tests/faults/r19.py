"""One rank dies, by whatever means, at any moment: the job ends soon, names rank and cause, and the next start is clean."""

import time

from lab import DONE, Run, alive, expect, wait_until

STEPS = 6
# What is said of the rank, of each fault that ZIGGURAT_INJECT knows.
FAULTS = {"kill": "was killed without a word", "segfault": "SIGSEGV", "exit": "called exit(3)", "abort": "SIGABRT",
          "bad_alloc": "bad_alloc", "throw": "rank 1"}
SITES = ("init", "step", "compute", "update", "save", "eval", "shutdown")


def test(lab):
    options = ("eval.every=2", "eval.sequences=8")
    reference = lab.reference(*options, ranks=2, steps=STEPS)
    trials = lab.some([(site, fault) for site in SITES for fault in FAULTS], short=4)
    slowest = 0
    for site, fault in trials:
        what = f"{fault} in {site}"
        run = Run(lab.output("run"))
        at = "" if site in ("init", "shutdown") else f":step={4 if site in ('save', 'eval') else 3}"
        job = lab.start_train(run.folder, *options, ranks=2, steps=STEPS,
                              environment={"ZIGGURAT_INJECT": f"{site}:{fault}:rank=1{at}"})
        job.wait_for(lambda: len(job.ranks()) == 2, "two ranks")
        ranks = list(job.ranks().values())
        wait_until(lambda: not all(map(alive, ranks)), f"end of rank 1, {what}", 60)
        begun = time.monotonic()
        ended = job.wait(20)
        wait_until(lambda: not any(map(alive, ranks)), f"end of all ranks, {what}", 10)
        seconds = time.monotonic() - begun
        slowest = max(slowest, seconds)
        expect(ended.code != DONE, f"{what}: the job ended as if nothing had happened")
        expect(seconds <= 10, f"{what}: ended after {seconds:.0f} s")
        expect("rank 1" in ended.log and FAULTS[fault] in ended.log, f"{what}: rank and cause are not told: {ended.log[-800:]}")
        again = lab.train(run.folder, *options, ranks=2, steps=STEPS)
        again.expect(DONE)
        lab.expect_same(run, reference, what)
    return f"{len(trials)} of {len(SITES) * len(FAULTS)} faults; the job ended within {slowest:.1f} s; next starts Same"
