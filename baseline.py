"""What no training of an encoder gives: trivial and zero-shot references on the split that models are evaluated on.

python -m baseline --config configs/quickstart/baseline.yaml
python -m baseline --config configs/baseline.yaml --set data_dir=data/banking77 --set "references=[majority, embedding]"
"""

from pathlib import Path
from typing import Annotated

from bankintent import cli, console
from bankintent.config import BaselineConfig
from bankintent.configfile import load


def main(
    config: Annotated[
        Path, cli.config_option(help="Data, references and models, e.g. configs/baseline.yaml.")
    ],
    overrides: cli.Overrides = None,
) -> None:
    """Measure references that need no training of an encoder, each as `python -m eval` measures a checkpoint.

    The config lists which:

    - **majority**: the most frequent intent of train
    - **tfidf**: logistic regression on TF-IDF of characters, fitted on train
    - **untrained**: the backbone with a random head
    - **embedding**: zero-shot, cosine of the text's embedding with those of the intents' names
    - **nli**: zero-shot, how far the text entails "This example is INTENT." by an NLI model

    Each gets a folder artifacts/evals/NAME-REFERENCE (metrics.json, report.md, confusion.png, reliability.png,
    predictions.parquet) and a run in MLflow; a table of all is printed.
    """
    settings = load(BaselineConfig, config, overrides or ())
    from bankintent.baselines import references
    from bankintent.corpus import dataset

    data = dataset.load(settings.data_dir)
    references.require(settings)
    results = []
    for result in references.measure(data, settings):
        console.say(f"{result['reference']['name']}: {result['reference']['about']}")
        results.append(result)
    references.show(results, settings)


if __name__ == "__main__":
    cli.run(main)
