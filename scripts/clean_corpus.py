#!/usr/bin/env python3
"""Turns the unpacked packages of make_corpus.sh into plain text, one document per file.

usage: clean_corpus.py PACKAGES_FOLDER OUTPUT_FOLDER

Markup, code blocks and licence texts are dropped, wrapped lines are joined to paragraphs, and documents that
are short or repeat an earlier one are left out. Needs only Python's standard library.
"""
import gzip
import hashlib
import html.parser
import pathlib
import re
import struct
import sys
import zlib

SHORTEST = 400  # characters; less is a heading or a stub
LICENCE = re.compile(r"GNU (GENERAL|FREE DOCUMENTATION|LESSER GENERAL) [A-Z ]*LICENSE|TERMS AND CONDITIONS")


def paragraphs(text):
    """Joins the wrapped lines of each paragraph; paragraphs are set apart by blank lines."""
    parts = (re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text))
    return "\n\n".join(part for part in parts if part)


def r_strings(blob):
    """The strings of a serialised R character vector (R internals, section 1.8, XDR format)."""
    at = blob.index(b"\x00\x00\x00\x10") + 4  # type 16: a vector of strings
    (count,) = struct.unpack_from(">i", blob, at)
    at += 4
    for _ in range(count):
        flags, length = struct.unpack_from(">ii", blob, at)
        if flags & 0xFF != 9:  # type 9: one string
            raise ValueError("not a character vector")
        at += 8
        yield blob[at : at + max(length, 0)].decode("utf-8")
        at += max(length, 0)


def austen(package):
    """Chapters of the novels. An R data file is a row of blocks: length, then zlib data."""
    (path,) = package.rglob("data/Rdata.rdb")
    data = path.read_bytes()
    while data:
        block = zlib.decompressobj()
        lines = list(r_strings(block.decompress(data[4:])))
        data = block.unused_data
        name = re.sub(r"\W+", "-", lines[0].lower()).strip("-")
        chapters = re.split(r"(?im)^(?=chapter [\divxlc]+\.?$)", "\n".join(lines))
        for number, chapter in enumerate(chapters):
            yield f"{name}-{number:03}", paragraphs(chapter)


def world_english_bible(package):
    """Chapters of the books. SWORD's zText: <testament>.bzs says where each zlib block of .bzz lies."""
    for testament in ("ot", "nt"):
        (index,) = package.rglob(testament + ".bzs")
        blocks = index.with_suffix(".bzz").read_bytes()
        for start, size, _ in struct.iter_unpack("<III", index.read_bytes()):
            book = zlib.decompress(blocks[start : start + size]).decode("utf-8")
            for chapter in re.split(r"(?=<chapter [^>]*sID=)", book):
                name = re.match(r'<chapter [^>]*sID="([^"]+)"', chapter)
                if not name:
                    continue  # what stands before the first chapter: titles
                chapter = re.sub(r"<(note|title)\b.*?</\1>", "", chapter, flags=re.S)
                chapter = re.sub(r'<(div|lg|lb)\b[^>]*(sID|type="x-p")[^>]*>', "\n\n", chapter)
                chapter = re.sub(r"<l\b[^>]*sID[^>]*>", "\n\n", chapter)
                yield name[1].lower().replace(".", "-"), paragraphs(html.unescape(re.sub(r"<[^>]+>", "", chapter)))


def jargon_file(package):
    (path,) = package.rglob("jargon.txt.gz")
    text = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
    text = paragraphs(text)
    # Some 20,000 characters a document, so that a part of them can be held out.
    document, number = [], 0
    for paragraph in text.split("\n\n"):
        document.append(paragraph)
        if sum(map(len, document)) > 20000:
            yield f"jargon-{number:03}", "\n\n".join(document)
            document, number = [], number + 1
    yield f"jargon-{number:03}", "\n\n".join(document)


class TextOfHtml(html.parser.HTMLParser):
    """The running text of a page; every block element begins a paragraph."""

    SKIPPED = {"script", "style", "head", "pre", "nav", "table", "footer"}
    INLINE = {"a", "abbr", "acronym", "b", "cite", "code", "dfn", "em", "i", "kbd", "q", "samp", "small", "span",
              "strong", "sub", "sup", "tt", "u", "var", "wbr"}

    def __init__(self):
        super().__init__()
        self.parts, self.skipping = [], 0

    def handle_starttag(self, tag, attrs):
        classes = dict(attrs).get("class") or ""
        hidden = re.search(r"\b(nav|toc|sphinxsidebar|related)", classes)
        if tag in self.SKIPPED or (self.skipping and tag == "div") or hidden:
            self.skipping += tag in self.SKIPPED or tag == "div"
        elif tag not in self.INLINE:
            self.parts.append("\n\n")

    def handle_endtag(self, tag):
        if self.skipping:
            self.skipping -= tag in self.SKIPPED or tag == "div"
        elif tag not in self.INLINE:
            self.parts.append("\n\n")

    def handle_data(self, data):
        if not self.skipping:
            self.parts.append(data.replace("\n", " "))


def english_pages(package):
    for path in sorted(package.rglob("*.html")):
        if path.is_symlink() or re.search(r"\.(?!en\b)[a-z]{2}(-[a-z]+)?\.html$", path.name):
            continue
        page = TextOfHtml()
        page.feed(path.read_text(encoding="utf-8", errors="replace"))
        # Headings, menus and lists of links are short lines; prose is not.
        text = [p for p in paragraphs("".join(page.parts)).split("\n\n") if len(p) > 60]
        yield path.stem.replace(".", "-"), "\n\n".join(text)


SOURCES = {
    "r-cran-janeaustenr": austen,
    "sword-text-web": world_english_bible,
    "jargon-text": jargon_file,
    "debian-reference-en": english_pages,
    "developers-reference": english_pages,
}


def main():
    packages, output = map(pathlib.Path, sys.argv[1:])
    seen, total = set(), 0
    for package, documents in SOURCES.items():
        folder = output / package
        folder.mkdir(parents=True)
        size = 0
        for name, text in documents(packages / package):
            digest = hashlib.sha256(re.sub(r"\W+", "", text).lower().encode()).digest()
            if len(text) < SHORTEST or digest in seen or LICENCE.search(text):
                continue
            seen.add(digest)
            data = (text + "\n").encode("utf-8")
            (folder / f"{name}.txt").write_bytes(data)
            size += len(data)
        print(f"corpus: {package}: {size / 1e6:.2f} MB")
        total += size
    (output / "complete").write_text(f"{len(seen)} documents, {total / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
