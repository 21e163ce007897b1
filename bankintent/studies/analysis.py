"""The analysis of a comparison, from its run records alone: cells, paired tests, verdicts."""

from collections.abc import Iterable
from statistics import median

import numpy as np

from bankintent.config import CompareConfig
from bankintent.errors import DataError
from bankintent.measures import paired
from bankintent.measures.arrays import Ints
from bankintent.measures.metrics import IntentFigures
from bankintent.studies.cells import Cell, common_seeds, group_cells, pair_cells
from bankintent.studies.figures import (
    BootstrapSettings,
    CellFigures,
    ComparisonFigures,
    DataFigures,
    IntentComparison,
    McNemarFigures,
    PairFigures,
    Provenance,
    RecipeFigures,
    RunCounts,
    SeedMean,
    SeedTest,
    SweepChoice,
)
from bankintent.studies.plan import PlannedRun
from bankintent.studies.recipes import Recipe
from bankintent.studies.record import RunRecord, StudyRows
from bankintent.studies.verdict import write_verdict

ALPHA = 0.05
"""A test with a smaller p counts as significant: as strict as the intervals of 95 %."""

BOOTSTRAP_SEED = 6
"""Fixed, so that the same records give the same intervals."""

CELL_SETTINGS = ("seed", "few_shot", "regime")
"""Settings that differ between the runs of a recipe, or that the report names in another place."""


def analyse(
    config: CompareConfig,
    runs: list[PlannedRun],
    records: dict[str, RunRecord],
    rows: StudyRows,
) -> ComparisonFigures:
    """Everything that the report says; `records` are those of finished runs, by the runs' keys.

    Raises DataError where a record is of other rows than the study's.
    """
    _require_same_rows(records, rows)
    true = np.asarray(rows.true)
    finished = []
    missing = []
    for run in runs:
        if run.key in records:
            finished.append(run)
        else:
            missing.append(run.label)

    # The largest size comes first. Intents are compared there alone.
    cells = group_cells(finished, records)
    largest_size = cells[0].size
    pairs = []
    intents = []
    for a, b in pair_cells(cells):
        pairs.append(_pair_figures(a, b, true, config))
        if a.size == largest_size:
            intents.append(_compare_intents(a, b, rows))

    return ComparisonFigures(
        study=config.name,
        data=DataFigures(rows.dataset, rows.data_hash, intents=len(rows.labels)),
        split=rows.split,
        rows=len(rows.true),
        seeds=config.seeds,
        runs=RunCounts(planned=len(runs), finished=len(finished), missing=missing),
        made=_provenance(records.values()),
        bootstrap=BootstrapSettings(config.bootstrap, BOOTSTRAP_SEED),
        recipes=_recipe_figures(finished, records),
        cells=[_cell_figures(cell, rows.split) for cell in cells],
        pairs=pairs,
        intents=intents,
    )


def _require_same_rows(records: dict[str, RunRecord], rows: StudyRows) -> None:
    for key, record in records.items():
        if record.rows_hash != rows.rows_hash or len(record.predicted) != len(rows.true):
            raise DataError(
                f"the record {key} is of other {rows.split} rows",
                "Remove it; the run is then made again",
            )


def _provenance(records: Iterable[RunRecord]) -> Provenance:
    times = set()
    hardware = set()
    precision = set()
    versions = set()
    for record in records:
        times.add(record.finished)
        hardware.add(record.hardware)
        precision.add(record.precision)
        # As a tuple, because a dict can be neither in a set nor sorted.
        versions.add(tuple(sorted(record.versions.items())))

    return Provenance(
        first_finished=min(times),
        last_finished=max(times),
        hardware=sorted(hardware),
        precision=sorted(precision),
        versions=[dict(items) for items in sorted(versions)],
    )


def _recipe_figures(
    finished: list[PlannedRun], records: dict[str, RunRecord]
) -> list[RecipeFigures]:
    """Each recipe with the settings that its runs share."""
    recipes: dict[str, RecipeFigures] = {}
    for run in finished:
        recipe = run.recipe
        if recipe.slug in recipes:
            continue

        record = records[run.key]
        settings = dict(record.settings)
        for key in CELL_SETTINGS:
            settings.pop(key, None)
        recipes[recipe.slug] = RecipeFigures(
            recipe=recipe.slug,
            regime=recipe.regime,
            backbone=record.backbone,
            chosen=_sweep_choice(recipe),
            settings=settings,
        )
    return list(recipes.values())


