"""A clock that goes back, no standard output, a full disk under logs and metrics, a folder removed: training goes on."""

import shutil

from lab import DONE, Run, expect, expect_same_losses

STEPS = 12


def test(lab):
    reference = lab.reference(steps=STEPS)

    run = Run(lab.output("clock"))
    lab.train(run.folder, steps=STEPS, environment={"LD_PRELOAD": lab.preload(), "FAULT_CLOCK_AFTER": "12"}).expect(DONE)
    lab.expect_same(run, reference, "a clock that goes back")
    expect(all(r["step_seconds"] >= 0 for r in run.records("step")), "a step of negative time")

    run = Run(lab.output("closed"))
    lab.train(run.folder, steps=STEPS, under=("sh", "-c", 'exec "$@" >&- 2>&-', "_")).expect(DONE)
    lab.expect_same(run, reference, "without standard output")
    run = Run(lab.output("full"))
    lab.train(run.folder, steps=STEPS, under=("sh", "-c", 'exec "$@" >/dev/full 2>/dev/full', "_")).expect(DONE)
    lab.expect_same(run, reference, "a full disk under standard output")

    # The first half of the metrics meets a full disk, then there is room again.
    run = Run(lab.output("metrics"))
    inject = lab.strace("-o", "/dev/null", "-e", "trace=write", "-P", run.folder / "metrics.jsonl", "-e",
                        "inject=write:error=ENOSPC:when=2..6")
    ended = lab.train(run.folder, steps=STEPS, under=inject).expect(DONE)
    expect(ended.log.count("cannot be written") == 1, f"expected one warning: {ended.log}")
    found = run.losses()
    expect(max(found) == STEPS and len(found) < STEPS, f"expected the later steps in the metrics, got {list(found)}")
    expect_same_losses(found, {s: x for s, x in reference.losses().items() if s in found}, "a full disk under the metrics")
    expect(run.state() == reference.state(), "a full disk under the metrics: other weights")

    run = Run(lab.output("log"))
    inject = lab.strace("-o", "/dev/null", "-e", "trace=write", "-P", run.folder / "rank_0.log", "-e",
                        "inject=write:error=ENOSPC:when=2+")
    lab.train(run.folder, steps=STEPS, under=inject).expect(DONE)
    lab.expect_same(run, reference, "a full disk under the log")

    run = Run(lab.output("removed"))
    more = lab.start_train(run.folder, "checkpoint.every=0", steps=20_000)
    more.wait_for(lambda: run.last_step() > 2, "steps")
    run.folder.rename(lab.folder / "away")  # in one step, unlike rmtree
    shutil.rmtree(lab.folder / "away")
    more.wait_for(lambda: run.last_step() > 2, "metrics in a folder made again")
    warnings = more.log().count("removed or moved away")
    more.kill()
    expect(warnings == 1, f"{warnings} warnings of the removed folder")
    return "clock -1 h, no and full standard output, full metrics and log, folder removed"
