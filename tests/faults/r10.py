"""A rank's shard of another step, run or rank is refused, though it is a whole one."""

from damage import BAD, GOOD, Damaged, replace
from lab import DONE, Run


def test(lab):
    damaged = Damaged(lab)
    other = Run(lab.output("other"))
    lab.train(other.folder, "seed=77", ranks=2, steps=BAD).expect(DONE)
    twin = Run(lab.output("twin"))  # the same values, of a run with another name
    lab.train(twin.folder, "name=twin", ranks=2, steps=BAD).expect(DONE)
    shards = [p for p in damaged.files if p.suffix == ".safetensors"]
    trials = 0
    for shard, partner in zip(shards, reversed(shards)):
        sources = {"another step": damaged.run.step(GOOD) / shard.name, "another run": other.step(BAD) / shard.name,
                   "a run of the same values": twin.step(BAD) / shard.name, "another rank": partner}
        for what, source in sources.items():
            undo = replace(shard, lambda path, _, content=source.read_bytes(): path.write_bytes(content))
            damaged.expect_refused(f"{shard.name} of {what}", [str(shard), "damaged"],
                                   fall_back=not lab.short)
            undo()
            trials += 1
    return f"{trials} shards of another step, run or rank, {damaged.fallbacks} fallbacks ended Same"
