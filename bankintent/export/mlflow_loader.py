"""How MLflow loads a tracked bundle: this file travels with it and imports nothing of the package.

    model = mlflow.pyfunc.load_model("runs:/<run id>/bundle")
    model.predict(["I lost my card"])

MLflow calls `_load_pyfunc` with the folder of the bundle. No pickle is read or written.
"""

import unicodedata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors")
"""Packages that this file needs."""

MERGED = "merged"
"""Folder of the plain model in a bundle."""

BYTE_ORDER_MARK = "\ufeff"

Answer = dict[str, Any]
"""`label`, the most likely intent, and `score`, its probability."""


class BundleModel:
    """The merged model of a bundle, for MLflow's `predict`."""

    def __init__(self, bundle: Path) -> None:
        from transformers import pipeline

        _require_plain(bundle / MERGED)
        self._classify: Any = pipeline("text-classification", model=str(bundle / MERGED))

    def predict(self, texts: Any, params: Answer | None = None) -> list[Answer]:
        """The answers to texts in their order; a table with one column of texts is taken too."""
        # MLflow turns what it gets into a table of pandas.
        if hasattr(texts, "iloc"):
            texts = texts.iloc[:, 0].tolist()

        folded = [_fold(text) for text in texts]
        return list(self._classify(folded, truncation=True))


def _load_pyfunc(path: str) -> BundleModel:
    return BundleModel(Path(path))


def _require_plain(model: Path) -> None:
    """Raise ValueError where a model has a link or a pipe among its files: both lead elsewhere."""
    for path in (model, *model.rglob("*")):
        is_plain = path.is_file() or path.is_dir()
        if path.is_symlink() or not is_plain:
            raise ValueError(f"{path} is no regular file: log the model again")


def _fold(text: str) -> str:
    """The text as the model was trained and measured on: NFC, single spaces."""
    # A copy of `texts.fold`: this file is loaded where the package is not installed.
    composed = unicodedata.normalize("NFC", text).replace(BYTE_ORDER_MARK, "")
    return " ".join(composed.split())
