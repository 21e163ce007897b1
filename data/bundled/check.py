"""Check that the bundled dataset is independent of BANKING77, with a copy of the real data.

    python data/bundled/check.py ../shared/datasets/banking77

Prints how near the sentences come to BANKING77 rows (train and test), by normalised text and by
cosine similarity of the embedded encoder's mean-pooled states, and the similarity within intents
of both datasets; then how near the general sentences come to each other and to BANKING77.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from bankintent.corpus.general import read_general
from bankintent.corpus.sources import BUNDLED
from bankintent.texts import fold, normalise
from bankintent.training.backbones import bundled_folder

PARAPHRASE = 0.90
"""Cosine from which a sentence counts as a close paraphrase; set before the first sentence was
written. Of BANKING77's own test rows 60 % reach it with some training row."""

MAX_LENGTH = 128
"""Longest sentence in tokens."""

CHUNK = 1000
"""Sentences whose similarities are in memory at once."""


def read(path: Path) -> tuple[list[str], list[str]]:
    """Texts and labels of a CSV file with a header."""
    texts = []
    labels = []
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for text, label in rows:
            texts.append(fold(text))
            labels.append(label)
    return texts, labels


@torch.inference_mode()
def embed(texts: list[str], batch_size: int = 64) -> torch.Tensor:
    """(texts, 384) unit vectors: mean of the last states over the real tokens."""
    folder = bundled_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    vectors = torch.empty(len(texts), model.config.hidden_size)
    by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(texts), batch_size):
        rows = by_length[start : start + batch_size]
        batch = tokenizer(
            [texts[row] for row in rows],
            padding=True,
            truncation=True,
            max_length=MAX_LENGTH,
            return_tensors="pt",
        )
        mask = batch["attention_mask"][..., None]
        states = model(**batch).last_hidden_state
        means = (states * mask).sum(dim=1) / mask.sum(dim=1)
        vectors[rows] = torch.nn.functional.normalize(means, dim=-1)
    return vectors


def mean_similarity_within(vectors: torch.Tensor, labels: list[str]) -> float:
    """Mean over intents of the mean cosine between two different sentences of the intent."""
    rows_by_label: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        rows_by_label[label].append(row)

    means = []
    for rows in rows_by_label.values():
        similarities = vectors[rows] @ vectors[rows].T
        # Without the diagonal, which is each sentence's similarity to itself: 1.
        num_pairs = len(rows) * (len(rows) - 1)
        means.append((similarities.sum() - len(rows)) / num_pairs)
    return float(torch.stack(means).mean())


def compare(folder: Path) -> dict[str, float]:
    """The figures that README.md in this folder reports."""
    texts, labels = read(BUNDLED)
    train_texts, train_labels = read(folder / "train.csv")
    test_texts, _ = read(folder / "test.csv")
    real_texts = train_texts + test_texts
    normalised = {normalise(text) for text in real_texts}

    vectors = embed(texts)
    real_vectors = embed(real_texts)
    train_vectors = real_vectors[: len(train_texts)]
    nearest = torch.cat(
        [(part @ real_vectors.T).amax(dim=1) for part in vectors.split(CHUNK)],
    )

    return {
        "sentences": len(texts),
        "same after normalisation": sum(normalise(text) in normalised for text in texts),
        "highest similarity to a BANKING77 row": float(nearest.max()),
        "median similarity to the nearest BANKING77 row": float(nearest.median()),
        "mean similarity within intents, bundled": mean_similarity_within(vectors, labels),
        "mean similarity within intents, BANKING77 train": mean_similarity_within(
            train_vectors, train_labels
        ),
    }


def compare_general(folder: Path) -> dict[str, float]:
    """The figures of general.csv that README.md in this folder reports."""
    texts = read_general()
    train_texts, _ = read(folder / "train.csv")
    test_texts, _ = read(folder / "test.csv")
    real_texts = train_texts + test_texts
    normalised = {normalise(text) for text in real_texts}

    vectors = embed(texts)
    similarities = vectors @ vectors.T
    # Each sentence's similarity to itself is none of two sentences.
    similarities.fill_diagonal_(0)
    nearest = (vectors @ embed(real_texts).T).amax(dim=1)

    words = torch.tensor([len(text.split()) for text in texts])
    return {
        "general sentences": len(texts),
        "words of the longest": int(words.max()),
        "median words": int(words.median()),
        "general, same after normalisation": sum(normalise(text) in normalised for text in texts),
        "highest similarity of two general sentences": float(similarities.max()),
        "highest similarity of one to a BANKING77 row": float(nearest.max()),
        "median similarity of one to the nearest": float(nearest.median()),
    }


def main(folder: Path) -> None:
    """Print the figures, shares with four digits."""
    figures = compare(folder) | compare_general(folder)
    for name, value in figures.items():
        text = str(value)
        if isinstance(value, float):
            text = f"{value:.4f}"
        print(f"{name:50} {text}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
