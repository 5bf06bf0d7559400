#!/usr/bin/env python3
"""Registers, shared memory and theoretical occupancy of the kernels that emulated_bench ran.

  cuobjdump --dump-resource-usage libziggurat_cuda.a | c++filt | kernel_resources.py [--json] TABLE.json

TABLE.json is what `emulated_bench --json` prints. Called by scripts/bench/emulated.sh.
"""

import json
import re
import sys

# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability": 8.0, 9.0 and 10.0 have 65,536 registers
# and room for 2,048 threads and 32 blocks on an SM; shared memory differs. A block takes 1 KB of it for the system
# (NVIDIA's tuning guides of Ampere, Hopper and Blackwell).
THREADS, BLOCKS, REGISTERS = 2048, 32, 65536
SHARED = {"sm_80": 164 * 1024, "sm_90a": 228 * 1024, "sm_100": 228 * 1024}
SHARED_OF_SYSTEM = 1024
# Registers are given to warps in pieces of 256, shared memory to blocks in pieces of 128 bytes (the occupancy
# calculator of Nsight Compute).
REGISTERS_OF_WARP, SHARED_OF_BLOCK = 256, 128


def round_up(n, unit):
    return -(-n // unit) * unit


def occupancy(arch, registers, shared, threads):
    """Warps of an SM that this kernel keeps there, of those that it has room for."""
    warps = round_up(threads, 32) // 32
    per_warp = round_up(max(registers, 1) * 32, REGISTERS_OF_WARP)
    blocks = min(BLOCKS, THREADS // 32 // warps, REGISTERS // per_warp // warps,
                 SHARED[arch] // round_up(shared + SHARED_OF_SYSTEM, SHARED_OF_BLOCK))
    return blocks * warps * 32 / THREADS


def short_name(name):
    """As the emulated device calls it: without namespaces and parameters."""
    name = name.replace("(anonymous namespace)::", "")
    name = re.sub(r"\b(ziggurat|kernels)::", "", name)
    name = re.sub(r"^void ", "", name)
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return name[:i]
    return name


def read_usage(lines):
    usage, arch, name = {}, None, None
    for line in lines:
        if found := re.match(r"arch = (\S+)", line):
            arch = found[1]
        elif found := re.match(r" Function (.*):$", line.rstrip()):
            name = short_name(found[1])
        elif name and (found := re.match(r"  REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line)):
            registers, stack, shared, local = map(int, found.groups())
            usage.setdefault(name, {})[arch] = {"registers": registers, "static_shared_bytes": shared,
                                                "spilled_bytes": stack + local}
            name = None
    return usage


def main():
    arguments = [a for a in sys.argv[1:] if a != "--json"]
    with open(arguments[0]) as file:
        table = json.load(file)
    usage = read_usage(sys.stdin)
    seen = {}
    for case in table["cases"]:
        for kernel in case["kernels"]:
            of = usage.get(short_name(kernel["name"]))
            if of is None:  # a library's
                continue
            for arch, used in of.items():
                used["occupancy"] = occupancy(arch, used["registers"],
                                              used["static_shared_bytes"] + kernel["dynamic_shared_bytes"],
                                              kernel["block_threads"])
            kernel["on"] = {arch: dict(used) for arch, used in of.items()}
            seen[kernel["name"], kernel["block_threads"], kernel["dynamic_shared_bytes"]] = kernel
    if "--json" in sys.argv:
        print(json.dumps(table, indent=2))
        return
    print("\n  registers, spilled bytes and occupancy of each kernel\n"
          f"  {'kernel':<66}{'threads':>8}{'static':>8}{'dynamic':>9}" +
          "".join(f"{arch:>10}{'spilled':>8}{'occ. %':>7}" for arch in SHARED))
    for (name, threads, dynamic), kernel in sorted(seen.items()):
        static = max(used["static_shared_bytes"] for used in kernel["on"].values())
        print(f"  {name:<66}{threads:>8}{static:>8}{dynamic:>9}" +
              "".join(f"{u['registers']:>10}{u['spilled_bytes']:>8}{100 * u['occupancy']:>7.0f}"
                      for u in (kernel["on"][arch] for arch in SHARED)))


if __name__ == "__main__":
    main()
