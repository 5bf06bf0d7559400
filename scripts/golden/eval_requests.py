#!/usr/bin/env python3
"""The request hashes of tests/unit/eval/task_test.cpp, by lm-evaluation-harness's own code.

eval_requests.py DATA [LM_EVAL_0_2_0]

DATA: a folder with the public files (or files of their form, as tests/unit/eval/data).
LM_EVAL_0_2_0: the unpacked source of lm_eval 0.2.0 (pip download --no-deps --no-binary :all: lm_eval==0.2.0).
Today's lm_eval is the installed one. Only documents are made here; prompts, continuations and their order are lm_eval's.
"""
import ast
import csv
import glob
import hashlib
import importlib
import json
import os
import random
import sys
import types
import unittest.mock

DATA = sys.argv[1]


def jsonl(path):
    with open(os.path.join(DATA, path), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def documents():
    labels = open(os.path.join(DATA, "piqa/valid-labels.lst")).read().split() if has("piqa") else []
    race, articles = [], {}
    for name in sorted(glob.glob(os.path.join(DATA, "race/test/high/*.txt"))):
        item = json.load(open(name, encoding="utf-8"))
        problems = [{"question": q, "answer": a, "options": o}
                    for q, a, o in zip(item["questions"], item["answers"], item["options"])]
        if item["article"] not in articles:
            race.append({"article": item["article"], "problems": articles.setdefault(item["article"], [])})
        articles[item["article"]] += problems
    trivia = []
    if has("triviaqa"):
        with open(os.path.join(DATA, "triviaqa/unfiltered-web-dev.tsv"), encoding="utf-8", newline="") as file:
            trivia = [(q, ast.literal_eval(a)) for q, a in csv.reader(file, delimiter="\t")]
    return {
        "lambada": jsonl("lambada/lambada_test.jsonl") if has("lambada") else [],
        "piqa": [dict(row, label=int(label)) for row, label in zip(jsonl("piqa/valid.jsonl"), labels)]
        if has("piqa") else [],
        "boolq": [{"passage": r["title"] + " -- " + r["passage"], "question": r["question"], "label": int(r["answer"])}
                  for r in jsonl("boolq/dev.jsonl")] if has("boolq") else [],
        "race": race,
        "triviaqa": [{"Question": q, "question": q, "Answer": {"Aliases": a}, "answer": {"aliases": a}}
                     for q, a in trivia],
        "webqs": [{"question": r["qText"], "answers": r["answers"]}
                  for r in json.load(open(os.path.join(DATA, "webqs/test.json"), encoding="utf-8"))]
        if has("webqs") else [],
    }


def has(name):
    return os.path.isdir(os.path.join(DATA, name))


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


def current_hashes(docs):
    import datasets
    import lm_eval.tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

    folder = os.path.dirname(lm_eval.tasks.__file__)
    files = {"lambada": "lambada/lambada_openai.yaml", "piqa": "piqa/piqa.yaml",
             "boolq": "super_glue/boolq/default.yaml", "race": "race/race.yaml", "triviaqa": "triviaqa/default.yaml",
             "webqs": "webqs/webqs.yaml"}
    from lm_eval.tasks._yaml_loader import load_yaml
    for name, path in files.items():
        rows = [dict(d) for d in docs[name]]
        if not rows:
            continue
        for row in rows:
            if name == "race":
                row["problems"] = repr(row["problems"])
            row.pop("Question", None), row.pop("Answer", None)
        config = dict(load_yaml(os.path.join(folder, path), resolve_func=True))
        split = config.get("test_split") or config["validation_split"]
        config["custom_dataset"] = lambda rows=rows, split=split, **_: {split: datasets.Dataset.from_list(rows)}
        for key in ("training_split", "validation_split", "test_split"):
            if config.get(key) != split:
                config[key] = None
        task = ConfigurableTask(config=config)
        task.build_all_requests(limit=None, rank=0, world_size=1)
        report("current", name, [list(instance.args) for instance in task.instances])


if __name__ == "__main__":
    all_documents = documents()
    if len(sys.argv) > 2:
        old_hashes(sys.argv[2], all_documents)
    current_hashes(all_documents)
