"""The evaluation sets as they lie on this disk, as documents and tasks of lm-evaluation-harness."""
import ast
import csv
import glob
import json
import os


def jsonl(data, path):
    with open(os.path.join(data, path), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def documents(data):
    """Rows with the fields of the data sets that lm_eval would load, by task; none where a folder is missing."""
    labels = open(os.path.join(data, "piqa/valid-labels.lst")).read().split() if has(data, "piqa") else []
    race, articles = [], {}
    for name in sorted(glob.glob(os.path.join(data, "race/test/high/*.txt"))):
        item = json.load(open(name, encoding="utf-8"))
        problems = [{"question": q, "answer": a, "options": o}
                    for q, a, o in zip(item["questions"], item["answers"], item["options"])]
        if item["article"] not in articles:
            race.append({"article": item["article"], "problems": articles.setdefault(item["article"], [])})
        articles[item["article"]] += problems
    trivia = []
    if has(data, "triviaqa"):
        with open(os.path.join(data, "triviaqa/unfiltered-web-dev.tsv"), encoding="utf-8", newline="") as file:
            trivia = [(q, ast.literal_eval(a)) for q, a in csv.reader(file, delimiter="\t")]
    return {
        "lambada": jsonl(data, "lambada/lambada_test.jsonl") if has(data, "lambada") else [],
        "piqa": [dict(row, label=int(label)) for row, label in zip(jsonl(data, "piqa/valid.jsonl"), labels)]
        if has(data, "piqa") else [],
        "boolq": [{"passage": r["title"] + " -- " + r["passage"], "question": r["question"], "label": int(r["answer"])}
                  for r in jsonl(data, "boolq/dev.jsonl")] if has(data, "boolq") else [],
        "race": race,
        "triviaqa": [{"Question": q, "question": q, "Answer": {"Aliases": a}, "answer": {"aliases": a}}
                     for q, a in trivia],
        "webqs": [{"question": r["qText"], "answers": r["answers"]}
                  for r in json.load(open(os.path.join(data, "webqs/test.json"), encoding="utf-8"))]
        if has(data, "webqs") else [],
    }


def has(data, name):
    return os.path.isdir(os.path.join(data, name))


def tasks(data):
    """Today's tasks of the installed lm_eval on these documents, by our name."""
    import datasets
    import lm_eval.tasks
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    folder = os.path.dirname(lm_eval.tasks.__file__)
    files = {"lambada": "lambada/lambada_openai.yaml", "piqa": "piqa/piqa.yaml",
             "boolq": "super_glue/boolq/default.yaml", "race": "race/race.yaml", "triviaqa": "triviaqa/default.yaml",
             "webqs": "webqs/webqs.yaml"}
    made, docs = {}, documents(data)
    for name, path in files.items():
        rows = [{k: v for k, v in row.items() if k not in ("Question", "Answer")} for row in docs[name]]
        if not rows:
            continue
        if name == "race":
            rows = [dict(row, problems=repr(row["problems"])) for row in rows]
        config = dict(load_yaml(os.path.join(folder, path), resolve_func=True))
        split = config.get("test_split") or config["validation_split"]
        config["custom_dataset"] = lambda rows=rows, split=split, **_: {split: datasets.Dataset.from_list(rows)}
        for key in ("training_split", "validation_split", "test_split"):
            if config.get(key) != split:
                config[key] = None
        made[name] = ConfigurableTask(config=config)
    return made
