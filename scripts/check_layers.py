#!/usr/bin/env python3
"""The walls of the house: which file may include which.

check_layers.py [ROOT]      checks the tree, exit 1 and one line per broken rule
check_layers.py --self-test feeds it broken trees and checks that each is refused

Rules
 1. A room includes itself and rooms with a lower number only (table below).
 2. Kernels see raw pointers and sizes: they include core, runtime, memory and kernels only.
 3. A public header is included as <ziggurat/room/x.h>. Any other header belongs to one room ("room/x.h").
 4. Every quoted include exists, and includes form no cycle.
"""
import os
import re
import sys
import tempfile

# README.md draws the same table. A new room enters here.
ROOMS = {
    "core": 0,
    "config": 1, "runtime": 1, "io": 1,
    "memory": 2,
    "tensor": 3,
    "kernels": 4, "comm": 4,
    "plan": 5, "autograd": 5, "watch": 5,
    "ops": 6,
    "nn": 7,
    "moe": 8,
    "model": 9, "optim": 9, "parallel": 9, "data": 9, "checkpoint": 9,
    "objective": 10,
    "train": 11, "infer": 11, "hf": 11, "data_tools": 11,
    "eval": 12, "serve": 12, "bench": 12, "report": 12, "analyse": 12,
    "apps": 13,
    "tests": 14,  # may look into every room, private headers too
}
KERNELS_MAY_INCLUDE = {"core", "runtime", "memory", "kernels"}
TOP_FOLDERS = ("include", "src", "kernels", "data_tools", "tests")
SUFFIXES = (".h", ".cpp", ".cu", ".cuh")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
GENERATED = {"ziggurat/build_config.h"}  # belongs to core


def room_of(path):
    """The room of a file, by its path below the root; None if it stands in no room."""
    parts = path.split("/")
    if path.startswith("include/ziggurat/") and len(parts) > 3:
        room = parts[2]
    elif parts[0] == "src" and len(parts) > 2:
        room = parts[1]
    else:
        room = parts[0]
    return room if room in ROOMS else None


def sources(root):
    for top in TOP_FOLDERS:
        for folder, _, names in os.walk(os.path.join(root, top)):
            for name in sorted(names):
                if name.endswith(SUFFIXES):
                    yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


def resolve(kind, target, includer, files):
    """The file that an include means, or None for one outside the project."""
    if kind == "<":
        candidate = "include/" + target
        return candidate if target.startswith("ziggurat/") else None
    folder = os.path.dirname(includer)
    for candidate in (folder + "/" + target, target, "src/" + target, "include/" + target):
        candidate = os.path.normpath(candidate).replace(os.sep, "/")
        if candidate in files:
            return candidate
    return None


def check_include(includer, kind, target, files):
    """(the included file or None, the broken rule or None)"""
    if target in GENERATED and kind == "<":
        return None, None
    included = resolve(kind, target, includer, files)
    if ".." in target.split("/"):
        return included, "leaves its folder by '..': include <ziggurat/room/x.h> or \"room/x.h\""
    if kind == '"' and included is None:
        return None, "no such file (headers of libraries stand in <>)"
    if included is None:
        return None, None
    if included not in files:
        return None, "no such public header"
    if kind == '"' and included.startswith("include/"):
        return included, "is a public header: include it as <%s>" % included[len("include/"):]
    mine, theirs = room_of(includer), room_of(included)
    if theirs is None:
        return included, "stands in no room"
    if mine == theirs or mine == "tests":
        return included, None
    if mine == "kernels" and theirs not in KERNELS_MAY_INCLUDE:
        return included, "kernels include only %s" % ", ".join(sorted(KERNELS_MAY_INCLUDE))
    if ROOMS[theirs] >= ROOMS[mine]:
        direction = "sideways" if ROOMS[theirs] == ROOMS[mine] else "upward"
        return included, "%s: %s is room %d, %s is room %d" % (direction, mine, ROOMS[mine], theirs, ROOMS[theirs])
    if not included.startswith("include/"):
        return included, "is private to %s: move what others need to include/ziggurat/%s" % (theirs, theirs)
    return included, None


