"""A disk so slow that saves overlap: at most two copies in memory, order kept, and the wait of the training told."""

from lab import DONE, Run, expect


def test(lab):
    steps = 6 if lab.short else 20
    options = ("checkpoint.every=1", "checkpoint.keep=0")
    # Of some size, so that copies show in the memory: against a run that waits for its saves, and so needs none.
    wide = ("model.hidden=128", "model.vocab_size=4096")
    fast, slow = Run(lab.output("fast")), Run(lab.output("slow"))
    lab.train(fast.folder, *options, *wide, "checkpoint.async=false", steps=steps).expect(DONE)
    slowed = lab.train(slow.folder, *options, *wide, steps=steps,
                       environment={"ZIGGURAT_INJECT": "write:delay:ms=300:times=0"}).expect(DONE)
    expect(slow.steps_saved() == list(range(1, steps + 1)), f"saved {slow.steps_saved()}")
    committed = [slow.step(s).joinpath("manifest.json").stat().st_mtime_ns for s in slow.steps_saved()]
    expect(committed == sorted(committed), "saves were committed in another order than made")
    expect(slow.state() == fast.state(), "another state")
    copy = sum(p.stat().st_size for p in slow.step(steps).iterdir())
    memory = [max(r["memory_bytes"] for r in run.records("step")) for run in (fast, slow)]
    copies = (memory[1] - memory[0]) / copy
    expect(1.5 < copies < 2.5, f"{memory[1] - memory[0]} bytes more for saves of {copy}")
    stalls = [r for r in slow.records("checkpoint") if r.get("stall_seconds", 0) > 0.1]
    expect(stalls, f"no word of the training's wait: {slowed.tail()}")
    return f"{steps} overlapping saves in order, {copies:.1f} copies in memory, {len(stalls)} waits told"
