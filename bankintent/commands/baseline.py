"""Measure references that train no encoder, on the split that models are evaluated on.

python -m baseline --config configs/quickstart/baseline.yaml
python -m baseline --config configs/baseline.yaml --set data_dir=data/banking77
"""

from pathlib import Path
from typing import Annotated

from bankintent import cli
from bankintent.config import BaselineConfig
from bankintent.configfile import load


def baseline(
    config: Annotated[
        Path, cli.config_option(help="Data, references and models, e.g. configs/baseline.yaml.")
    ],
    overrides: cli.Overrides = None,
) -> None:
    """Measure references that train no encoder, with the report that `eval` writes.

    The config lists which:

    - **majority**: the most frequent intent of train
    - **tfidf**: logistic regression on TF-IDF of characters, fitted on train
    - **untrained**: the backbone with a random head
    - **embedding**: zero-shot, cosine of the embeddings of the text and of the intents' names
    - **nli**: zero-shot, whether the text entails "This example is INTENT.", by an NLI model

    Each gets a folder artifacts/evals/NAME-REFERENCE (metrics.json, report.md, confusion.png,
    reliability.png, predictions.parquet) and a run in MLflow; a table of all is printed.
    """
    settings = load(BaselineConfig, config, overrides or ())
    # Late imports, so that --help and a wrong config answer at once.
    from bankintent import tracking_store
    from bankintent.baselines import measurement, references
    from bankintent.corpus import dataset

    tracking_store.require_usable(settings.tracking)
    data = dataset.load(settings.data_dir)
    # A mistake in the last reference must not show after hours of work on the others.
    references.require_references(settings)

    results = []
    for result in measurement.measure_references(data, settings):
        measurement.announce_reference(result)
        results.append(result)
    measurement.print_references(results, settings)