def find_cycle(graph):
    """One cycle of includes as a list of files, or None. Depth first; a file is done when it reaches no cycle."""
    done = set()

    def visit(path, stack):
        if path in stack:
            return stack[stack.index(path):] + [path]
        if path in done:
            return None
        for included in graph.get(path, ()):
            cycle = visit(included, stack + [path])
            if cycle:
                return cycle
        done.add(path)
        return None

    for start in sorted(graph):
        cycle = visit(start, [])
        if cycle:
            return cycle
    return None


def broken_rules(root):
    files = set(sources(root))
    errors, graph = [], {}
    for path in sorted(files):
        if room_of(path) is None:
            errors.append("%s: stands in no room: add the room to scripts/check_layers.py" % path)
            continue
        with open(os.path.join(root, path), encoding="utf-8") as file:
            text = file.read()
        for match in INCLUDE.finditer(text):
            included, error = check_include(path, match[1], match[2], files)
            if error:
                line = text.count("\n", 0, match.start(1)) + 1
                errors.append("%s:%d: %s: %s" % (path, line, match[2], error))
            if included:
                graph.setdefault(path, []).append(included)
    cycle = find_cycle(graph)
    if cycle:
        errors.append("include cycle: " + " -> ".join(cycle))
    return errors, len(files)


def self_test():
    header = {"include/ziggurat/core/error.h": "", "include/ziggurat/tensor/tensor.h": "",
              "include/ziggurat/nn/linear.h": ""}
    cases = [
        ("", {"src/nn/linear.cpp": "#include <vector>\n#include <ziggurat/nn/linear.h>\n"
                                   "#include <ziggurat/tensor/tensor.h>\n#include \"nn/own.h\"\n",
              "src/nn/own.h": "#include <ziggurat/build_config.h>\n"}),
        ("upward", {"src/core/a.cpp": "// first\n#  include <ziggurat/nn/linear.h>\n"}),
        ("sideways", {"include/ziggurat/optim/a.h": "", "src/data/a.cpp": "#include <ziggurat/optim/a.h>\n"}),
        ("kernels include only", {"kernels/cpu/a.cpp": "#include <ziggurat/tensor/tensor.h>\n"}),
        ("kernels include only", {"include/ziggurat/kernels/a.h": "#include <ziggurat/tensor/tensor.h>\n"}),
        ("private to tensor", {"src/tensor/own.h": "", "src/nn/a.cpp": "#include \"tensor/own.h\"\n"}),
        ("by '..'", {"src/tensor/own.h": "", "src/nn/a.cpp": "#include \"../tensor/own.h\"\n"}),
        ("include it as <ziggurat/core/error.h>", {"src/nn/a.cpp": "#include \"include/ziggurat/core/error.h\"\n"}),
        ("include it as <ziggurat/core/error.h>", {"tests/unit/a.cpp": "#include \"ziggurat/core/error.h\"\n"}),
        ("no such file", {"src/nn/a.cpp": "#include \"nn/nothing.h\"\n"}),
        ("no such public header", {"src/nn/a.cpp": "#include <ziggurat/core/nothing.h>\n"}),
        ("stands in no room", {"src/attic/a.cpp": ""}),
        ("include cycle", {"include/ziggurat/nn/a.h": "#include <ziggurat/nn/b.h>\n",
                           "include/ziggurat/nn/b.h": "#include <ziggurat/nn/a.h>\n"}),
        ("", {"src/nn/own.h": "", "tests/unit/a.cpp": "#include \"nn/own.h\"\n#include <ziggurat/nn/linear.h>\n"}),
    ]
    failures = 0
    for expected, files in cases:
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**header, **files}.items():
                os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write(text)
            errors, _ = broken_rules(root)
        right = len(errors) == 1 and expected in errors[0] if expected else not errors
        if not right:
            failures += 1
            print("self-test: expected '%s' from %s, got %s" % (expected, sorted(files), errors))
    print("self-test: %d of %d cases right" % (len(cases) - failures, len(cases)))
    return failures == 0


def main():
    if "--self-test" in sys.argv[1:]:
        return 0 if self_test() else 1
    root = sys.argv[1] if len(sys.argv) > 1 else "."
    errors, count = broken_rules(root)
    for error in errors:
        print(error)
    if count == 0:
        print("no sources found below '%s'" % root)
    print("layering: %d files, %d broken rules" % (count, len(errors)))
    return 0 if count > 0 and not errors else 1


if __name__ == "__main__":
    sys.exit(main())
