"""A rank that is late in every step is named within 20 steps; of a clean run nobody is."""

from lab import DONE, Run, expect

STEPS = 25


def test(lab):
    run = Run(lab.output("slow"))
    late = "step:delay:ms=200:rank=2:times=0"
    lab.train(run.folder, "checkpoint.every=0", ranks=4, steps=STEPS, environment={"ZIGGURAT_INJECT": late}) \
        .expect(DONE, "rank 2 is slow")
    told = run.records("slow_rank")
    expect({r["rank"] for r in told} == {2}, f"expected rank 2 alone, got {told}")
    expect(told[0]["step"] <= 20 and told[0]["score"] < 0.75, f"told late or mildly: {told[0]}")
    clean = Run(lab.output("clean"))
    count = lab.trials(full=1000, short=100)
    lab.train(clean.folder, "checkpoint.every=0", "log.every=100", ranks=4, steps=count).expect(DONE)
    alarms = clean.records("slow_rank")
    expect(not alarms, f"false alarms: {alarms[:3]}")
    return f"named at step {told[0]['step']} with score {told[0]['score']:.2f}; 0 false alarms in {count} clean steps"
