"""Half of the ranks are cut off: each side says that the other is missing, and neither saves."""

from hang import expect_named
from lab import expect


def test(lab):
    trials = lab.trials(full=3, short=1)
    for trial in range(trials):
        step = 2 * trial + 3
        run, _ = expect_named(lab, f"half at step {step}", {2, 3}, 4, f"reduce:stop:rank=2:step={step};reduce:stop:rank=3:step={step}",
                              ("parallel.ranks_per_node=2",))
        saved = run.steps_saved()
        expect(not saved or saved[-1] < step, f"{saved} were saved, half of the job was gone at step {step}")
    return f"{trials} cuts between 2 and 2 ranks"
