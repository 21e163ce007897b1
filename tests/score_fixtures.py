"""A model of words for the tests of scoring: it needs no files, remembers what it was asked, and can be made to wait.

python tests/score_fixtures.py IN OUT scoring|writing     scores the first rows, then waits in that stage to be killed
"""

import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

from bankintent.config import ScoreConfig

LABELS = ("card_lost", "exchange", "top_up")
MAX_WORDS = 12
CHUNK_ROWS = 7


@dataclass(frozen=True)
class Words:
    """The tokens of one text."""

    words: tuple[str, ...]
    truncated: bool

    def __len__(self) -> int:
        return len(self.words)


class WordModel:
    """Answers from the words of a text alone."""

    def __init__(self, version: str = "one", before: Callable[[], None] = lambda: None) -> None:
        self.facts = SimpleNamespace(
            name="words",
            version=version,
            labels=LABELS,
            labels_hash="hash",
            runtime="words 1.0, 2 threads",
        )
        self.workers = 1
        self.before = before
        self.tokenized: list[str] = []
        self.batches: list[list[int]] = []

    def tokenize(self, texts: list[str]) -> list[Words]:
        self.tokenized += texts
        return [
            Words(tuple(text.split()[:MAX_WORDS]), len(text.split()) > MAX_WORDS) for text in texts
        ]

    def logits(self, items: list[Words]) -> np.ndarray[Any, Any]:
        self.before()
        self.batches.append([len(item) for item in items])
        return np.array([logits(item.words) for item in items], dtype=np.float32)


def logits(words: tuple[str, ...]) -> list[float]:
    """Three numbers that differ from text to text."""
    return [zlib.crc32(f"{label} {' '.join(words)}".encode()) % 1000 / 200 for label in LABELS]


def expected(text: str | None) -> tuple[str | None, float | None]:
    """Label and score of a text, computed one by one."""
    if text is None or not text.strip():
        return None, None
    values = np.array(logits(tuple(text.split()[:MAX_WORDS])), dtype=np.float32).astype(np.float64)
    odds = np.exp(values - values.max())
    return LABELS[int(values.argmax())], round(float(odds.max() / odds.sum()), 6)


def settings(source: Path, output: Path, **more: Any) -> ScoreConfig:
    """Settings of a run with small chunks; the model is given by hand."""
    values = {
        "input": source,
        "output": output,
        "model_dir": Path("none"),
        "chunk_rows": CHUNK_ROWS,
    }
    values |= {"batch_tokens": 20}
    return ScoreConfig.model_validate(values | more)


def wait() -> None:
    """Say so, and do nothing until somebody kills this process."""
    print("waiting", flush=True)
    time.sleep(600)


def main(source: Path, output: Path, stage: str) -> None:
    """Score until the tenth batch, or write until the third part."""
    from bankintent.scoring import parts
    from bankintent.scoring import score as scoring

    calls = {"scoring": 0, "writing": 0}

    def count(what: str, last: int) -> None:
        calls[what] += 1
        if stage == what and calls[what] == last:
            wait()

    read = parts.Parts.read

    def counting(self: parts.Parts, number: int) -> pa.Table:
        found = read(self, number)
        count("writing", 3)
        return found

    parts.Parts.read = counting  # type: ignore[method-assign]
    scoring.score(
        settings(source, output), load=lambda: WordModel(before=lambda: count("scoring", 10))
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
