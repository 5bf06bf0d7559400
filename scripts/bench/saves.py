#!/usr/bin/env python3
"""What saving costs a run: how long training waits for a save, the disk's rate, the time from a start to its first step,
anew and resumed, and the memory that a save takes beside what `ziggurat plan` says.

saves.py [--ziggurat BINARY] [--ranks N] [--interval SECONDS] [--saves N] [--folder DIR] [CONFIG]

CONFIG, by default the quickstart model, trains on synthetic data, in DIR (default: /tmp), whose disk is measured.
"""
import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2]


class Runs:
    def __init__(self, options, folder):
        self.options, self.folder = options, Path(folder)
        synthetic = ["data.train=synthetic", "data.valid=synthetic", 'data.tokenizer=""', "eval.every=0", "eval.sequences=0"]
        self.keys = [str(options.config), *synthetic, "checkpoint.keep=0", "checkpoint.resume=auto", "train.tokens=1B"]
        self.environment = dict(os.environ, OMP_WAIT_POLICY="passive", OMPI_ALLOW_RUN_AS_ROOT="1",
                                OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
                                OMPI_MCA_hwloc_base_binding_policy="none")

    def train(self, name, until, *keys):
        """Trains until a condition on its records holds; returns them, and the seconds until each was there."""
        metrics = self.folder / name / "metrics.jsonl"
        before = len(records(metrics))
        command = ["mpirun", "-n", self.options.ranks, self.options.ziggurat, "train", *self.keys, f"output={self.folder / name}", *keys]
        log = open(self.folder / f"{name}.log", "ab")
        begun = time.monotonic()
        job = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, env=self.environment)
        came = []
        while not came or not until([r for r, _ in came]):
            time.sleep(0.005)
            found = records(metrics)[before:]
            came += [(r, time.monotonic() - begun) for r in found[len(came):]]
            if job.poll() is not None and not until([r for r, _ in came]):
                sys.exit(f"{' '.join(map(str, command))} ended with {job.returncode}: {log.name}")
        job.terminate() if "checkpoint.every=0" in keys else job.send_signal(10)  # SIGUSR1: saves and ends
        job.wait()
        return came

    def plan(self):
        command = [self.options.ziggurat, "plan", *self.keys, "--ranks", str(self.options.ranks)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        amount, unit = re.search(r"copy of a checkpoint +([\d.]+)(\w+)", text).groups()
        return float(amount) * {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[unit]


def records(path):
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def of(kind, came):
    return [r for r in came if r["kind"] == kind]


def first_step(came):
    return next(seconds for record, seconds in came if record["kind"] == "step")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ziggurat", default=SOURCE / "build/release/ziggurat", type=Path)
    parser.add_argument("--ranks", default=2, type=int)
    parser.add_argument("--interval", default=10, type=float)
    parser.add_argument("--saves", default=4, type=int)
    parser.add_argument("--folder")
    parser.add_argument("config", nargs="?", default=SOURCE / "configs/quickstart/pr_moe.yaml", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ziggurat_saves_", dir=options.folder) as folder:
        runs = Runs(options, folder)
        calm = runs.train("calm", lambda all: len(of("step", all)) >= 20, "checkpoint.every=0")
        steps = of("step", [r for r, _ in calm])
        step_seconds = statistics.median(r["step_seconds"] for r in steps[5:])
        every = max(1, math.ceil(options.interval / step_seconds))
        told = [r for r, _ in runs.train("run", lambda all: len(of("checkpoint", all)) >= options.saves, f"checkpoint.every={every}")]
        saves = of("checkpoint", told)
        resumed = runs.train("run", lambda all: len(of("step", all)) >= 2, f"checkpoint.every={every}")
        stall = statistics.median(r["stall_seconds"] for r in saves)
        least = min(r["memory_bytes"] for r in of("step", told)[5:every])
        most = max(r["memory_bytes"] for r in of("step", told))
        mib = 1 << 20
        print(f"{options.config.stem}, {options.ranks} ranks, a save of {saves[0]['bytes'] / mib:.1f} MiB every {every} steps, "
              f"{every * step_seconds:.1f} s")
        print(f"training waits        {1e3 * stall:.1f} ms a save (longest {1e3 * max(r['stall_seconds'] for r in saves):.1f}), "
              f"{100 * stall / (every * step_seconds):.2f} % of the interval")
        print(f"disk                  {statistics.median(r['bytes_per_second'] for r in saves) / mib:.0f} MiB/s")
        print(f"to the first step     {first_step(calm):.2f} s anew, {first_step(resumed):.2f} s resumed")
        print(f"memory of a save      {(most - least) / mib:.1f} MiB a rank, of {runs.plan() / mib:.1f} planned")


if __name__ == "__main__":
    main()
