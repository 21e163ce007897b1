"""Run kinds of faults at the size that is asked for; ends with 1 where one gave way."""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
SHARED = ("__main__", "tally")
"""Modules that are no kind."""


def kinds() -> list[str]:
    """The names of all kinds, in alphabetical order."""
    names = [module.name for module in pkgutil.iter_modules([str(TESTS / "faults")])]
    return [name for name in names if name not in SHARED]


def main() -> None:
    """Run the kinds that the command line names, by default all."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("kind", nargs="*", help=f"by default every kind: {', '.join(kinds())}")
    parser.add_argument("--count", type=int, default=10_000, help="most situations of a kind")
    arguments = parser.parse_args()

    # The modules of the tests import each other by name.
    sys.path.insert(0, str(TESTS))
    unknown = set(arguments.kind) - set(kinds())
    if unknown:
        parser.error(f"there is no kind {', '.join(sorted(unknown))}")

    gave_way = 0
    for kind in arguments.kind or kinds():
        tally = importlib.import_module(f"faults.{kind}").run(arguments.count)
        gave_way += len(tally.gave_way)
        print("\n".join(tally.lines()), flush=True)

    sys.exit(gave_way > 0)


if __name__ == "__main__":
    main()
