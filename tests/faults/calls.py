"""Kills and errors at a chosen system call: of those of a command that touch files below a folder, the nth."""

import re
from collections import Counter

from lab import expect

# By what they do, as this machine's libc spells them.
OPENS, WRITES, SYNCS, CLOSES = ("openat",), ("write", "pwrite64"), ("fsync", "fdatasync"), ("close",)
RENAMES, MAKES, REMOVES = ("rename", "renameat", "renameat2"), ("mkdir", "mkdirat"), ("unlink", "unlinkat", "rmdir")
ALL = OPENS + WRITES + SYNCS + CLOSES + RENAMES + MAKES + REMOVES


class Calls:
    """The calls of one command that concern `folder`: learnt once, from a run of it that nothing happens to."""

    def __init__(self, lab, command, folder, calls=ALL, matching=""):
        self.lab, self.command, self.calls = lab, [str(word) for word in command], calls
        log = lab.folder / "calls.log"
        lab.run([*lab.strace("-y", "-s", "4096", "-o", log, "-e", "trace=" + ",".join(calls)), *self.command]).expect(0)
        self.paths = set()
        for line in log.read_text(errors="replace").splitlines():
            call = re.match(r"\d+ +(\w+)\(", line)
            found = [p for p in re.findall(r'[<"]([^<>"]+)[>"]', line) if p.startswith(str(folder)) and re.search(matching, p)]
            if call and found:
                self.paths.update(found)

    def count(self, reset, first):
        """Counts them as strace will, by these paths alone and for each thread, after `reset` has made things as they
        were. Of interest are those from the first line on that matches `first`, and no thread's before it."""
        log = self.lab.folder / "calls.log"
        reset()
        self.lab.run([*self._strace(log), *self.command]).expect(0)
        counts, before, found = Counter(), set(), []
        for line in log.read_text(errors="replace").splitlines():
            call = re.match(r"(\d+) +(\w+)\(", line)
            if not call:
                continue
            counts[call.groups()] += 1
            point = (call[2], counts[call.groups()])
            if found or re.search(first, line):
                found.append(point)
            else:
                before.add(point)
        expect(found, f"no system call like {first} was seen")
        self.of_interest = [point for point in dict.fromkeys(found) if point not in before]

    def _strace(self, log, inject=()):
        watched = [word for path in sorted(self.paths) for word in ("-P", path)]
        return self.lab.strace("-o", log, "-e", "trace=" + ",".join(self.calls), *watched, *inject)

    def points(self, calls):
        """Every (self, call, n) of these there is, in their order."""
        return [(self, *point) for point in self.of_interest if point[0] in calls]

    def under(self, call, n, fault, on=False):
        """The command with `fault` ("signal=SIGKILL", "error=EIO") at its nth call, or from there on."""
        inject = ["-e", f"inject={call}:{fault}:when={n}{'+' if on else ''}"]
        return [*self._strace("/dev/null", inject), *self.command]
