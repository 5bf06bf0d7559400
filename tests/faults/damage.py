"""Checkpoints that something happened to: refused before a step, and the one before is taken instead."""

import shutil

from lab import UNUSABLE, DONE, Run, expect, resumed_at

GOOD, BAD, STEPS = 2, 4, 6


class Damaged:
    """A run of 2 ranks with the checkpoints of steps 2 and 4, of which the later will be damaged."""

    def __init__(self, lab):
        self.lab = lab
        self.run = Run(lab.output("damaged"))
        lab.train(self.run.folder, ranks=2, steps=BAD).expect(DONE)
        self.reference = lab.reference(ranks=2, steps=STEPS)
        self.files = sorted(p for p in self.run.step(BAD).iterdir())
        self.fallbacks = 0

    def expect_refused(self, what, texts, fall_back):
        """Alone it is refused; with the one before, a copy of the run falls back to that and ends Same."""
        alone, spare = self.lab.output("alone"), self.lab.folder / "spare"
        self.run.step(GOOD).rename(spare)
        refused = self.lab.train(self.run.folder, steps=STEPS)
        spare.rename(self.run.step(GOOD))
        expect(refused.code == UNUSABLE, f"{what}: exit code {refused.code}: {refused.tail()}")
        for text in texts:
            expect(text in refused.log, f"{what}: expected '{text}' in: {refused.tail()}")
        expect("step 5/" not in refused.log, f"{what}: a step was trained")
        if not fall_back:
            return
        self.fallbacks += 1
        run = self.lab.copy(self.run, alone.name)
        ended = self.lab.train(run.folder, ranks=2, steps=STEPS).expect(DONE, "checkpoint skipped", f"step_{BAD:08d}")
        expect(resumed_at(ended.log) == GOOD, f"{what}: went on from step {resumed_at(ended.log)}")
        self.lab.expect_same(run, self.reference, what)


def replace(path, action):
    """Does something to a file, and returns what undoes it."""
    content = path.read_bytes()
    action(path, content)

    def undo():
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        path.write_bytes(content)

    return undo
