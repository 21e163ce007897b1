"""The figures of a comparison, from its run records alone: cells, paired tests, verdicts. A pure function."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import combinations
from statistics import median
from typing import Any

import numpy as np

from bankintent.config import CompareConfig
from bankintent.errors import DataError
from bankintent.measures import paired
from bankintent.measures.metrics import Ints
from bankintent.studies.plan import Recipe, Run, SizeName
from bankintent.studies.record import Rows, RunRecord

ALPHA = 0.05
BOOTSTRAP_SEED = 6
NAMES = {"lora": "LoRA", "full-ft": "full fine-tuning", "head-only": "head-only training"}
"""How a sentence calls a recipe that is named like its regime."""

Figures = dict[str, Any]


class Cell:
    """The finished runs of one recipe at one size, in the order of their seeds."""

    def __init__(self, recipe: Recipe, size: SizeName) -> None:
        self.recipe, self.size = recipe, size
        self.records: dict[int, RunRecord] = {}

    def right(self, true: Ints, seeds: Iterable[int]) -> Ints:
        """(seeds, rows) of truth values: answered rightly."""
        return self.predicted(seeds) == true

    def predicted(self, seeds: Iterable[int]) -> Ints:
        """(seeds, rows) label ids."""
        return np.array([self.records[seed].predicted for seed in seeds])

    @property
    def first(self) -> RunRecord:
        return next(iter(self.records.values()))

    @property
    def name(self) -> str:
        return (
            NAMES.get(self.recipe.name, self.recipe.name)
            if self.recipe.backbone is None
            else self.recipe.slug
        )


def analyse(
    config: CompareConfig, runs: list[Run], found: dict[str, RunRecord], rows: Rows
) -> Figures:
    """Everything that the report says, as plain JSON values; `found` maps the keys of finished runs to their records.

    Raises DataError where a record is of other rows than the study's.
    """
    for key, record in found.items():
        if record.rows_hash != rows.rows_hash or len(record.predicted) != len(rows.true):
            raise DataError(
                f"the record {key} is of other {rows.split} rows",
                "Remove it; the run is then made again",
            )
    records = [found[run.key] for run in runs if run.key in found]
    cells = _cells(runs, found)
    true = np.asarray(rows.true)
    pairs = [_pair(a, b, true, config) for a, b in _pairs(cells)]
    return {
        "study": config.name,
        "data": {"name": rows.dataset, "data_hash": rows.data_hash, "intents": len(rows.labels)},
        "split": rows.split,
        "rows": len(rows.true),
        "seeds": config.seeds,
        "runs": {
            "planned": len(runs),
            "finished": len(records),
            "missing": [run.label for run in runs if run.key not in found],
        },
        "made": {
            "from": min(record.finished for record in records),
            "to": max(record.finished for record in records),
            "hardware": sorted({record.hardware for record in records}),
            "precision": sorted({record.precision for record in records}),
            "versions": [
                dict(pairs)
                for pairs in sorted({tuple(sorted(r.versions.items())) for r in records})
            ],
        },
        "bootstrap": {"resamples": config.bootstrap, "seed": BOOTSTRAP_SEED},
        "recipes": _recipes(runs, found),
        "cells": [_figures(cell, rows.split) for cell in cells],
        "pairs": pairs,
        "intents": [_intents(a, b, rows) for a, b in _pairs(cells) if a.size == cells[0].size],
    }


def _cells(runs: list[Run], found: dict[str, RunRecord]) -> list[Cell]:
    """Cells with a finished run: all data first, then by falling size; recipes in the config's order."""
    cells: dict[tuple[SizeName, str], Cell] = {}
    for run in runs:
        if run.key in found:
            cell = cells.setdefault((run.size, run.recipe.slug), Cell(run.recipe, run.size))
            cell.records[run.seed] = found[run.key]
    return sorted(
        cells.values(), key=lambda cell: -float("inf") if cell.size == "all" else -cell.size
    )


def _pairs(cells: list[Cell]) -> list[tuple[Cell, Cell]]:
    """Recipes at the same size on the same backbone with a seed in common, the one that trains less first."""
    return [
        (a, b) if a.first.trainable_parameters <= b.first.trainable_parameters else (b, a)
        for a, b in combinations(cells, 2)
        if a.size == b.size and a.recipe.backbone == b.recipe.backbone and _common(a, b)
    ]


def _common(a: Cell, b: Cell) -> list[int]:
    return [seed for seed in a.records if seed in b.records]


def _recipes(runs: list[Run], found: dict[str, RunRecord]) -> list[Figures]:
    """Each recipe with its regime, model, what a sweep chose, and its settings without what differs between runs."""
    recipes: dict[str, tuple[Recipe, RunRecord]] = {}
    for run in runs:
        if run.key in found:
            recipes.setdefault(run.recipe.slug, (run.recipe, found[run.key]))
    return [
        {
            "recipe": slug,
            "regime": recipe.regime,
            "backbone": record.backbone,
            "chosen": recipe.chosen.model_dump(exclude={"key", "trials"})
            | {"words": recipe.chosen.words}
            if recipe.chosen
            else None,
            "settings": {
                k: v for k, v in record.settings.items() if k not in ("seed", "few_shot", "regime")
            },
        }
        for slug, (recipe, record) in recipes.items()
    ]


