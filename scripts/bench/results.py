#!/usr/bin/env python3
"""The rows of run.sh: one at a time as they are measured, kept by date and machine, and as README's table.

results.py row FOLDER ROW PRECISION THREADS FILE.jsonl   prints what FOLDER holds of the row and appends it to the file
results.py head                                          the head of the table of such rows
results.py table FILE.jsonl[@DATE_OR_REVISION] ...       the newest of every machine, row and precision
results.py --self-test
"""
import datetime
import json
import os
import subprocess
import sys
import tempfile

from rounds import best

VARIANTS = {"eager": "PyTorch eager", "compiled": "compiled", "tuned_eager": "tuned eager", "tuned_compiled": "tuned compiled",
            "deepspeed": "DeepSpeed layer, tuned"}


def machine():
    name, flags = "unknown", set()
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
            if line.startswith("flags"):
                flags = set(line.split())
    wide = [what for what in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if what in flags]
    return f"{name} ({' '.join(wide)})"


def revision():
    made = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return made.stdout.strip()


def measured(folder, row, precision, threads):
    """One row, or None where Ziggurat itself has no figure."""
    key, bound_rate = f"{folder}/{row}.{precision}", "gemm_bound_tokens_per_second"
    ours = best(f"{key}.*.ziggurat.json")
    if ours is None:
        return None
    result = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "revision": revision(),
              "machine": machine(), "threads": threads, "row": row, "precision": precision,
              "ziggurat": ours["tokens_per_second"], "bound": best(f"{key}.*.ziggurat.json", bound_rate)[bound_rate], "peers": {}}
    for variant in VARIANTS:
        theirs, beside = best(f"{key}.{variant}.*.torch.json"), best(f"{key}.{variant}.*.ziggurat.json")
        if theirs and beside:
            result["peers"][variant] = {"tokens_per_second": theirs["tokens_per_second"], "beside": beside["tokens_per_second"]}
    return result


def head():
    return ("| model | precision | GEMM-only bound | Ziggurat | of the bound | " + " | ".join(VARIANTS.values()) + " |\n|" +
            "---|" * (5 + len(VARIANTS)))


def line(result):
    cells = []
    for variant in VARIANTS:
        peer = result["peers"].get(variant)
        cells.append(f"{peer['tokens_per_second']:.0f} ({peer['beside'] / peer['tokens_per_second']:.2f})" if peer else "")
    return (f"| {result['row']} | {result['precision']} | {result['bound']:.0f} | {result['ziggurat']:.0f} | "
            f"{100 * result['ziggurat'] / result['bound']:.0f} % | " + " | ".join(cells) + " |")


def key_of(result):
    return result["machine"], result["threads"], result["row"], result["precision"]


def newest(source):
    """key -> result, of FILE or FILE@PREFIX, where PREFIX begins a date or a revision."""
    path, _, prefix = source.partition("@")
    found = {}
    if not os.path.isfile(path):
        sys.exit(f"{path}: no such file; scripts/bench/run.sh writes run/bench.jsonl")
    with open(path) as file:
        for number, text in enumerate(file, 1):
            try:
                result = json.loads(text)
            except ValueError:  # who wrote it was killed
                print(f"{path}:{number}: no whole result; passed over", file=sys.stderr)
                continue
            if result["date"].startswith(prefix) or result["revision"].startswith(prefix):
                found[key_of(result)] = result  # later lines are newer
    if not found:
        sys.exit(f"{source}: no result there")
    return found


def table(sources):
    results = {}
    for source in sources:
        results.update(newest(source))
    for name, threads in sorted({key[:2] for key in results}):
        print(f"\n{name}, {threads} threads\n\n{head()}")
        for key, result in results.items():
            if key[:2] == (name, threads):
                print(line(result))


def self_test():
    from compare import ratios
    from rounds import figures_in

    assert figures_in('noise {"a": 1} [x] {"model": 1, "tokens_per_second": 5}\ntrailing {') == {"model": 1, "tokens_per_second": 5}
    assert figures_in("only noise { here") is None
    with tempfile.TemporaryDirectory() as folder:
        def put(name, text):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        put("m.fp32.eager.1.ziggurat.json", '{"tokens_per_second": 100, "gemm_bound_tokens_per_second": 125}')
        put("m.fp32.eager.2.ziggurat.json", '{"tokens_per_second": 110, "gemm_bound_tokens_per_second": 120}')
        put("m.fp32.eager.1.torch.json", 'a peer says hello\n{"model": "m", "tokens_per_second": 55}\nand good-bye')
        put("m.fp32.compiled.1.torch.json", "it crashed")
        put("m.fp32.tuned_eager.1.torch.json", '{"tokens_per_second": "fast"}')
        result = measured(folder, "m", "fp32", 2)
        assert (result["ziggurat"], result["bound"]) == (110, 125), result
        assert line(result).startswith("| m | fp32 | 125 | 110 | 88 % | 55 (2.00) |  |"), line(result)
        assert measured(folder, "other", "fp32", 2) is None
        old, new = dict(result), dict(result, ziggurat=121, bound=125, date="2999")
        put("old.jsonl", json.dumps(old) + "\n")
        put("new.jsonl", json.dumps(dict(new, ziggurat=1)) + "\n" + json.dumps(new) + "\n" + json.dumps(new)[:20])
        told = ratios(newest(folder + "/old.jsonl"), newest(folder + "/new.jsonl@2999"))
        assert [(round(r, 3), round(b, 3)) for _, r, b in told] == [(1.1, 1.0)], told
    print("results.py: ok")


if __name__ == "__main__":
    command = sys.argv[1:2]
    if command == ["row"] and len(sys.argv) == 7:
        row = measured(*sys.argv[2:5], int(sys.argv[5]))
        if row is None:
            sys.exit(f"{sys.argv[3]} {sys.argv[4]}: Ziggurat has no figure")
        print(line(row), flush=True)
        os.makedirs(os.path.dirname(os.path.abspath(sys.argv[6])), exist_ok=True)
        with open(sys.argv[6], "a") as results:
            results.write(json.dumps(row) + "\n")
    elif command == ["head"]:
        print(head())
    elif command == ["table"] and len(sys.argv) > 2:
        table(sys.argv[2:])
    elif command == ["--self-test"]:
        self_test()
    else:
        sys.exit(__doc__)
