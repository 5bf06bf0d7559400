"""What the fault tests share: tiny runs, references, kills, injected errors, and what "Same" means."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

CONFIG = """
name: tiny
precision: fp32
threads: 1
model: {vocab_size: 96, vocab_multiple: 32, max_sequence: 16, hidden: 16, heads: 2, init_std: 0.06,
  dropout: {hidden: 0.1},
  blocks: [{repeat: 1, pattern: [{ffn: dense}, {ffn: residual_moe, experts: 4, expert_parallel: 2}]}]}
batch: {sequence_length: 16, micro_batch: 1, global_batch: 8}
optimizer: {lr: 6.0e-3, min_lr: 1.0e-4, warmup_tokens: 256, decay_tokens: 10K}
eval: {every: 0, sequences: 0}
checkpoint: {every: 2, keep: 2}
data: {train: synthetic, valid: synthetic}
log: {every: 1, exact: true}
"""
TOKENS_OF_STEP = 16 * 8
LONG = 600  # seconds, which only what hangs takes
DONE, USAGE, UNUSABLE, REQUEUE, HANG, NUMERIC, GIVE_UP = 0, 2, 3, 75, 76, 77, 93


class Failure(Exception):
    """A criterion that does not hold."""


class Untried(Exception):
    """This machine, or this user, lacks what the test needs."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


class Ended:
    """A command that has ended: its exit code (negative: the signal) and all that it printed."""

    def __init__(self, code, log, seconds):
        self.code, self.log, self.seconds = code, log, seconds

    def expect(self, code, *texts):
        codes = code if isinstance(code, tuple) else (code,)
        expect(self.code in codes, f"expected exit code {code}, got {self.code}: {self.tail()}")
        for text in texts:
            expect(text in self.log, f"expected '{text}' in: {self.tail()}")
        return self

    def tail(self):
        return " / ".join(line[9:] for line in self.log.strip().splitlines()[-4:])[-600:]


