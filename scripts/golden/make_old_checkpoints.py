#!/usr/bin/env python3
"""Checkpoints as earlier programs wrote them: format 3 from a tiny run, 1 and 2 from that.

make_old_checkpoints.py STEP_FOLDER OUTPUT [LEFT_OUT_KEY ...]

STEP_FOLDER is a checkpoint of format 3 whose boxes are whole rows. Writes OUTPUT/format_1, format_2 and format_3:
the program of format 1 wrote rows as [begin, end) and named them "[begin:end]" in the file; that of format 2, which
wrote the start of a run from imported weights, left out moments, all zero. Keys of the config that those programs did
not know are left out there. Needs python3-xxhash.
"""
import json
import os
import re
import shutil
import struct
import sys

import xxhash


def content_hash(data):
    return "xxh3-128:" + xxhash.xxh3_128_hexdigest(data)


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    return header, data[8 + length:]


def write_safetensors(path, metadata, tensors):
    """tensors: (name, dtype, shape, bytes); returns size and hash."""
    header, offset = {"__metadata__": metadata}, 0
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    data = struct.pack("<Q", len(text)) + text + b"".join(t[3] for t in tensors)
    with open(path, "wb") as f:
        f.write(data)
    return len(data), content_hash(data)


def write_manifest(path, manifest):
    text = json.dumps(manifest, sort_keys=True, indent=1, ensure_ascii=False)
    text = text[:-2] + ',\n "manifest_hash": "'
    with open(path, "wb") as f:
        f.write(text.encode() + content_hash(text.encode()).encode() + b'"\n}\n')


def without_keys(config, keys):
    lines = config.split("\n")
    return "\n".join(line for line in lines if not any(re.match(rf"\s*{key}:", line) for key in keys))


def convert(source, folder, version, left_out):
    with open(os.path.join(source, "manifest.json"), "rb") as f:
        manifest = json.load(f)
    del manifest["manifest_hash"]
    folder = os.path.join(folder, os.path.basename(source))
    os.makedirs(folder)
    manifest["format_version"] = version
    manifest["config"] = without_keys(manifest["config"], left_out)
    for file in manifest["files"]:
        header, data = read_safetensors(os.path.join(source, file["path"]))
        tensors = []
        for s in file["slices"]:
            entry = header[s["stored_as"]]
            begin, end = s["begin"][0], s["begin"][0] + s["extent"][0]
            assert s["begin"][1:] == [0] * (len(s["begin"]) - 1) and s["extent"][1:] == s["global_shape"][1:], s
            del s["begin"], s["extent"]
            s["rows"] = [begin, end]
            whole = begin == 0 and end == s["global_shape"][0]
            s["stored_as"] = s["name"] if whole else f"{s['name']}[{begin}:{end}]"
            if version == 2 and s["name"].startswith("adam."):
                s["stored_as"] = ""
                continue
            first, last = entry["data_offsets"]
            tensors.append((s["stored_as"], entry["dtype"], entry["shape"], data[first:last]))
        file["bytes"], file["hash"] = write_safetensors(os.path.join(folder, file["path"]), header["__metadata__"],
                                                        tensors)
    write_manifest(os.path.join(folder, "manifest.json"), manifest)


def main():
    source, output, left_out = sys.argv[1].rstrip("/"), sys.argv[2], sys.argv[3:]
    for version in (1, 2):
        convert(source, os.path.join(output, f"format_{version}"), version, left_out)
    shutil.copytree(source, os.path.join(output, "format_3", os.path.basename(source)))


if __name__ == "__main__":
    main()
