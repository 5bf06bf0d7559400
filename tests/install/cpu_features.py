#!/usr/bin/env python3
"""Holds the list of CPU features that is checked at start against the compiler's own.

cpu_features.py CXX ROOT

Every feature that the compiler allows itself for any CPU it knows is either in include/ziggurat/core/cpu.h, or below
with the reason why it is not; and the levels of x86-64 there are the compiler's.
"""
import re
import subprocess
import sys

# No compiler uses these by itself; what the house asks for by name must leave this list.
BY_INTRINSICS_ONLY = """
    AES ADX AMX_BF16 AMX_INT8 AMX_TILE AVX512VP2INTERSECT CLDEMOTE CLFLUSHOPT CLWB CLZERO ENQCMD FSGSBASE HRESET KL
    LWP MOVDIR64B MOVDIRI MWAITX PCLMUL PCONFIG PKU PREFETCHWT1 PRFCHW PTWRITE RDPID RDRND RDSEED SERIALIZE SGX SHA
    TSXLDTRK UINTR VAES VPCLMULQDQ WAITPKG WBNOINVD WIDEKL XSAVE XSAVEC XSAVEOPT XSAVES 3dNOW 3dNOW_A
""".split()
OTHERWISE = {
    "ABM": "lzcnt and popcnt, which are listed",
    "CRC32": "comes with sse4.2, which is listed",
    "LAHF_SAHF": "for flags of the x87 only, which fcomi replaced",
}


def macros(compiler, march):
    text = subprocess.run([compiler, f"-march={march}", "-dM", "-E", "-x", "c", "/dev/null"], check=True,
                          capture_output=True, text=True).stdout
    return set(re.findall(r"^#define __(\w+?)__ 1$", text, re.MULTILINE))


def main():
    compiler, root = sys.argv[1:]
    refusal = subprocess.run([compiler, "-march=nothing", "-E", "-x", "c", "/dev/null"], capture_output=True, text=True,
                             env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}).stderr
    known = re.search(r"valid (?:arguments|target CPU values).*?(?:are:|are) ?(.*?)(?:;|$)", refusal, re.MULTILINE)
    if not known:
        sys.exit(f"{compiler} does not say which CPUs it knows:\n{refusal}")
    plain = macros(compiler, "x86-64")
    cpus = [name for name in re.split(r"[ ,]+", known[1]) if name and name != "native"]
    of_cpu = {}
    for cpu in cpus:
        try:
            of_cpu[cpu] = macros(compiler, cpu) - plain
        except subprocess.CalledProcessError:
            pass  # one of 32 bits only
    with open(f"{root}/include/ziggurat/core/cpu.h", encoding="utf-8") as file:
        listed = {macro: int(level) for macro, level in
                  re.findall(r'^  FEATURE\(__(\w+?)__, "[\w.]+", (\d)\)', file.read(), re.MULTILINE)}
    if len(listed) < 20 or len(of_cpu) < 20:
        sys.exit(f"read only {len(listed)} features and {len(of_cpu)} CPUs")

    problems = []
    features = {macro for all_of_one in of_cpu.values() for macro in all_of_one
                if not macro[0].islower()}  # the CPU's own name
    for macro in sorted(features - listed.keys() - set(BY_INTRINSICS_ONLY) - OTHERWISE.keys()):
        users = [cpu for cpu, its in of_cpu.items() if macro in its]
        problems.append(f"__{macro}__ (-march={users[0]}, ...) is not in core/cpu.h; list it there, or here with a reason")
    for level in (2, 3, 4):
        theirs = of_cpu[f"x86-64-v{level}"] & listed.keys()
        ours = {macro for macro, its_level in listed.items() if its_level <= level}
        if theirs != ours:
            problems.append(f"x86-64-v{level}: core/cpu.h and {compiler} differ in {sorted(theirs ^ ours)}")
    print("\n".join(problems) or f"{len(listed)} features cover {len(of_cpu)} CPUs of {compiler}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
