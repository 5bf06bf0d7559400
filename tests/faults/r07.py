"""SIGKILL at every system call that removes old checkpoints: a verified one is always left, no half one chosen."""

from collections import Counter

from calls import RENAMES, REMOVES, SYNCS
from saving import AFTER, BEFORE, Saving


def test(lab):
    saving = Saving(lab, keep=1, first=BEFORE)
    points = saving.points(RENAMES + REMOVES + SYNCS)
    tried = lab.some(points, short=4)
    latest = Counter()
    for point in tried:
        saving.disturb(point, "signal=SIGKILL")
        latest[saving.expect_whole(f"killed at {point[1]} {point[2]}")] += 1
    return f"{len(tried)} of {len(points)} calls; then latest was " + \
           ", ".join(f"step {step}: {n}" for step, n in sorted(latest.items()))
