"""The finished runs of a study grouped into cells, and the pairs of cells that are compared."""

from collections.abc import Iterable
from itertools import combinations

import numpy as np

from bankintent.measures.arrays import Ints
from bankintent.studies.plan import PlannedRun, SizeName
from bankintent.studies.recipes import Recipe
from bankintent.studies.record import RunRecord

SENTENCE_NAMES = {
    "lora": "LoRA",
    "full-ft": "full fine-tuning",
    "head-only": "head-only training",
}
"""Names in sentences of recipes that are named like their regime."""


class Cell:
    """The finished runs of one recipe at one size, in the order of their seeds."""

    def __init__(self, recipe: Recipe, size: SizeName) -> None:
        self.recipe = recipe
        self.size = size
        self.records: dict[int, RunRecord] = {}
        """seed -> record"""

    @property
    def first(self) -> RunRecord:
        """The record of the first seed, for what is the same in all."""
        return next(iter(self.records.values()))

    @property
    def trained_share(self) -> float:
        """Trainable parameters as a share of all."""
        return self.first.trainable_parameters / self.first.total_parameters

    @property
    def sentence_name(self) -> str:
        """The recipe's name in a sentence."""
        # With the study's backbones, the regime alone would name several cells.
        if self.recipe.backbone is None:
            return SENTENCE_NAMES.get(self.recipe.name, self.recipe.name)
        return self.recipe.slug

    def predicted(self, seeds: Iterable[int]) -> Ints:
        """(seeds, rows) label ids."""
        return np.array([self.records[seed].predicted for seed in seeds])

    def is_right(self, true: Ints, seeds: Iterable[int]) -> Ints:
        """(seeds, rows) booleans: whether the answer is correct."""
        return self.predicted(seeds) == true


def group_cells(runs: list[PlannedRun], records: dict[str, RunRecord]) -> list[Cell]:
    """Cells with a finished run: all data first, then by falling size.

    Recipes of a size are in the config's order; `records` are by the keys of runs.
    """
    cells: dict[tuple[SizeName, str], Cell] = {}
    for run in runs:
        if run.key in records:
            cell_key = (run.size, run.recipe.slug)
            cell = cells.setdefault(cell_key, Cell(run.recipe, run.size))
            cell.records[run.seed] = records[run.key]

    # The sort is stable: recipes of a size stay in the config's order.
    return sorted(cells.values(), key=_size_order)


def _size_order(cell: Cell) -> float:
    # All data is more than any number of sentences for each intent.
    if cell.size == "all":
        return -float("inf")
    return -cell.size


def pair_cells(cells: list[Cell]) -> list[tuple[Cell, Cell]]:
    """Cells of one size and backbone with a seed in common, the one that trains less first."""
    pairs = []
    for a, b in combinations(cells, 2):
        is_comparable = a.size == b.size and a.recipe.backbone == b.recipe.backbone
        if not is_comparable or not common_seeds(a, b):
            continue

        # Of equals the one that the config names first.
        if a.first.trainable_parameters <= b.first.trainable_parameters:
            pairs.append((a, b))
        else:
            pairs.append((b, a))
    return pairs


def common_seeds(a: Cell, b: Cell) -> list[int]:
    """The seeds that both cells have finished."""
    return [seed for seed in a.records if seed in b.records]
