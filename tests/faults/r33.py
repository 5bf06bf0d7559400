"""Two runs, other threads and cores, with and without saves, evaluations and logs: Same in strict mode."""

import os

from lab import DONE, Run, expect_same_losses


def test(lab):
    steps = 6 if lab.short else 30
    strict = ("reproducible=strict",)
    reference = lab.reference(*strict, ranks=2, steps=steps)
    cores = sorted(os.sched_getaffinity(0))
    swapped = ",".join(map(str, reversed(cores[:2])))
    others = {
        "again": ((), {}),
        "2 threads": (("threads=2",), {"environment": {"OMP_NUM_THREADS": "2"}}),
        "no saves": (("checkpoint.every=0",), {}),
        "evaluations": (("eval.every=2", "eval.sequences=8"), {}),
        "few logs": (("log.every=1000", "log.exact=false"), {}),
        "one core": ((), {"under": ("taskset", "-c", cores[0])}),
        "ranks on each other's core": ((), {"environment": {"OMPI_MCA_hwloc_base_cpu_list": swapped}}),
    }
    for name, (options, how) in others.items():
        run = Run(lab.output("run"))
        lab.train(run.folder, *strict, *options, ranks=2, steps=steps, **how).expect(DONE)
        if name == "evaluations" or name == "no saves" or not options:
            lab.expect_same(run, reference, name)
        expect_same_losses(run.losses(), reference.losses(), name)
    return f"{len(others)} other runs of {steps} steps on 2 ranks: {', '.join(others)}"
