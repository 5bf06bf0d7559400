#!/usr/bin/env python3
"""Today's lm-evaluation-harness on evaluation sets that lie on this disk.

run.py --data DIR --tasks lambada,piqa --model hf --model-args pretrained=DIR [--limit N] [--batch-size N] [--output FILE]
run.py --data DIR --tasks lambada --model local-completions
       --model-args base_url=http://127.0.0.1:8000/v1/completions,tokenizer_backend=remote,tokenized_requests=True,max_length=N

Writes {"results", "seconds"}; seconds are those of the evaluation, without loading the model.
"""
import argparse
import json
import sys
import time

import local_tasks


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--model", default="hf")
    parser.add_argument("--model-args", default="")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch-size", default="16")
    parser.add_argument("--output")
    arguments = parser.parse_args()

    import lm_eval.api.registry
    import lm_eval.evaluator

    all_tasks = local_tasks.tasks(arguments.data)
    wanted = {all_tasks[name].config.task: all_tasks[name] for name in arguments.tasks.split(",")}
    model = lm_eval.api.registry.get_model(arguments.model).create_from_arg_string(
        arguments.model_args, {"batch_size": arguments.batch_size, "device": "cpu"})
    started = time.time()
    results = lm_eval.evaluator.evaluate(model, wanted, limit=arguments.limit, bootstrap_iters=0)
    report = {"results": results["results"], "seconds": time.time() - started}
    text = json.dumps(report, indent=2, default=str)
    if arguments.output:
        with open(arguments.output, "w") as file:
            file.write(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
