"""Configs that nobody should be able to hurt us with: exit code 2 in a second, with place, full key and cure."""

from lab import USAGE, expect, peak_of

MIB = 1 << 20


def test(lab):
    bomb = "a: &a [x, x, x]\n" + "".join(
        f"{chr(c)}: &{chr(c)} [{', '.join(['*' + chr(c - 1)] * 9)}]\n" for c in range(ord("b"), ord("z")))
    cases = {
        "depth": ("model: " + "[" * 20000, ["bad.yaml:1:"]),
        "depth of maps": ("model: " + "{a: " * 20000, ["bad.yaml:1:"]),
        "depth by lines": ("".join(" " * i + "a:\n" for i in range(1000)), ["64 levels"]),
        "alias bomb": (bomb, ["bad.yaml:1:4", "anchor"]),
        "duplicate": ("optimizer:\n  lr: 1\n  lr: 2\n", ["bad.yaml:3:3", "optimizer.lr"]),
        "unknown": ("model:\n  hiden: 3\n", ["bad.yaml:2:3", "model.hiden", "'hidden'"]),
        "unknown section": ("optimiser: {lr: 1}\n", ["bad.yaml:1:1", "'optimizer'"]),
        "NaN": ("optimizer:\n  lr: .nan\n", ["bad.yaml:2:7", "optimizer.lr"]),
        "infinity": ("optimizer:\n  lr: .inf\n", ["bad.yaml:2:7", "optimizer.lr"]),
        "negative count": ("model:\n  hidden: -64\n", ["bad.yaml:2:11", "model.hidden"]),
        "octal": ("model:\n  hidden: 064\n", ["bad.yaml:2:11", "model.hidden"]),
        "too large": ("train:\n  tokens: 99999999999999999999\n", ["bad.yaml:2:11", "train.tokens"]),
        "a list for a number": ("model:\n  hidden: [1]\n", ["bad.yaml:2:11", "model.hidden"]),
        "CRLF, BOM": ("\ufeffmodel:\r\n  hiden: 3\r\n", ["bad.yaml:2:3", "model.hiden", "'hidden'"]),
        "binary": (b"\x7fELF\0\0\0\1", ["bad.yaml:1:1", "UTF-8"]),
        "two documents": ("name: x\n---\nname: y\n", ["second one"]),
        "tag": ("name: !!python/object x\n", ["bad.yaml:1:7", "name"]),
        "includes itself": ("include: bad.yaml\n", ["bad.yaml"]),
        "includes a device": ("include: /dev/zero\n", ["/dev/zero"]),
    }
    path = lab.folder / "bad.yaml"
    for name, (text, said) in cases.items():
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        refused(lab, name, path, said)
    path.unlink()
    with path.open("wb") as file:  # a gigabyte, of which nothing is on the disk
        file.truncate(1 << 30)
    refused(lab, "a gigabyte", path, ["bad.yaml"])
    path.unlink()
    refused(lab, "nowhere", path, ["bad.yaml", "No such file"])
    path.mkdir()
    refused(lab, "a folder", path, ["bad.yaml"])
    return f"{len(cases) + 3} configs"


def refused(lab, name, path, said):
    code, text, seconds, memory = peak_of([lab.ziggurat, "config", "check", path.name], lab.short, cwd=lab.folder)
    expect(code == USAGE, f"{name}: exit code {code}: {text[-300:]}")
    for words in said:
        expect(words in text, f"{name}: expected '{words}' in: {text[-400:]}")
    expect(seconds < 1, f"{name}: took {seconds:.1f} s")
    expect(memory < 100 * MIB, f"{name}: took {memory // MIB} MiB")
