"""Three epochs with kills: each sample once an epoch. Changed data are refused.

With a learning rate of next to nothing and one sample a step, the loss of a step says which sample it was.
"""

import re

from lab import DONE, UNUSABLE, Run, expect

SAMPLE = 16


def test(lab):
    words = ["".join(lab.random.choices("abcdefghijklmnop ", k=40)) for _ in range(9 if lab.short else 40)]
    (lab.folder / "text").write_text("\n".join(words) + "\n")
    tokenize = [lab.ziggurat, "data", "tokenize", "--input", "text", "--tokenizer", "bytes", "--split", "1,0,0",
                "--document-per", "line", "--output", "data"]
    lab.run(tokenize).expect(DONE)
    options = ("data.train=data", "data.valid=\"\"", "model.vocab_size=257", "batch.global_batch=1", "optimizer.lr=1e-30",
               "optimizer.min_lr=0", "optimizer.weight_decay=0", "model.dropout={}", "precision=fp64", "checkpoint.every=5",
               "model.blocks=[{repeat: 2, pattern: [{ffn: dense}]}]")
    samples = samples_in(lab)
    steps, kills = 3 * samples, lab.trials(full=20, short=3)

    def train(until=steps):
        return lab.start_train(run.folder, *options, f"train.tokens={until * SAMPLE}")

    run = Run(lab.output("run"))
    for kill in range(kills):
        job = train()
        job.wait_for(lambda goal=(kill + 1) * steps // (kills + 1): run.last_step() >= goal, "step to be killed at")
        job.kill()
    train().wait().expect(DONE)
    losses = [loss for _, loss in sorted(run.losses().items())]
    expect(len(losses) == steps, f"{len(losses)} steps, not {steps}")
    epochs = [losses[i:i + samples] for i in range(0, steps, samples)]
    for i, epoch in enumerate(epochs):
        expect(len(set(epoch)) == samples, f"epoch {i + 1}: {samples - len(set(epoch))} samples came twice")
        expect(set(epoch) == set(epochs[0]), f"epoch {i + 1} had other samples than the first")
        expect(i == 0 or epoch != epochs[0], f"epoch {i + 1} was not shuffled anew")
    (lab.folder / "text").write_text("\n".join(words)[:-1] + "!\n")
    lab.run([*tokenize, "--overwrite"]).expect(DONE)
    train(until=steps + 1).wait().expect(UNUSABLE, "other data")
    return f"{kills} kills in 3 epochs of {samples} samples; one changed byte of text refused"


def samples_in(lab):
    """Of an epoch: whole sequences, each with the token after it."""
    shown = lab.run([lab.ziggurat, "data", "inspect", "data"]).expect(DONE)
    tokens = int(re.search(r"([\d,]+) tokens", shown.log)[1].replace(",", ""))
    return (tokens - 1) // SAMPLE
