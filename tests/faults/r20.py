"""One rank stands still, wherever it is: the others say which, tell what they did, and end with 76 in time."""

from hang import expect_named


def test(lab):
    sites = lab.some(["compute:step=3", "reduce:step=3", "save:step=4", "eval:step=4", "update:step=5"], short=2)
    waited = 0
    for place in sites:
        site, at = place.split(":")
        _, seconds = expect_named(lab, place, {1}, 4, f"{site}:stop:rank=1:{at}", ("watch.long_phases=3s",))
        waited = max(waited, seconds)
    return f"{len(sites)} places: {', '.join(sites)}; told after {waited:.1f} s at most"
