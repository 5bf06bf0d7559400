"""lm-evaluation-harness's scores of an exported model, and of the model as `ziggurat serve` answers, beside the scores
of `ziggurat eval`: the same documents, compared one by one."""
import contextlib
import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path

import lm_eval.evaluator
import numpy as np
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lm_eval"))
import local_tasks

LARGEST_DIFFERENCE = 1e-3  # of a document's log-likelihood
METRICS = ("acc", "acc_norm")
logging.getLogger("lm_eval").setLevel(logging.ERROR)  # a line for every context that it cuts


def lm_eval_scores(model, task_name, data, limit):
    """Metrics, and for each document the log-likelihood and greediness of every continuation."""
    task = local_tasks.tasks(data)[task_name]
    name = task.config.task
    report = lm_eval.evaluator.evaluate(model, {name: task}, limit=limit, bootstrap_iters=0, log_samples=True)
    samples = sorted(report["samples"][name], key=lambda sample: sample["doc_id"])
    scores = [(float(ll), str(greedy) == "True") for s in samples for ((ll, greedy),) in s["resps"]]
    return report["results"][name], scores


def ziggurat_scores(evaluated):
    """The same of what `ziggurat eval --output NAME.json --scores NAME.jsonl` wrote."""
    (metrics,) = json.loads(evaluated.with_suffix(".json").read_text())["results"].values()
    lines = evaluated.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
    return metrics, [(row["log_likelihood"], row["greedy"]) for row in map(json.loads, lines)]


@contextlib.contextmanager
def served(ziggurat, folder, length):
    """The address at which `ziggurat serve` answers for the model in a folder."""
    log = folder / "serve.log"
    with open(log, "w") as file:
        command = [ziggurat, "serve", "--checkpoint", folder / "run/checkpoints", "--port", "0", "--threads", "2"]
        process = subprocess.Popen([*command, "--max-length", str(length)], stdout=file, stderr=file)
    try:
        while not (address := re.search(r"http://127\S+", log.read_text())):
            if process.poll() is not None:
                raise SystemExit(f"ziggurat serve ended:\n{log.read_text()}")
            time.sleep(0.05)
        yield address[0]
    finally:
        process.terminate()
        process.wait()


def compare(ours, theirs):
    """The largest difference of a log-likelihood, and faults."""
    (our_metrics, our_scores), (their_metrics, their_scores) = ours, theirs
    if len(our_scores) != len(their_scores):
        return float("nan"), [f"{len(their_scores)} continuations, ours {len(our_scores)}"]
    difference = float(np.max(np.abs([a[0] - b[0] for a, b in zip(our_scores, their_scores)])))  # keeps a NaN
    faults = []
    if not difference <= LARGEST_DIFFERENCE:
        faults.append(f"a log-likelihood differs by {difference:.1e}")
    if other := sum(a[1] != b[1] for a, b in zip(our_scores, their_scores)):
        faults.append(f"{other} continuations are greedy for one only")
    for metric in METRICS:
        a, b = (m.get(metric + ",none") for m in (our_metrics, their_metrics))
        if a != b:
            faults.append(f"{metric} {b}, ours {a}")
    return difference, faults


def check_that_faults_are_found():
    """What compare must not take for equal."""
    metrics, scores = {"acc,none": 0.5}, [(-3.0, True), (-40.0, False)]
    assert compare((metrics, scores), (metrics, scores)) == (0.0, [])
    for other in (
        (metrics, [(-3.0, True), (-40.002, False)]),
        (metrics, [(float("nan"), True), (-40.0, False)]),
        (metrics, [(-3.0, False), (-40.0, False)]),
        (metrics, scores[:1]),
        ({"acc,none": 0.52}, scores),
        ({}, scores),
    ):
        assert compare((metrics, scores), other)[1], other


def report(model, task, way, ours, theirs):
    difference, faults = compare(ours, theirs)
    scores = [" ".join(f"{m} {s[0][m + ',none']:.4f}" for m in (*METRICS, "perplexity") if m + ",none" in s[0])
              for s in (ours, theirs)]  # fmt: skip
    print(f"| {model} | {task} | {way} | {scores[0]} | {scores[1]} | {difference:.1e}"
          f" | {'WRONG' if faults else 'equal'} |", *faults, sep="\n  ", flush=True)  # fmt: skip
    return len(faults)


def main(ziggurat, data, limit, lengths):
    """lengths: of a task, the tokens that the model sees; evaluated files are called TASK_LENGTH."""
    check_that_faults_are_found()
    print("\n| model | task, tokens seen | lm-eval | ziggurat eval | lm-eval's scores | largest difference of a log-likelihood"
          " | greedy texts, accuracy |\n|---|---|---|---|---|---|---|")  # fmt: skip
    wrong = 0
    runs = [tuple(pair.split(":")) for pair in lengths.split(",")]
    longest = max(int(length) for _, length in runs)
    for folder in sorted(Path(".").glob("judged_*")):
        ours = {run: ziggurat_scores(folder / "_".join(run)) for run in runs}
        for task, length in runs:
            model = HFLM(pretrained=str(folder / "hf"), trust_remote_code=True, dtype="float32", device="cpu",
                         batch_size=16, max_length=int(length))  # fmt: skip
            theirs = lm_eval_scores(model, task, data, limit)
            wrong += report(folder.name, f"{task}, {length}", "hf", ours[task, length], theirs)
        with served(ziggurat, folder, longest) as address:
            model = LocalCompletionsAPI(base_url=address, tokenizer_backend="remote", tokenized_requests=True,
                                        max_length=longest)  # fmt: skip
            for task, length in runs:
                if int(length) == longest:  # it cuts long contexts by another rule than lm-eval's own models
                    theirs = lm_eval_scores(model, task, data, limit)
                    wrong += report(folder.name, f"{task}, {length}", "local-completions", ours[task, length], theirs)
    return wrong
