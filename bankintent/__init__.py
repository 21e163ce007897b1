"""Labelled sentences in, a served intent classifier out.

`load` opens a trained model and `Model.predict` answers texts with it; `load_adapters` opens many
LoRA adapters on one base; `etl`, `train` and `evaluate` run the steps of the commands from Python.

    from bankintent import load

    model = load("artifacts/models/quickstart")
    for prediction in model.predict(["where is my card", "what is the weather like"]):
        print(prediction.answer, prediction.score)

Importing the package imports nothing else: each name is loaded when it is first used.
"""

import importlib

__version__ = "0.1.0"

HOMES = {
    "Adapters": "bankintent.api.adapters",
    "Attribution": "bankintent.explanation.explainer",
    "Evaluation": "bankintent.api.steps",
    "Explanation": "bankintent.api.model",
    "Model": "bankintent.api.model",
    "Neighbour": "bankintent.explanation.explainer",
    "Prediction": "bankintent.api.predictions",
    "PreparedData": "bankintent.api.steps",
    "Score": "bankintent.api.predictions",
    "TrainedBundle": "bankintent.api.steps",
    "UserError": "bankintent.errors",
    "etl": "bankintent.api.steps",
    "evaluate": "bankintent.api.steps",
    "load": "bankintent.api.model",
    "load_adapters": "bankintent.api.adapters",
    "train": "bankintent.api.steps",
}
"""Public name -> the module that holds it. `__init__.pyi` says the same to type checkers."""

__all__ = ["__version__", *HOMES]


def __getattr__(name: str) -> object:
    """The public name, from the module that holds it (PEP 562)."""
    home = HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    value = getattr(importlib.import_module(home), name)
    # The next time Python finds it by itself.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not, for completion in a shell."""
    return sorted(__all__)
