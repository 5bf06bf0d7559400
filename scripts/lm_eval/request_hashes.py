#!/usr/bin/env python3
"""The request hashes of tests/unit/eval/task_test.cpp, by lm-evaluation-harness's own code.

request_hashes.py DATA [LM_EVAL_0_2_0]

DATA: a folder with the public files (or files of their form, as tests/unit/eval/data).
LM_EVAL_0_2_0: the unpacked source of lm_eval 0.2.0 (pip download --no-deps --no-binary :all: lm_eval==0.2.0).
Today's lm_eval is the installed one. Only documents are made here; prompts, continuations and their order are lm_eval's.
"""
import hashlib
import importlib
import json
import os
import random
import sys
import types
import unittest.mock

import local_tasks

def report(form, task, requests):
    digest = hashlib.sha256(json.dumps(requests, sort_keys=True).encode()).hexdigest()
    print(form, task, len(requests), digest)


def old_task_classes(root):
    """0.2.0's task classes, without what it depends on: that no longer installs together."""
    stand_ins = ("torch", "torch.nn", "torch.nn.functional", "sqlitedict", "tqdm", "best_download", "jsonlines",
                 "sacrebleu", "rouge_score", "sklearn", "sklearn.metrics", "transformers", "transformers.data",
                 "transformers.data.metrics", "transformers.data.metrics.squad_metrics", "datasets", "lm_eval.metrics",
                 "lm_eval.utils")
    for name in stand_ins:
        sys.modules[name] = unittest.mock.MagicMock()
    sys.modules["datasets"].__version__ = "1.15.1"  # race.py insists
    for name in ("lm_eval", "lm_eval.tasks"):  # their own __init__ would load everything
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [os.path.join(root, *name.split("."))]
    names = {"lambada": ("lambada", "LAMBADA"), "piqa": ("piqa", "PiQA"), "boolq": ("superglue", "BoolQ"),
             "race": ("race", "RACE"), "triviaqa": ("triviaqa", "TriviaQA"), "webqs": ("webqs", "WebQs")}
    classes = {task: getattr(importlib.import_module("lm_eval.tasks." + file), cls)
               for task, (file, cls) in names.items()}
    for name in [n for n in sys.modules if n in stand_ins or n.split(".")[0] == "lm_eval"]:
        del sys.modules[name]
    return classes


def old_hashes(root, docs):
    for name, cls in old_task_classes(root).items():
        task = object.__new__(cls)
        order = list(docs[name])
        if not order:
            continue
        random.Random(42).shuffle(order)
        requests = []
        for doc in order:
            doc = json.loads(json.dumps(doc))
            if hasattr(task, "_convert_standard"):
                doc = task._convert_standard(doc)
            made = task.construct_requests(doc, task.doc_to_text(doc))
            requests += [list(r.args) for r in (made if isinstance(made, (list, tuple)) else [made])]
        report("v0", name, requests)


def current_hashes(data):
    for name, task in local_tasks.tasks(data).items():
        task.build_all_requests(limit=None, rank=0, world_size=1)
        report("current", name, [list(instance.args) for instance in task.instances])


if __name__ == "__main__":
    if len(sys.argv) > 2:
        old_hashes(sys.argv[2], local_tasks.documents(sys.argv[1]))
    current_hashes(sys.argv[1])
