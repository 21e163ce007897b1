"""Make Parquet splits, a label schema and a data report of a source of labelled sentences.

python -m etl --config configs/data.yaml
python -m etl --config configs/banking77/data.yaml --set dataset_name=path/to/banking77
"""

from pathlib import Path
from typing import Annotated

from bankintent import cli
from bankintent.config import DataConfig
from bankintent.configfile import load


def main(
    config: Annotated[
        Path,
        cli.config_option(
            "--cfg-path", help="The source and how to split it, e.g. configs/data.yaml."
        ),
    ],
    overrides: cli.Overrides = None,
) -> None:
    """Read a dataset, clean it, split it, report on it, and write Parquet for training.

    Writes train/val/test.parquet, labels.json, report.md, report.json and manifest.json to
    `output_dir`. The same config and data always give the same bytes.
    """
    settings = load(DataConfig, config, overrides or ())
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent.corpus import cleaning, figures, leaks, report, sources, splits, writing

    source = sources.read_all(settings)
    rows = cleaning.clean_all(source, settings)
    divided = splits.divide(rows, settings)
    corpus, leaking = leaks.resolve(divided, settings.leakage)
    labels = corpus.label_schema(source.dataset.label_order)

    summary = figures.describe_data(corpus, rows, leaking, source.identity, settings)
    writing.write(corpus, labels, summary, settings)
    report.show(summary, settings.dataset_name, settings.output_dir)


if __name__ == "__main__":
    cli.run(main)
