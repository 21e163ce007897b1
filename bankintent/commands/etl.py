"""Make Parquet splits, a label schema and a data report of a source of labelled sentences.

python -m etl --config configs/data.yaml
python -m etl --config configs/banking77/data.yaml --set dataset_name=path/to/banking77
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from bankintent import cli, files
from bankintent.config import DataConfig
from bankintent.configfile import load

if TYPE_CHECKING:
    from bankintent.corpus.figures import DataReport


def etl(
    config: Annotated[
        Path,
        cli.config_option(
            help="The source and how to split it, e.g. configs/data.yaml; --cfg-path is the same."
        ),
    ],
    overrides: cli.Overrides = None,
) -> None:
    """Read a dataset, clean it, split it, report on it, and write Parquet for training.

    Writes train/val/test.parquet, labels.json, report.md, report.json and manifest.json to
    `output_dir`. The same config and data always give the same bytes;
    where the folder holds former data, the manifest also says how many rows changed their split.
    """
    run(load(DataConfig, config, overrides or ()))


def run(settings: DataConfig) -> "DataReport":
    """Write the splits of a source, their labels and their report; returns the report."""
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent.corpus import (
        cleaning,
        division,
        figures,
        leaks,
        moves,
        out_of_scope,
        patches,
        report,
        sources,
        writing,
    )
    from bankintent.corpus.large import engine

    summary = _run_large(settings) if engine.is_large(settings) else None
    if summary is not None:
        return summary

    # Before the source, which may take long to read.
    corrections = patches.read_all(settings)
    source = sources.read_all(settings)
    rows = cleaning.clean_all(source, settings)
    rows = out_of_scope.set_apart(rows, settings)
    divided = division.divide(rows, settings)
    patched = patches.apply(divided, corrections, settings)
    corpus, leaking = leaks.resolve_leaks(patched, settings.leakage)
    labels = corpus.label_schema(source.dataset.label_order)
    # The former data may stand aside where a run was killed while it replaced them.
    files.settle(settings.output_dir)
    moved = moves.against_former(corpus.splits, settings.output_dir)

    summary = figures.describe_data(corpus, rows, leaking, source, settings)
    writing.write(corpus, labels, summary, moved, settings)
    report.show(summary, settings.dataset_name, settings.output_dir)
    moves.show(moved)
    return summary


def _run_large(settings: DataConfig) -> "DataReport | None":
    """The same with the rows on disk; None where `auto` finds that they are few, of long texts."""
    from bankintent.corpus import report
    from bankintent.corpus.large import run as large

    try:
        summary = large.run(settings)
    except large.FewRows:
        if settings.engine == "duckdb":
            raise
        return None
    report.show(summary, settings.dataset_name, settings.output_dir)
    return summary
