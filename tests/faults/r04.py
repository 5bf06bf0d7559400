"""The disk of the checkpoints is full: warned before, nothing half, and the next save after making room is good."""

from lab import DONE, UNUSABLE, Run, expect, resumed_at

# Of steps that take so long each save has ended before the next begins.
SLOW = {"ZIGGURAT_INJECT": "step:delay:ms=150:times=0"}
STEPS = 8


def test(lab):
    options = ("checkpoint.keep=0",)
    reference = lab.reference(*options, steps=STEPS)
    size = sum(p.stat().st_size for p in reference.step(STEPS).iterdir())
    disk = lab.tmpfs("disk", 5 * size)
    filler = disk / "filler"

    def run_on_disk(name):
        run = Run(lab.output(name))
        run.folder.mkdir()
        (disk / name).mkdir()
        run.checkpoints.symlink_to(disk / name)
        return run

    def fill():
        filler.write_bytes(bytes(7 * size // 2))  # then there is room for one and a half

    fill()
    run = run_on_disk("full")
    full = lab.train(run.folder, *options, steps=STEPS, environment=SLOW)
    full.expect(UNUSABLE, "make room", "errno 28")  # the last save failed
    saved = run.steps_saved()
    expect(saved == [2], f"expected the checkpoint of step 2 alone, got {saved}")
    filler.unlink()
    again = lab.train(run.folder, *options, steps=STEPS).expect(DONE)
    expect(resumed_at(again.log) == 2, f"went on from step {resumed_at(again.log)}")
    lab.expect_same(run, reference, "after making room")
    for path in (disk / "full").iterdir():
        for file in path.iterdir():
            file.unlink()

    fill()
    run = run_on_disk("freed")
    job = lab.start_train(run.folder, *options, steps=STEPS, environment=SLOW)
    job.wait_for_text("errno 28")
    filler.unlink()
    job.wait().expect(DONE)
    saved = run.steps_saved()
    expect(saved[0] == 2 and saved[-1] == STEPS and 4 not in saved, f"expected all but step 4, got {saved}")
    lab.expect_same(run, reference, "room made while it ran")
    return "a disk for one checkpoint and a half: full to the end, resumed with room, and room made while it ran"
