"""Files made to do harm: a clean error in a second, little memory, and no file outside their folder opened."""

import json
import re
import shutil
import struct

from lab import expect, peak_of

MIB = 1 << 20


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def f32(shape, begin, end):
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


WEIGHTS = {
    "a length of 2^63": safetensors({}, length=1 << 63),
    "a length of 2^64 - 1": safetensors({}, length=(1 << 64) - 1),
    "a length past the end": safetensors({}, length=1 << 20),
    "a shape whose product wraps": safetensors({"x": f32([4194305, 211106198978564], 0, 16)}, bytes(16)),
    "a shape of 2^60": safetensors({"x": f32([1 << 60], 0, 4)}, bytes(4)),
    "a negative shape": safetensors({"x": f32([-1, -4], 0, 16)}, bytes(16)),
    "an end before its begin": safetensors({"x": f32([4], 16, 0)}, bytes(16)),
    "overlap": safetensors({"x": f32([4], 0, 16), "y": f32([4], 8, 24)}, bytes(24)),
    "a hole": safetensors({"x": f32([2], 0, 8), "y": f32([2], 16, 24)}, bytes(24)),
    "an offset of 2^63": safetensors({"x": f32([4], 0, 1 << 63)}, bytes(16)),
    "one key twice": safetensors(b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                                 b'"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "100,000 tensors": safetensors({f"t{i}": f32([1], 4 * i, 4 * i + 4) for i in range(100_000)}, bytes(400_000)),
    "100,000 empty tensors": safetensors({f"t{i}": f32([0], 0, 0) for i in range(100_000)}),
    "depth": safetensors(b"[" * 1_000_000),
    "no JSON": safetensors(b"{" + b"\xff" * 1000),
}


def test(lab):
    outside = lab.folder / "outside.safetensors"
    outside.write_bytes(WEIGHTS["a hole"])
    forbidden = ["/etc/hostname", str(outside), "/etc/passwd"]
    good = lab.seeds() / "model_folder"
    bad = lab.folder / "bad"
    tried = 0

    def refused(what, *command):
        nonlocal tried
        tried += 1
        code, text, seconds, memory = peak_of([lab.ziggurat, *command], lab.short, cwd=lab.folder)
        expect(code not in (0, 1) and code > 0, f"{what}: exit code {code}: {text[-400:]}")
        expect(seconds < 1, f"{what}: took {seconds:.1f} s")
        expect(memory < 100 * MIB, f"{what}: took {memory // MIB} MiB")
        log = lab.folder / "opened"
        traced = lab.run([*lab.strace("-o", log, "-e", "trace=open,openat,openat2"), lab.ziggurat, *command])
        opened = log.read_text(errors="replace")
        expect(traced.code == code and "openat(" in opened, f"{what}: cannot be traced: {traced.tail()}")
        for path in forbidden:
            expect(f'"{path}"' not in opened, f"{what}: {path} was opened")

    def import_bad(what):
        shutil.rmtree(lab.folder / "imported", ignore_errors=True)
        refused(what, "import", "--from", bad, "--output", "imported")

    for what, content in WEIGHTS.items():
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(good, bad)
        for path in bad.glob("model*"):
            path.unlink()
        (bad / "model.safetensors").write_bytes(content)
        import_bad(what)
    for name in ("../outside.safetensors", str(outside), "/etc/passwd", "..", "\0"):
        shutil.rmtree(bad)
        shutil.copytree(good, bad)
        index = json.loads((bad / "model.safetensors.index.json").read_text())
        first = next(iter(index["weight_map"]))
        index["weight_map"][first] = name
        (bad / "model.safetensors.index.json").write_text(json.dumps(index))
        import_bad(f"an index that names {name!r}")
    for key, value in {"num_hidden_layers": 1 << 62, "hidden_size": 1 << 62, "vocab_size": -1,
                       "num_attention_heads": 0, "intermediate_size": 1e308}.items():
        shutil.rmtree(bad)
        shutil.copytree(good, bad)
        config = json.loads((bad / "config.json").read_text())
        config[key] = value
        (bad / "config.json").write_text(json.dumps(config))
        import_bad(f"config.json with {key} {value}")

    hdf5 = lab.folder / "hdf5"
    lab.run([lab.fuzz(), "--hostile", hdf5]).expect(0)
    for path in sorted(hdf5.glob("*.h5")):
        refused(f"{path.name}", "data", "verify", path)
    return f"{tried} files: {len(WEIGHTS)} safetensors, 10 folders of models, {len(list(hdf5.glob('*.h5')))} HDF5"
