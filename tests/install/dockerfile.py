#!/usr/bin/env python3
"""The steps of a Dockerfile's stage, one a line, TAB between them: what to do, and its text.

dockerfile.py FILE STAGE    FROM, RUN, WORKDIR, COPY, ADD and ENV as they stand, continued lines joined
"""
import re
import sys


def steps(text, stage):
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\s*\\\n\s*", " ", text)
    found, here = [], 0
    for line in text.splitlines():
        if not line.strip():
            continue
        word, rest = line.split(maxsplit=1)
        here += word == "FROM"
        if here == stage:
            found.append((word, rest))
    return found


if __name__ == "__main__":
    for word, rest in steps(open(sys.argv[1], encoding="utf-8").read(), int(sys.argv[2])):
        print(f"{word}\t{rest}")
