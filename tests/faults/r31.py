"""Gradients fifty times too large once: exactly that step is left out on all ranks. Lasting: back, and past the samples."""

from lab import DONE, NUMERIC, Run, expect, expect_same_losses

WINDOW = 16


def test(lab):
    skip = ("guard.spike=skip", f"guard.spike_window={WINDOW}", "optimizer.warmup_tokens=0", "optimizer.lr=1e-3")
    trials = lab.trials(full=10, short=1)
    for _ in range(trials):
        step = lab.random.randrange(WINDOW, WINDOW + 10)
        run = Run(lab.output("run"))
        lab.train(run.folder, *skip, ranks=2, steps=step + 4,
                  environment={"ZIGGURAT_INJECT": f"gradient:scale:by=50:step={step}"}).expect(DONE, "left out on all ranks")
        left_out = [r["step"] for r in run.records("step") if r.get("left_out")]
        expect(left_out == [step], f"left out {left_out}, the spike was at {step}")
        clean = lab.reference(*skip, ranks=2, steps=WINDOW + 14)
        expect_same_losses({s: x for s, x in run.losses().items() if s < step},
                           {s: x for s, x in clean.losses().items() if s < step}, "before the spike")
    expect(not [r for r in clean.records("step") if r.get("left_out")], "an update of a clean run was left out")

    rewind = ("guard.spike=rewind", *skip[1:], "checkpoint.every=4")
    run = Run(lab.output("rewound"))
    step = WINDOW + 3
    ended = lab.train(run.folder, *rewind, ranks=2, steps=step + 6,
                      environment={"ZIGGURAT_INJECT": f"gradient:scale:by=50:step={step}:times=1"}).expect(DONE, "Back to step")
    told = run.records("rewind")
    expect(len(told) == 1, f"expected one rewind, got {told}: {ended.tail()}")
    again = Run(lab.output("again"))
    lab.train(again.folder, *rewind, ranks=2, steps=step + 6,
              environment={"ZIGGURAT_INJECT": f"gradient:scale:by=50:step={step}:times=1"}).expect(DONE)
    expect_same_losses(again.losses(), run.losses(), "the same rewind once more")
    strip = lambda r: {k: v for k, v in r.items() if k != "time"}
    expect([strip(r) for r in again.records("rewind")] == [strip(r) for r in told], "other samples skipped the second time")

    lasting = lab.train(lab.output("lasting"), *rewind, "guard.skip_limit=3", ranks=2, steps=step + 40,
                        environment={"ZIGGURAT_INJECT": f"gradient:scale:by=50:step={step}:times=0"})
    expect(lasting.code in (DONE, NUMERIC), f"lasting: exit code {lasting.code}: {lasting.tail()}")
    return f"{trials} spikes left out at their step; 1 rewind, replayed the same; a lasting one ended with {lasting.code}"
