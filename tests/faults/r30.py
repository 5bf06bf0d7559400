"""NaN or infinity in one rank's loss, gradient, expert or weight: all ranks agree; skipped or stopped; never saved."""

from lab import DONE, NUMERIC, Run, expect, resumed_at

STEP = 5
PLACES = ["loss:nan", "loss:inf", "gradient:nan", "gradient:inf", "gradient:nan:tensor={expert}", "master:nan", "weight:inf",
          "master:inf:tensor={expert}"]


def test(lab):
    expert = experts_of(lab)
    places = lab.some(PLACES, short=3)
    for place in places:
        of_values = place.startswith(("loss", "gradient"))
        fault = place.format(expert=expert) + f":rank=1:step={STEP}"
        run = Run(lab.output("run"))
        ended = lab.train(run.folder, "checkpoint.keep=0", ranks=2, steps=9, environment={"ZIGGURAT_INJECT": fault + ":times=0"})
        expect(ended.code == NUMERIC, f"{place}: exit code {ended.code}: {ended.tail()}")
        for rank in range(2):
            expect(f"rank {rank} of 2: numeric error: step {STEP}" in ended.log, f"{place}: rank {rank} does not agree: {ended.log[-800:]}")
        expect(run.steps_saved() == [2, 4], f"{place}: saved {run.steps_saved()}")
        again = lab.train(run.folder, "checkpoint.keep=0", ranks=2, steps=9).expect(DONE)
        expect(resumed_at(again.log) == 4, f"{place}: went on from step {resumed_at(again.log)}")
        if not of_values:
            continue
        skipped = Run(lab.output("skipped"))
        lab.train(skipped.folder, "guard.non_finite=skip", ranks=2, steps=9, environment={"ZIGGURAT_INJECT": fault}).expect(DONE)
        left_out = [r["step"] for r in skipped.records("step") if r.get("left_out")]
        expect(left_out == [STEP], f"{place}: updates left out at {left_out}")
        expect(skipped.records("step")[-1].get("updates_left_out") == 1, f"{place}: counted {skipped.records('step')[-1].get('updates_left_out')}")
    return f"{len(places)} places stopped on both ranks at step {STEP}, never saved; those of values skipped and counted"


def experts_of(lab):
    """The name of a parameter of experts."""
    names = [n for n in lab.reference(ranks=2, steps=2).state() if "expert" in n and not n.startswith("adam.")]
    return names[0]
