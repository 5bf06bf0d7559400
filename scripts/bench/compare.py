#!/usr/bin/env python3
"""What became faster or slower: the ratios of two sets of results of run.sh.

compare.py OLD NEW        each FILE.jsonl or FILE.jsonl@PREFIX, where PREFIX begins a date or a revision:
                          compare.py run/bench.jsonl@1a2b3c run/bench.jsonl@4d5e6f

Compared are the same machine, threads, row and precision. The bound's ratio tells how the machine itself changed: what
Ziggurat changed is the ratio of the two. Exit code 1 if a row lost more than 5 % of its share of the bound.
"""
import sys


def ratios(old, new):
    """(key, Ziggurat's ratio, the bound's ratio) of every key that both have."""
    return [(key, new[key]["ziggurat"] / old[key]["ziggurat"], new[key]["bound"] / old[key]["bound"]) for key in old if key in new]


def main():
    from results import newest
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    told = ratios(newest(sys.argv[1]), newest(sys.argv[2]))
    if not told:
        sys.exit("no row was measured in both on the same machine with as many threads")
    print("| row | precision | Ziggurat, new / old | its bound, new / old | beside its bound |")
    print("|---|---|---|---|---|")
    for (_, _, row, precision), ratio, bound in told:
        print(f"| {row} | {precision} | {ratio:.3f} | {bound:.3f} | {ratio / bound:.3f} |")
    sys.exit(1 if any(ratio / bound < 0.95 for _, ratio, bound in told) else 0)


if __name__ == "__main__":
    main()
