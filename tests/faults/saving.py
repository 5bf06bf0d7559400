"""A run before and after one save, which R2, R3 and R7 disturb at every system call."""

import shutil

from calls import Calls
from lab import DONE, Run, expect, resumed_at

BEFORE, AFTER = 4, 6


class Saving:
    """Resumes a run of step 4 to step 6, where it saves."""

    def __init__(self, lab, keep, first):
        """Disturbs the calls on what belongs to step `first`, and on the folder of checkpoints, from the first that makes
        or renames the former."""
        self.lab, self.options = lab, (f"checkpoint.keep={keep}",)
        self.run = Run(lab.folder / "disturbed")
        self.reference = lab.reference(*self.options, steps=AFTER)
        self.base = Run(lab.output("base"))
        lab.train(self.base.folder, *self.options, steps=BEFORE).expect(DONE)
        self.command = lab.train_command(self.run.folder, *self.options, steps=AFTER)
        self.calls = []
        for paths in (rf"step_0*{first}\b", rf"step_0*{first}\b|checkpoints$"):
            self.reset()
            self.calls.append(Calls(lab, self.command, self.run.checkpoints, matching=paths))
            self.calls[-1].count(self.reset, rf"(?:mkdir|rename)\w*\(.*step_0*{first}\b")

    def points(self, calls):
        return [point for each in self.calls for point in each.points(calls)]

    def reset(self):
        shutil.rmtree(self.run.folder, ignore_errors=True)
        shutil.copytree(self.base.folder, self.run.folder)

    def disturb(self, point, fault, on=False, more=()):
        """Runs the command, with `more` options, and the fault at a point."""
        self.reset()
        calls, call, n = point
        return self.lab.run([*calls.under(call, n, fault, on), *more])

    def expect_whole(self, what):
        """The next start goes on from a whole checkpoint and ends as if nothing had happened; returns its step."""
        again = self.lab.train(self.run.folder, *self.options, steps=AFTER)
        again.expect(DONE)
        expect("checkpoint skipped" not in again.log, f"{what}: half a checkpoint was found: {again.tail()}")
        at = resumed_at(again.log) or AFTER
        expect(at in (BEFORE, AFTER), f"{what}: went on from step {at}")
        self.lab.expect_same(self.run, self.reference, what)
        left = [p.name for p in self.run.checkpoints.iterdir() if p.name.startswith(".")]
        expect(not left, f"{what}: left behind: {left}")
        return at