class Job:
    """A command in a session of its own, so that nothing of it outlives a test."""

    def __init__(self, command, ziggurat, log, environment, cwd, **options):
        self.ziggurat, self.log_path, self.begun = ziggurat, log, time.monotonic()
        self.process = subprocess.Popen([str(word) for word in command], stdout=log.open("wb"),
                                        stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
                                        cwd=cwd, start_new_session=True, **options)
        self.pid = self.process.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def running(self):
        return self.process.poll() is None

    def wait(self, timeout=LONG):
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"did not end within {timeout} s: {self.log()[-300:]}") from None
        return Ended(code, self.log(), time.monotonic() - self.begun)

    def processes(self):
        """All of its session that live: whatever groups they have made, also those whose parent has died."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, _, session, *_ = stat.read_text().rpartition(")")[2].split()
                if int(session) == self.pid and state not in "ZX":
                    found.append(int(stat.parent.name))
        return found

    def ranks(self):
        """Those that are Ziggurat, by rank where mpirun gave them one."""
        ranks = {}
        for pid in self.processes():
            with contextlib.suppress(OSError):
                if not Path(f"/proc/{pid}/exe").samefile(self.ziggurat):
                    continue
                rank = re.search(rb"OMPI_COMM_WORLD_RANK=(\d+)", Path(f"/proc/{pid}/environ").read_bytes())
                ranks[int(rank[1]) if rank else 0] = pid
        return ranks

    def wait_for(self, condition, what, timeout=LONG):
        wait_until(lambda: condition() or not self.running(), what, timeout, self)
        expect(condition(), f"the job ended before {what}: {self.log()[-400:]}")

    def wait_for_text(self, text, timeout=LONG):
        self.wait_for(lambda: text in self.log(), f"'{text}'", timeout)

    def kill(self):
        while living := self.processes():  # again, as some may just have been forked
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.005)
        self.process.wait()


def wait_until(condition, what, timeout=LONG, job=None):
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"no {what} within {timeout} s" + (f": {job.log()[-300:]}" if job else ""))
        time.sleep(0.005)


def alive(pid):
    """Whether a process is there and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class Run:
    """The folder of a run."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.checkpoints = self.folder / "checkpoints"

    def records(self, kind):
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [r for r in map(parsed, lines) if r.get("kind") == kind]

    def losses(self):
        """Of every step, with all bits; the last one told."""
        return {r["step"]: r["loss_hex"] for r in self.records("step")}

    def last_step(self):
        return max(self.losses(), default=0)

    def steps_saved(self):
        if not self.checkpoints.is_dir():
            return []
        return sorted(int(p.name[5:]) for p in self.checkpoints.iterdir() if re.fullmatch(r"step_\d{8}", p.name))

    def step(self, step):
        return self.checkpoints / f"step_{step:08d}"

    def hashes(self, step=None):
        """Of all files, or those of one checkpoint."""
        folder = self.folder if step is None else self.step(step)
        return {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest()
                for p in sorted(folder.rglob("*")) if p.is_file()}

    def state(self, step=None):
        """Weights, moments and cursor of a checkpoint, of whatever ranks wrote it: name to hash."""
        folder = self.step(step or self.steps_saved()[-1])
        manifest = json.loads((folder / "manifest.json").read_text())
        tensors = {}
        for file in manifest["files"]:
            entries, data = read_safetensors(folder / file["path"])
            for s in file["slices"]:
                size = int(s["dtype"].lstrip("BFIU")) // 8
                shape, extent = s["global_shape"], s["extent"]
                tensor = tensors.setdefault(s["name"], bytearray(size * count(shape)))
                if s["stored_as"]:
                    begin, end = entries[s["stored_as"]]["data_offsets"]
                    paste(tensor, shape, s["begin"], extent, data[begin:end], size)
        found = {name: hashlib.sha256(tensor).hexdigest() for name, tensor in tensors.items()}
        cursor = dict(manifest["state"])
        cursor.pop("lineage", None)
        return found | {"cursor": json.dumps(cursor, sort_keys=True)}


def parsed(line):
    try:
        return json.loads(line)
    except ValueError:
        return {}


def read_safetensors(path):
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + length]), content[8 + length:]


def count(shape):
    product = 1
    for extent in shape:
        product *= extent
    return product


def paste(tensor, shape, begin, extent, data, size):
    """Puts a box of elements, row by row, at its place in a tensor."""
    width = size * extent[-1]
    strides = [size * count(shape[i + 1:]) for i in range(len(shape))]
    for row in range(count(extent[:-1])):
        at, rest = begin[-1] * size, row
        for axis in reversed(range(len(shape) - 1)):
            rest, index = divmod(rest, extent[axis])
            at += (begin[axis] + index) * strides[axis]
        tensor[at:at + width] = data[row * width:(row + 1) * width]


class Lab:
    """What one test works with. Its folder is removed afterwards."""

    def __init__(self, ziggurat, source, folder, short, scale, seed):
        self.ziggurat, self.source, self.folder = Path(ziggurat), Path(source), Path(folder)
        self.short, self.scale, self.random = short, scale, random.Random(seed)
        self.jobs, self.references, self.mounts, self.number, self.traces = [], {}, [], 0, False
        # What killed jobs of MPI leave behind goes with the folder.
        leftovers = self.folder / "mpi"
        leftovers.mkdir()
        self.environment = {"OMPI_MCA_orte_tmpdir_base": str(leftovers), "OMPI_MCA_btl_vader_backing_directory": str(leftovers)}
        self.config = self.folder / "tiny.yaml"
        self.config.write_text(CONFIG)

    def trials(self, full, short):
        """How many of something that is tried again and again."""
        return max(1, round((short if self.short else full) * self.scale))

    def some(self, items, short):
        """All of them, or in the short form this many, evenly spread, both ends among them."""
        items = list(items)
        if not self.short or len(items) <= short:
            return items
        return [items[i * (len(items) - 1) // max(1, short - 1)] for i in range(short)]

    # --- processes ---

    def start(self, command, environment=None, **options):
        self.number += 1
        log = self.folder / f"job_{self.number}.log"
        environment = dict(os.environ, **self.environment, **(environment or {}))
        job = Job(command, self.ziggurat, log, environment, self.folder, **options)
        self.jobs = [j for j in self.jobs if j.running()] + [job]
        return job

    def run(self, command, timeout=LONG, **options):
        return self.start(command, **options).wait(timeout)

    def train_command(self, output, *options, ranks=1, steps=8):
        mpirun = ["mpirun", "-n", ranks] if ranks > 1 else []
        return [*mpirun, self.ziggurat, "train", self.config, f"output={output}",
                f"train.tokens={steps * TOKENS_OF_STEP}", *options]

    def start_train(self, output, *options, ranks=1, steps=8, under=(), environment=None, **popen):
        command = self.train_command(output, *options, ranks=ranks, steps=steps)
        return self.start([*under, *command], environment, **popen)

    def train(self, output, *options, timeout=LONG, **how):
        return self.start_train(output, *options, **how).wait(timeout)

    def end(self):
        for job in self.jobs:
            if job.running():
                job.kill()
        for path in reversed(self.mounts):
            subprocess.run(["umount", "-l", path], check=False)

    # --- runs ---

    def output(self, name):
        """A folder that is not there yet."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name

    def copy(self, run, name):
        output = self.output(name)
        shutil.copytree(run.folder, output, symlinks=True)
        return Run(output)

    def reference(self, *options, ranks=1, steps=8):
        """R*: the run that nothing happened to."""
        key = (options, ranks, steps)
        if key not in self.references:
            run = Run(self.output(f"reference_{len(self.references)}"))
            self.train(run.folder, *options, ranks=ranks, steps=steps).expect(DONE)
            self.references[key] = run
        return self.references[key]

    def expect_same(self, run, reference, what):
        expect_same_losses(run.losses(), reference.losses(), what)
        mine, theirs = run.state(), reference.state()
        for name in theirs:
            expect(mine.get(name) == theirs[name], f"{what}: other '{name}' at the end")
        expect(len(mine) == len(theirs), f"{what}: tensors that the reference has not")

    # --- faults ---

    def strace(self, *options):
        """The beginning of a command that strace follows."""
        if not self.traces:
            tried = self.run(["sh", "-c", "strace -f -o /dev/null true"])
            if tried.code != 0:
                raise Untried(f"strace cannot follow a process: {tried.log.strip()}")
            self.traces = True
        return ["strace", "-f", *options]

    def tmpfs(self, name, size):
        """A disk of this size."""
        path = self.folder / name
        path.mkdir()
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], capture_output=True,
                              text=True, check=False)
        if made.returncode != 0:
            raise Untried(f"no tmpfs can be mounted: {made.stderr.strip()}")
        self.mounts.append(path)
        return path

    def fuzz(self):
        """The program of tests/fuzz, built beside this Ziggurat."""
        program = self.ziggurat.parent / "tests" / "ziggurat_fuzz"
        expect(program.exists(), f"{program} is not built: cmake --build {self.ziggurat.parent} --target ziggurat_fuzz")
        return program

    def seeds(self):
        """One small good file of every kind that is read."""
        folder = self.folder / "seeds"
        if not folder.exists():
            self.run([self.source / "scripts" / "fuzz_seeds.sh", self.ziggurat, self.fuzz(), folder]).expect(DONE)
        return folder

    def preload(self):
        """The library of preload.c, built once."""
        library = self.folder / "preload.so"
        if not library.exists():
            source = Path(__file__).with_name("preload.c")
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        return str(library)


