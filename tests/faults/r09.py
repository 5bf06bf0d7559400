"""Files that are cut, longer, zero, empty, gone, a folder or a link: as in R8."""

from damage import Damaged, replace


def test(lab):
    damaged = Damaged(lab)
    outside = lab.folder / "outside"

    def link(path, content):
        outside.write_bytes(content)
        path.unlink()
        path.symlink_to(outside)

    def folder(path, _):
        path.unlink()
        path.mkdir()

    damages = {
        "one byte short": lambda path, content: path.write_bytes(content[:-1]),
        "half": lambda path, content: path.write_bytes(content[:len(content) // 2]),
        "longer": lambda path, content: path.write_bytes(content + b"\n"),
        "zeroed": lambda path, content: path.write_bytes(bytes(len(content))),
        "empty": lambda path, _: path.write_bytes(b""),
        "missing": lambda path, _: path.unlink(),
        "a folder": folder,
        "a link": link,
    }
    trials = lab.some([(path, name) for path in damaged.files for name in damages], short=8)
    for path, name in trials:
        undo = replace(path, damages[name])
        texts = [] if name == "missing" and path.name == "manifest.json" else [path.name]
        damaged.expect_refused(f"{path.name} {name}", texts, fall_back=not lab.short or name in ("half", "a link"))
        undo()
    return f"{len(trials)} damaged files of {len(damaged.files)}, {damaged.fallbacks} fallbacks ended Same"
