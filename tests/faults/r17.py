"""Checkpoints of every format that ever was: they load with the recorded loss; a later format is refused by number."""

import json
import re
import shutil

from lab import DONE, UNUSABLE, Run, expect

LOSS_OF_STEP_3 = float.fromhex("0x1.928823b253a3bp+1")  # told by the program that wrote them


def test(lab):
    formats = sorted((lab.source / "tests" / "golden" / "data" / "checkpoints").glob("format_*"))
    expect(formats, "there are no checkpoints of earlier formats")
    for golden in formats:
        run = copied(lab, golden)
        manifest = json.loads((run.step(2) / "manifest.json").read_text())
        (lab.folder / "golden.yaml").write_text(manifest["config"])
        log = log_of_one_step(lab, run)
        loss = float.fromhex(run.losses()[3])
        expect(abs(loss - LOSS_OF_STEP_3) < 1e-5, f"{golden.name}: the loss of step 3 is {loss}")
        expect(f"step_{2:08d}" in log, f"{golden.name}: {log[-300:]}")
    newest = int(formats[-1].name.split("_")[1])
    run = copied(lab, formats[-1])
    path = run.step(2) / "manifest.json"
    text = path.read_text()
    path.write_text(re.sub(r'"format_version": \d+', f'"format_version": {newest + 1}', text))
    lab.run([lab.fuzz(), "--repair", path]).expect(DONE)
    job = lab.run([lab.ziggurat, "train", "golden.yaml", f"output={run.folder}"])
    job.expect(UNUSABLE, f"format version {newest + 1}", f"to {newest}")
    return f"{len(formats)} formats with the recorded loss, format {newest + 1} refused by number"


def copied(lab, golden):
    run = Run(lab.output("run"))
    shutil.copytree(golden, run.checkpoints)
    return run


def log_of_one_step(lab, run):
    job = lab.start([lab.ziggurat, "train", "golden.yaml", f"output={run.folder}", "train.tokens=100M", "eval.every=0"])
    job.wait_for(lambda: run.last_step() >= 3, "step 3")
    job.kill()
    return job.log()
