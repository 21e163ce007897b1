"""Is the bundled dataset independent of BANKING77? Compares the two where the real data is at hand.

    python data/bundled/check.py ../shared/datasets/banking77

Prints how near each sentence comes to a BANKING77 row (train and test), by normalised text and by cosine similarity
of the embedded encoder's mean-pooled states, and the similarity within intents of both datasets.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from bankintent.corpus.cleaning import normalise, tidy
from bankintent.corpus.sources import BUNDLED
from bankintent.training.backbones import bundled_folder

PARAPHRASE = 0.90
"""Cosine from which a sentence counts as a close paraphrase; set before the first sentence was written. Of
BANKING77's own test rows 60 % reach it with some training row."""


def read(path: Path) -> tuple[list[str], list[str]]:
    """Texts and labels of a CSV file with a header."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [tidy(text) for text, _ in rows], [label for _, label in rows]


@torch.inference_mode()
def embed(texts: list[str], batch_size: int = 64) -> torch.Tensor:
    """(texts, 384) unit vectors: mean of the last states over the real tokens."""
    folder = bundled_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    out = torch.empty(len(texts), model.config.hidden_size)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = tokenizer(
            [texts[i] for i in rows],
            padding=True,
            truncation=True,
            max_length=128,
            return_tensors="pt",
        )
        mask = batch["attention_mask"][..., None]
        states = (model(**batch).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1)
        out[rows] = torch.nn.functional.normalize(states, dim=-1)
    return out


def within(vectors: torch.Tensor, labels: list[str]) -> float:
    """Mean over intents of the mean cosine between two different sentences of the intent."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        groups[label].append(index)
    means = []
    for rows in groups.values():
        product = vectors[rows] @ vectors[rows].T
        means.append((product.sum() - len(rows)) / (len(rows) * (len(rows) - 1)))
    return float(torch.stack(means).mean())


def compare(folder: Path) -> dict[str, float]:
    """The figures that the page beside this file reports."""
    texts, labels = read(BUNDLED)
    real = [read(folder / f"{split}.csv") for split in ("train", "test")]
    real_texts = [text for part, _ in real for text in part]
    vectors, real_vectors = embed(texts), embed(real_texts)
    nearest = torch.cat([(part @ real_vectors.T).amax(dim=1) for part in vectors.split(1000)])
    known = {normalise(text) for text in real_texts}
    train_rows = len(real[0][0])
    return {
        "sentences": len(texts),
        "same after normalisation": sum(normalise(text) in known for text in texts),
        "highest similarity to a BANKING77 row": float(nearest.max()),
        "median similarity to the nearest BANKING77 row": float(nearest.median()),
        "mean similarity within intents, bundled": within(vectors, labels),
        "mean similarity within intents, BANKING77 train": within(
            real_vectors[:train_rows], real[0][1]
        ),
    }


if __name__ == "__main__":
    for name, value in compare(Path(sys.argv[1])).items():
        print(f"{name:50} {value:.4f}" if isinstance(value, float) else f"{name:50} {value}")
