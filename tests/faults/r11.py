"""Damaged files for every reader: no crash, no undefined behaviour, no hang, little memory."""

import re

from lab import DONE, expect


def test(lab):
    if lab.short:
        command = [lab.fuzz(), lab.seeds(), lab.folder / "work", "--memory", "--inputs", lab.trials(1, 3000)]
        return summary(lab.run(command))
    fuzz = lab.source / "scripts" / "fuzz.sh"
    plain = summary(lab.run([fuzz, "--no-build", "--release", "--inputs", lab.trials(200_000, 1)], timeout=3 * 3600))
    sanitized = summary(lab.run([fuzz, "--inputs", lab.trials(1_000_000, 1), "--seconds", "3600"], timeout=3 * 3600))
    return f"{plain}; under sanitizers {sanitized}"


def summary(ended):
    expect(ended.code == DONE, f"{ended.tail()}")
    return re.search(r"\d+ inputs of .*", ended.log)[0]
