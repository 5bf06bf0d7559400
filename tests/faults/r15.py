"""Resumed on other numbers of ranks and layouts: strict mode is Same, the other within 1e-6 for 50 steps."""

from lab import DONE, Run, expect, expect_same_losses

STRICT = ("reproducible=strict", "checkpoint.every=0")


def chain(lab, name, options, parts):
    """One run in parts, each (ranks, until this step, more options)."""
    run = Run(lab.output(name))
    for ranks, steps, more in parts:
        lab.train(run.folder, *options, *more, ranks=ranks, steps=steps).expect(DONE)
    return run


def test(lab):
    flat, zero, node = (), ("parallel.zero=1",), ("parallel.ranks_per_node=2", "parallel.all_to_all=hierarchical")
    parts = [(4, 2, flat), (2, 4, zero), (1, 6, flat)] if lab.short else \
        [(8, 2, flat), (4, 4, node), (2, 6, zero), (1, 8, flat), (8, 10, zero)]
    last = parts[-1][1]
    reference = lab.reference(*STRICT, steps=last)
    run = chain(lab, "strict", STRICT, parts)
    lab.expect_same(run, reference, "strict, on " + ", ".join(f"{ranks}" for ranks, _, _ in parts) + " ranks")

    # Experts on more and fewer ranks: the model says where each layer's lie.
    def experts(n):
        return ("model.blocks=[{repeat: 1, pattern: [{ffn: dense}, "
                f"{{ffn: residual_moe, experts: 4, expert_parallel: {n}}}]}}]",)

    run = chain(lab, "experts", STRICT + ("checkpoint.allow_model_changes=true",),
                [(2, 2, experts(2)), (2, 4, experts(1))] + ([] if lab.short else [(4, 6, experts(4)), (4, 8, experts(2))]))
    expect_same_losses(run.losses(), {s: x for s, x in reference.losses().items() if s <= run.last_step()},
                       "strict, experts on other ranks")

    steps = 10 if lab.short else 50
    fast = lab.reference("checkpoint.every=0", steps=steps)
    run = chain(lab, "fast", ("checkpoint.every=0",), [(2, steps // 2, flat), (1, steps, flat)] if lab.short else
                [(8, 10, flat), (4, 20, flat), (2, 30, zero), (1, 40, flat), (8, 50, flat)])
    worst = 0
    for step, loss in fast.losses().items():
        a, b = float.fromhex(loss), float.fromhex(run.losses()[step])
        worst = max(worst, abs(a - b) / abs(a))
    expect(worst < 1e-6, f"without strict mode a loss differs by {worst:.1e}")
    cursors = [r["samples"] for r in run.records("step")]
    expect(cursors == [r["samples"] for r in fast.records("step")], "other samples consumed")
    return f"strict: {len(parts)} layouts Same; fast: {steps} steps, at most {worst:.0e} apart"
