#!/usr/bin/env python3
"""Small made-up evaluation sets in the form of LAMBADA and PIQA, for where the public ones do not lie on the disk.

make_evaluation_set.py DIR
"""
import json
import random
import sys
from pathlib import Path

PEOPLE = ("Anna", "Ben", "Chloé", "Dmitri", "Zoë", "Émile")
THINGS = ("lamp", "coat", "violin", "kettle", "map", "café sign")
PLACES = ("shelf", "table", "roof", "piano", "stairs", "crate")


def main(folder):
    draw = random.Random(7)
    words, goals, labels = [], [], []
    for _ in range(400):
        one, other = draw.sample(PEOPLE, 2)
        thing, place = draw.choice(THINGS), draw.choice(PLACES)
        break_ = draw.choice((" ", "\n\n"))
        words.append(f"{one} put the {thing} on the {place}.{break_}\"Where is it?\" {other} asked, and {one} said that"
                     f" the {thing} was still on the {place}")  # fmt: skip
        wrong = draw.choice([p for p in PLACES if p != place])
        label = draw.randrange(2)
        solutions = [f"Take it from the {p}, and put it back on the {p} afterwards." for p in (place, wrong)]
        goals.append({"goal": f"{one} put the {thing} on the {place}. How does {other} get it?",
                      "sol1": solutions[label], "sol2": solutions[1 - label]})  # fmt: skip
        labels.append(label)
    write(folder / "lambada/lambada_test.jsonl", [json.dumps({"text": w}) for w in words])
    write(folder / "piqa/valid.jsonl", [json.dumps(g) for g in goals])
    write(folder / "piqa/valid-labels.lst", [str(label) for label in labels])


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
