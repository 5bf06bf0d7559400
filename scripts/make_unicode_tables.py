#!/usr/bin/env python3
"""Writes src/data/unicode_tables.cpp from the Unicode Character Database (Debian package unicode-data).

The GPT-2 split rule asks of a code point: letter (\\p{L}), number (\\p{N}), white space (\\s) or other. The answer is
two bits, kept in a two-level table: a block number per 256 code points, then 64 bytes per distinct block.

usage: scripts/make_unicode_tables.py [/usr/share/unicode] > src/data/unicode_tables.cpp
"""
import re
import sys

OTHER, LETTER, NUMBER, SPACE = range(4)
LIMIT = 0x110000


def read_classes(folder):
    classes = bytearray(LIMIT)
    first = None  # start of a range given as two lines "<..., First>" and "<..., Last>"
    with open(f"{folder}/UnicodeData.txt", encoding="ascii") as lines:
        for line in lines:
            code, name, category = line.split(";")[:3]
            code = int(code, 16)
            kind = {"L": LETTER, "N": NUMBER}.get(category[0], OTHER)
            if name.endswith(", First>"):
                first = code
                continue
            begin = first if name.endswith(", Last>") else code
            first = None
            for c in range(begin, code + 1):
                classes[c] = kind
    with open(f"{folder}/PropList.txt", encoding="utf-8") as lines:
        for line in lines:
            match = re.match(r"([0-9A-F]+)(?:\.\.([0-9A-F]+))?\s*;\s*White_Space\b", line)
            if match:
                for c in range(int(match[1], 16), int(match[2] or match[1], 16) + 1):
                    classes[c] = SPACE
    return classes


def version_of(folder):
    with open(f"{folder}/PropList.txt", encoding="utf-8") as lines:
        return re.search(r"PropList-([0-9.]+)\.txt", next(lines))[1]


def numbers(values, per_line):
    rows = [values[i : i + per_line] for i in range(0, len(values), per_line)]
    return "\n".join("    " + ", ".join(map(str, row)) + "," for row in rows)


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else "/usr/share/unicode"
    classes = read_classes(folder)
    blocks, index = [], []
    for begin in range(0, LIMIT, 256):
        part = classes[begin : begin + 256]
        packed = tuple(sum(part[i + k] << (2 * k) for k in range(4)) for i in range(0, 256, 4))
        if packed not in blocks:
            blocks.append(packed)
        index.append(blocks.index(packed))
    assert len(blocks) <= 256
    print("// Made by scripts/make_unicode_tables.py from the Unicode Character Database; do not edit.")
    print('#include "data/unicode_tables.h"\n\nnamespace ziggurat {\n')
    print("// clang-format off")
    print(f'const char* const kUnicodeVersion = "{version_of(folder)}";\n')
    print(f"const uint8_t kUnicodeBlock[{len(index)}] = {{\n{numbers(index, 32)}\n}};\n")
    print(f"const uint8_t kUnicodeClasses[{len(blocks)}][64] = {{")
    for block in blocks:
        print("    {" + ",".join(map(str, block)) + "},")
    print("};\n// clang-format on\n\n}  // namespace ziggurat")


if __name__ == "__main__":
    main()
