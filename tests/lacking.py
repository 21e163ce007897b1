"""Run the program as if some packages were not installed: `python lacking.py torch,scipy VERB ...`.

Several verbs may follow each other, with `--then` between them.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType


class Lacking(importlib.machinery.PathFinder):
    """Finds modules as Python does, but not those of some packages."""

    names: frozenset[str] = frozenset()

    @classmethod
    def find_spec(
        cls,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] in cls.names:
            return None
        return super().find_spec(fullname, path, target)


def block(names: str) -> None:
    """From now on packages of these names, with commas between them, cannot be imported."""
    Lacking.names = frozenset(names.split(","))
    sys.meta_path[:] = [
        Lacking if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path
    ]


def main() -> None:
    block(sys.argv[1])
    from bankintent import cli
    from bankintent.__main__ import HELP, VERBS

    runs: list[list[str]] = [[]]
    for word in sys.argv[2:]:
        if word == "--then":
            runs.append([])
        else:
            runs[-1].append(word)

    for words in runs:
        try:
            cli.verbs_app(HELP, VERBS)(words)
        except SystemExit as stop:
            if stop.code:
                raise


if __name__ == "__main__":
    main()