def _sweep_choice(recipe: Recipe) -> SweepChoice | None:
    sweep = recipe.sweep
    if sweep is None:
        return None

    return SweepChoice(
        metric=sweep.metric,
        folds=sweep.folds,
        values=sweep.values,
        value=sweep.value,
        words=sweep.describe(),
    )


def _cell_figures(cell: Cell, split: str) -> CellFigures:
    records = list(cell.records.values())
    latencies = [record.latency for record in records]
    first = cell.first

    return CellFigures(
        recipe=cell.recipe.slug,
        regime=cell.recipe.regime,
        size=cell.size,
        train_rows=first.train_rows,
        seeds=list(cell.records),
        accuracy=_mean_over_seeds(records, split, "accuracy"),
        macro_f1=_mean_over_seeds(records, split, "macro_f1"),
        val_accuracy=_mean_over_seeds(records, "val", "accuracy"),
        trainable_parameters=first.trainable_parameters,
        total_parameters=first.total_parameters,
        share=cell.trained_share,
        run_seconds=_median(record.run_seconds for record in records),
        train_seconds=_median(record.train_seconds for record in records),
        # Not a median: with less than this, one of the runs would have failed.
        peak_memory_bytes=max(record.peak_memory_bytes for record in records),
        bytes=first.bytes,
        single_ms=_median(latency.single_ms for latency in latencies),
        batched_per_second=_median(latency.batched_per_second for latency in latencies),
    )


def _mean_over_seeds(records: list[RunRecord], split: str, metric: str) -> SeedMean:
    values = [record.metrics[split][metric] for record in records]
    array = np.asarray(values)
    return SeedMean(
        mean=float(array.mean()),
        interval=paired.t_interval(array),
        values=values,
    )


def _median(values: Iterable[float | None]) -> float | None:
    """The median of the values that are there; None where none is."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    return float(median(numbers))


def _pair_figures(a: Cell, b: Cell, true: Ints, config: CompareConfig) -> PairFigures:
    """A against B on the same rows and seeds."""
    seeds = common_seeds(a, b)
    a_right = a.is_right(true, seeds)
    b_right = b.is_right(true, seeds)

    difference = float(a_right.mean() - b_right.mean())
    interval = paired.bootstrap_difference(a_right, b_right, config.bootstrap, BOOTSTRAP_SEED)

    return PairFigures(
        a=a.recipe.slug,
        b=b.recipe.slug,
        size=a.size,
        seeds=seeds,
        difference=difference,
        interval=interval,
        resampled="rows and seeds" if len(seeds) > 1 else "rows",
        mcnemar=_mcnemar_figures(a, b, true),
        verdict=write_verdict(a, b, difference, interval),
    )


def _mcnemar_figures(a: Cell, b: Cell, true: Ints) -> McNemarFigures:
    """McNemar's test for each seed, and once on the plurality vote of all seeds.

    To pool the seeds' rows into one table would count every row several times over.
    """
    seeds = common_seeds(a, b)
    a_right = a.is_right(true, seeds)
    b_right = b.is_right(true, seeds)

    seed_tests = []
    for seed, a_of_seed, b_of_seed in zip(seeds, a_right, b_right, strict=True):
        test = paired.mcnemar(a_of_seed, b_of_seed)
        seed_tests.append(SeedTest(seed, test.only_a, test.only_b, test.p))

    a_vote = paired.plurality(a.predicted(seeds))
    b_vote = paired.plurality(b.predicted(seeds))
    return McNemarFigures(
        seeds=seed_tests,
        significant=sum(test.p < ALPHA for test in seed_tests),
        plurality=paired.mcnemar(a_vote == true, b_vote == true),
    )


def _compare_intents(a: Cell, b: Cell, rows: StudyRows) -> IntentComparison:
    """Correct answers by intent, means over seeds; the largest gain of A first."""
    seeds = common_seeds(a, b)
    true = np.asarray(rows.true)
    a_means = a.is_right(true, seeds).mean(axis=0)
    b_means = b.is_right(true, seeds).mean(axis=0)

    intents = []
    for label_id, name in enumerate(rows.labels):
        is_of_intent = true == label_id
        a_right = float(a_means[is_of_intent].sum())
        b_right = float(b_means[is_of_intent].sum())
        intents.append(
            IntentFigures(
                intent=name,
                rows=int(is_of_intent.sum()),
                a_right=a_right,
                b_right=b_right,
                # Rounded, so that equal gains compare as equal.
                difference=round(a_right - b_right, 6),
            )
        )

    # The sort is stable: intents with equal gains stay in id order.
    intents.sort(key=lambda figures: -figures.difference)
    return IntentComparison(a.recipe.slug, b.recipe.slug, a.size, intents)
