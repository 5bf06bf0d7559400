"""One flipped bit anywhere in a checkpoint is found before a step, and the checkpoint before is taken."""

from damage import Damaged, replace


def flip(bit):
    def action(path, content):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)

    return action


def test(lab):
    damaged = Damaged(lab)
    trials = lab.trials(full=2000, short=12)
    for trial in range(trials):
        path = lab.random.choice(damaged.files)
        size = path.stat().st_size
        bit = lab.random.randrange(8 * size)
        texts = [str(path)]
        if path.suffix == ".safetensors":
            texts.append("expected hash")
        elif bit // 8 < size - 64:  # before the hash that a manifest ends with
            texts.append("hash to")
        undo = replace(path, flip(bit))
        damaged.expect_refused(f"bit {bit} of {path.name}", texts, fall_back=trial % (4 if lab.short else 20) == 0)
        undo()
    return f"{trials} bits flipped, {trials} refused, {damaged.fallbacks} fallbacks ended Same"
