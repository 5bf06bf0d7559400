"""Another config on resume: what changed is told; another shape is refused, another schedule asks for a flag."""

from lab import DONE, USAGE, Run, expect, resumed_at


def test(lab):
    base = Run(lab.output("base"))
    lab.train(base.folder, steps=2).expect(DONE)
    refused = {
        "model.hidden=32": "model.hidden: 16 -> 32",
        "model.vocab_size=64": "model.vocab_size: 96 -> 64",
        "model.heads=4": "model.heads: 2 -> 4",
        "model.blocks=[{repeat: 2, pattern: [{ffn: dense}]}]": "model.blocks",
    }
    schedules = {"optimizer.lr=1e-3": "optimizer.lr: 0.006 -> 0.001", "batch.global_batch=16": "batch.global_batch: 8 -> 16",
                 "optimizer.warmup_tokens=512": "optimizer.warmup_tokens: 256 -> 512",
                 "optimizer.schedule=constant": "optimizer.schedule: cosine -> constant"}
    for option, told in (refused | schedules).items():
        run = lab.copy(base, "run")
        before = run.hashes()
        lab.train(run.folder, option, steps=4).expect(USAGE, told, "checkpoint.allow_")
        expect(run.hashes() == before, f"{option}: a refused start changed the folder")
    for option, told in schedules.items():
        run = lab.copy(base, "run")
        ended = lab.train(run.folder, option, "checkpoint.allow_schedule_changes=true", steps=4).expect(DONE, told)
        expect(resumed_at(ended.log) == 2, f"{option}: went on from {resumed_at(ended.log)}")
    run = lab.copy(base, "run")
    lab.train(run.folder, "model.vocab_size=64", "checkpoint.allow_model_changes=true", steps=4).expect((USAGE, 3), "vocab")
    free = lab.train(lab.copy(base, "run").folder, "eval.every=2", "log.every=2", steps=4).expect(DONE, "eval.every: 0 -> 2")
    expect(resumed_at(free.log) == 2, "what is no schedule was not free to change")
    return f"{len(refused)} other models, {len(schedules)} other schedules, with and without a flag"