def expect_same_losses(mine, theirs, what):
    for step, loss in theirs.items():
        expect(mine.get(step) == loss, f"{what}: loss of step {step} is {mine.get(step)}, not {loss}")
    expect(len(mine) == len(theirs), f"{what}: {len(mine)} steps, not {len(theirs)}")


def resumed_at(log):
    """The step that a start went on from; 0: it began anew."""
    found = re.search(r"resumed at step (\d+)", log)
    return int(found[1]) if found else 0


# Of a process that is as small as it can be: what the kernel calls a child's peak begins with its parent's memory.
MEASURE = """
import json, resource, subprocess, sys, time
begun = time.monotonic()
ended = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL, timeout=float(sys.argv[1]))
took = time.monotonic() - begun
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("\\n" + json.dumps([ended.returncode, took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024]))
"""


def peak_of(command, short, timeout=LONG, cwd=None):
    """(exit code, what it printed, seconds, most bytes in memory) of a command. In the short form, which runs on machines
    that others share, the seconds are the processor's."""
    measured = subprocess.run(["python3", "-S", "-c", MEASURE, str(timeout), *map(str, command)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, cwd=cwd, check=False)
    text, _, last = measured.stdout.decode(errors="replace").strip().rpartition("\n")
    expect(measured.returncode == 0, f"{command[0]} did not end within {timeout} s: {last}")
    code, took, computed, memory = json.loads(last)
    return code, text, computed if short else took, memory
