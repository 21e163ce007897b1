# What type checkers read in place of __init__.py, which loads each name when it is first used.
from bankintent.api.adapters import Adapters, load_adapters
from bankintent.api.model import Explanation, Model, load
from bankintent.api.predictions import Prediction, Score
from bankintent.api.steps import (
    Evaluation,
    PreparedData,
    TrainedBundle,
    etl,
    evaluate,
    train,
)
from bankintent.errors import UserError
from bankintent.explanation.explainer import Attribution, Neighbour

__version__: str

__all__ = [
    "Adapters",
    "Attribution",
    "Evaluation",
    "Explanation",
    "Model",
    "Neighbour",
    "Prediction",
    "PreparedData",
    "Score",
    "TrainedBundle",
    "UserError",
    "__version__",
    "etl",
    "evaluate",
    "load",
    "load_adapters",
    "train",
]
