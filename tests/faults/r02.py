"""SIGKILL at every system call of a save: afterwards the old or the new checkpoint is the latest, whole."""

import signal
from collections import Counter

from calls import ALL
from lab import expect
from saving import AFTER, Saving


def test(lab):
    saving = Saving(lab, keep=0, first=AFTER)
    latest = Counter()
    points = saving.points(ALL)
    tried = lab.some(points, short=4)
    for point in tried:
        what = f"killed at {point[1]} {point[2]}"
        ended = saving.disturb(point, "signal=SIGKILL")
        expect(ended.code == -signal.SIGKILL, f"{what}: it was not killed: {ended.tail()}")
        latest[saving.expect_whole(what)] += 1
    return f"{len(tried)} of {len(points)} calls; then latest was " + \
           ", ".join(f"step {step}: {n}" for step, n in sorted(latest.items()))