def _figures(cell: Cell, split: str) -> Figures:
    """One cell's row of the report. Times and latencies are medians over seeds, memory is the largest."""
    records = list(cell.records.values())
    first = cell.first
    return {
        "recipe": cell.recipe.slug,
        "regime": cell.recipe.regime,
        "size": cell.size,
        "train_rows": first.train_rows,
        "seeds": list(cell.records),
        **{
            metric: _over_seeds([r.metrics[split][metric] for r in records])
            for metric in ("accuracy", "macro_f1")
        },
        "val_accuracy": _over_seeds([r.metrics["val"]["accuracy"] for r in records]),
        "trainable_parameters": first.trainable_parameters,
        "total_parameters": first.total_parameters,
        "share": first.trainable_parameters / first.total_parameters,
        "run_seconds": _median(r.run_seconds for r in records),
        "train_seconds": _median(r.train_seconds for r in records),
        "peak_memory_bytes": max(r.peak_memory_bytes for r in records),
        "bytes": first.bytes,
        "single_ms": _median(r.latency.single_ms for r in records),
        "batched_per_second": _median(r.latency.batched_per_second for r in records),
    }


def _over_seeds(values: list[float]) -> Figures:
    array = np.asarray(values)
    return {"mean": float(array.mean()), "interval": paired.t_interval(array), "values": values}


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None


def _pair(a: Cell, b: Cell, true: Ints, config: CompareConfig) -> Figures:
    """A against B on the same rows and seeds.

    McNemar's test is made for each seed, and once on the plurality vote of all seeds: pooling the seeds' rows into
    one table would count every row several times over.
    """
    seeds = _common(a, b)
    a_right, b_right = a.right(true, seeds), b.right(true, seeds)
    tests = [paired.mcnemar(*rights) for rights in zip(a_right, b_right, strict=True)]
    votes = [paired.plurality(cell.predicted(seeds)) == true for cell in (a, b)]
    figures = {
        "a": a.recipe.slug,
        "b": b.recipe.slug,
        "size": a.size,
        "seeds": seeds,
        "difference": float(a_right.mean() - b_right.mean()),
        "interval": paired.bootstrap_difference(a_right, b_right, config.bootstrap, BOOTSTRAP_SEED),
        "resampled": "rows and seeds" if len(seeds) > 1 else "rows",
        "mcnemar": {
            "seeds": [
                {"seed": seed, **asdict(test)} for seed, test in zip(seeds, tests, strict=True)
            ],
            "significant": sum(test.p < ALPHA for test in tests),
            "plurality": asdict(paired.mcnemar(*votes)),
        },
    }
    return figures | {"verdict": _verdict(figures, a, b)}


def _verdict(pair: Figures, a: Cell, b: Cell) -> str:
    """One sentence that the interval supports."""
    difference, (low, high) = pair["difference"], pair["interval"]
    seeds = len(pair["seeds"])
    where = "above" if difference > 0 else "below"
    distance = (
        f"{signed(abs(difference))} points of accuracy {where} {b.name}"
        if difference
        else f"level with {b.name}"
    )
    basis = f"95 % interval {signed(low)} to {signed(high)}, " + (
        f"{seeds} seeds" if seeds > 1 else "one seed"
    )
    shares = [cell.first.trainable_parameters / cell.first.total_parameters for cell in (a, b)]
    against = f", with {percent(shares[0])} of the parameters trained against {percent(shares[1])}"
    trained = against if shares[0] != shares[1] else ""
    if low <= 0 <= high:
        text = f"No difference was shown between {a.name} and {b.name}: {a.name} is {distance} ({basis}){trained}."
    else:
        text = f"{a.name} is {distance} ({basis}){trained}."
    text = text[0].upper() + text[1:] if a.name in NAMES.values() else text
    return text + (" Only the rows were resampled, as there is one seed." if seeds == 1 else "")


def signed(share: float) -> str:
    """A difference of shares in points, two digits, and no minus before a zero."""
    text = f"{100 * share:.2f}"
    return "0.00" if text == "-0.00" else text


def percent(share: float) -> str:
    """A share in per cent with two digits that count, 100 % only for all of it."""
    if share == 1:
        return "100 %"
    return f"{100 * share:.1f} %" if share >= 0.01 else f"{100 * share:.2g} %"


def _intents(a: Cell, b: Cell, rows: Rows) -> Figures:
    """For each intent how many of its rows each side answers rightly, the mean over seeds; largest gain of A first."""
    seeds, true = _common(a, b), np.asarray(rows.true)
    means = [cell.right(true, seeds).mean(axis=0) for cell in (a, b)]
    table: list[Figures] = []
    for index, name in enumerate(rows.labels):
        of_intent = true == index
        a_right, b_right = (float(mean[of_intent].sum()) for mean in means)
        counts = {"rows": int(of_intent.sum()), "a_right": a_right, "b_right": b_right}
        table.append({"intent": name, **counts, "difference": round(a_right - b_right, 6)})
    table.sort(key=lambda row: -row["difference"])  # stable: equals stay in id order
    return {"a": a.recipe.slug, "b": b.recipe.slug, "size": a.size, "intents": table}
