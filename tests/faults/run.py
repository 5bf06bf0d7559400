"""The reliability scorecard: one line a test, and how many of 35 passed.

run.py ZIGGURAT SOURCE [--short] [--scale X] [--seed N] [--keep] [R7 ...]
"""

import argparse
import contextlib
import importlib
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from lab import Failure, Lab, Untried

ALL = [f"R{n}" for n in range(1, 36)]


def attempt(name, options):
    """(passed, what was tried or why not)"""
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix=f"ziggurat-{name}-")
        if not options.keep:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        lab = Lab(options.ziggurat.resolve(), options.source.resolve(), folder, options.short, options.scale,
                  f"{name} {options.seed}")
        try:
            return True, importlib.import_module(f"r{int(name[1:]):02d}").test(lab)
        except Failure as failure:
            return False, str(failure)
        except Untried as reason:
            return False, f"cannot be tried here: {reason}"
        except ModuleNotFoundError:
            return False, "there is no such test"
        except Exception as error:
            traceback.print_exc()
            return False, f"cannot run: {type(error).__name__}: {error}"
        finally:
            lab.end()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ziggurat", type=Path)
    parser.add_argument("source", type=Path)
    parser.add_argument("--short", action="store_true", help="a few trials of each: what ctest runs")
    parser.add_argument("--scale", type=float, default=1, help="times as many trials")
    parser.add_argument("--seed", default="1234")
    parser.add_argument("--keep", action="store_true", help="leave the folders of the tests in /tmp")
    parser.add_argument("tests", nargs="*", metavar="R7")
    options = parser.parse_intermixed_args()
    tests = options.tests or ALL
    unknown = [name for name in tests if name not in ALL]
    if unknown:
        parser.error(f"expected R1 to R35, got {' '.join(unknown)}")
    passed = 0
    for name in tests:
        begun = time.monotonic()
        good, told = attempt(name, options)
        passed += good
        seconds = f"{time.monotonic() - begun:.0f} s"
        print(f"{name} pass {seconds}  {told}" if good else f"{name} FAIL {' / '.join(told.splitlines())}", flush=True)
    print(f"passed {passed}/{len(tests)}")
    return passed != len(tests)


if __name__ == "__main__":
    sys.exit(main())
