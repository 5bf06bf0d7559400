"""A long run with many saves keeps its memory and its open files; at a limit it ends with a word of it."""

import os
import resource
import signal
import time

from lab import DONE, Run, expect


def test(lab):
    steps, saves = (900, 45) if lab.short else (2000, 50)
    run = Run(lab.output("run"))
    # A second copy, which comes when saves first overlap, is nearly a hundredth of so small a process: the short form
    # waits for its saves.
    saving = ["checkpoint.async=false"] if lab.short else []
    job = lab.start_train(run.folder, f"checkpoint.every={steps // saves}", "log.every=100", *saving, steps=steps)
    open_files = []
    early = steps // 2  # after saves that overlapped, whose buffers stay
    for at in (early, steps * 3 // 4):
        job.wait_for(lambda: run.last_step() >= at, f"step {at}")
        open_files.append(lasting_open_files(job))
    job.wait().expect(DONE)
    memory = {r["step"]: r["memory_bytes"] for r in run.records("step")}
    growth = memory[steps] / memory[early] - 1
    expect(growth < 0.01, f"memory grew by {100 * growth:.1f} % from step {early} to {steps}")
    expect(open_files[0] == open_files[1], f"open files: {open_files[0]}, later {open_files[1]}")

    limit = 3 << 30  # less than a model as large asks for
    wide = ("model.hidden=4096", "model.blocks=[{repeat: 12, pattern: [{ffn: dense}]}]")

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    ended = lab.train(lab.output("limited"), *wide, ranks=1, steps=2, preexec_fn=limited)
    expect(ended.code > 0, f"without memory: exit code {ended.code}")
    expect("memory" in ended.log, f"no word of the memory: {ended.tail()}")
    expect(ended.seconds < 60, f"without memory: {ended.seconds:.0f} s")
    return f"{steps} steps, {saves} saves: memory {100 * growth:+.2f} %, {open_files[0]} files open; a limit told"


def lasting_open_files(job):
    """The fewest of some looks: a save opens more for a moment. The job stands still meanwhile, so as not to end."""
    looks = []
    for _ in range(10):
        os.kill(job.pid, signal.SIGSTOP)
        looks.append(sum(file_is_lasting(job.pid, fd) for fd in os.listdir(f"/proc/{job.pid}/fd")))
        os.kill(job.pid, signal.SIGCONT)
        time.sleep(0.002)
    return min(looks)


def file_is_lasting(pid, fd):
    """Not of a checkpoint that is being written just now."""
    try:
        return "/checkpoints" not in os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return False
