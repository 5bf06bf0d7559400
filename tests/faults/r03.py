"""Errors at every system call of a save, once and for ever: nothing is committed, and the message names it."""

import errno

from calls import CLOSES, MAKES, OPENS, RENAMES, SYNCS, WRITES
from lab import DONE, TOKENS_OF_STEP, UNUSABLE, expect
from saving import AFTER, BEFORE, Saving


def test(lab):
    saving = Saving(lab, keep=0, first=AFTER)
    before = saving.base.hashes(BEFORE)
    kinds = [("EIO", OPENS + WRITES + SYNCS + CLOSES + RENAMES), ("ENOSPC", OPENS + MAKES + WRITES + SYNCS),
             ("EDQUOT", OPENS + MAKES + WRITES + SYNCS + CLOSES)]
    trials = [(error, point, on) for error, calls in kinds for point in saving.points(calls)
              for on in (False, True)]
    tried = lab.some(trials, short=5)
    failed = 0
    for error, point, on in tried:
        what = f"{error} at {point[1]} {point[2]}{' and all after' if on else ''}"
        ended = saving.disturb(point, f"error={error}", on)
        if ended.code == DONE and AFTER in saving.run.steps_saved():
            saving.expect_whole(what)  # what failed did not matter, or was tried again
            continue
        failed += 1
        number = getattr(errno, error)
        ended.expect(UNUSABLE, f"errno {number}", "step_0", "the last checkpoint could not be saved")
        expect(AFTER not in saving.run.steps_saved(), f"{what}: a failed save was committed")
        expect(saving.run.hashes(BEFORE) == before, f"{what}: the older checkpoint was touched")
        saving.expect_whole(what)
    expect(failed >= len(tried) // 2, f"only {failed} of {len(tried)} errors made a save fail")
    interrupted = lab.some(saving.points(WRITES + SYNCS + OPENS), short=1)
    for point in interrupted:
        what = f"EINTR at {point[1]} {point[2]}"
        saving.disturb(point, "error=EINTR").expect(DONE)
        expect(saving.expect_whole(what) == AFTER, f"{what}: no save")
    # Not of the last one: told, and the run goes on to the next, or ends, as it was asked to.
    point = saving.points(WRITES)[0]
    later = (*saving.options, f"train.tokens={(AFTER + 2) * TOKENS_OF_STEP}")
    saving.disturb(point, "error=EIO", more=later).expect(DONE, "errno 5", "step_0")
    expect(saving.run.steps_saved() == [2, BEFORE, AFTER + 2], f"saved {saving.run.steps_saved()}")
    saving.disturb(point, "error=EIO", more=(*later, "checkpoint.on_failure=stop")).expect(UNUSABLE, "errno 5", "on_failure")
    expect(AFTER not in saving.run.steps_saved(), f"saved {saving.run.steps_saved()}")
    saving.reset()
    lab.run(saving.command, environment={"LD_PRELOAD": lab.preload(), "FAULT_SHORT_WRITES": "1"}).expect(DONE)
    expect(saving.expect_whole("short writes") == AFTER, "short writes: no save")
    return f"{len(tried)} of {len(trials)} errors, {failed} failed saves, {len(interrupted)} EINTR, short writes"
