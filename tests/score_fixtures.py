"""A model of words for the tests of scoring: it needs no files, and records its calls.

python tests/score_fixtures.py IN OUT scoring|writing

Scores the first rows, then waits in that stage until it is killed.
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
from bankintent.inference.runtime import Outputs

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
        self.policy: Any = None
        self.workers = 1
        self.before = before
        self.tokenized: list[str] = []
        self.batches: list[list[int]] = []

    def tokenize(self, texts: list[str]) -> list[Words]:
        self.tokenized += texts
        items = []
        for text in texts:
            words = text.split()
            items.append(Words(tuple(words[:MAX_WORDS]), len(words) > MAX_WORDS))
        return items

    def outputs(self, items: list[Words]) -> Outputs:
        self.before()
        self.batches.append([len(item) for item in items])
        rows = [logits(item.words) for item in items]
        return Outputs(np.array(rows, dtype=np.float32), None)


def logits(words: tuple[str, ...]) -> list[float]:
    """Three numbers that differ from text to text."""
    text = " ".join(words)
    return [zlib.crc32(f"{label} {text}".encode()) % 1000 / 200 for label in LABELS]


def expected(text: str | None) -> tuple[str | None, float | None]:
    """Label and score of a text, computed one by one."""
    if text is None or not text.strip():
        return None, None
    words = tuple(text.split()[:MAX_WORDS])
    values = np.array(logits(words), dtype=np.float32).astype(np.float64)
    odds = np.exp(values - values.max())
    return LABELS[int(values.argmax())], round(float(odds.max() / odds.sum()), 6)


def expected_rest(text: str) -> dict[str, Any]:
    """The other columns of an answer, computed one by one."""
    values = logits(tuple(text.split()[:MAX_WORDS]))
    odds = np.exp(np.array(values, dtype=np.float32).astype(np.float64))
    second, first = np.argsort(odds)[-2:]
    margin = round(float((odds[first] - odds[second]) / odds.sum()), 6)
    rest = {"decision": "answer", "reason": "", "margin": margin}
    return {**rest, "second": LABELS[int(second)]}


def settings(source: Path, output: Path, **more: Any) -> ScoreConfig:
    """Settings of a run with small chunks; the model is given by hand."""
    values = {
        "input": source,
        "output": output,
        "model_dir": Path("none"),
        "chunk_rows": CHUNK_ROWS,
        "batch_tokens": 20,
    }
    return ScoreConfig.model_validate(values | more)


def wait() -> None:
    """Print a line, then do nothing until this process is killed."""
    print("waiting", flush=True)
    time.sleep(600)


def main(source: Path, output: Path, stage: str) -> None:
    """Score until the tenth batch, or write until the third part."""
    from bankintent.scoring import parts
    from bankintent.scoring import score as scoring

    calls = {"scoring": 0, "writing": 0}

    def count(called: str, last: int) -> None:
        calls[called] += 1
        if stage == called and calls[called] == last:
            wait()

    read = parts.Parts.read

    def read_and_count(self: parts.Parts, number: int) -> pa.Table:
        part = read(self, number)
        count("writing", 3)
        return part

    parts.Parts.read = read_and_count  # type: ignore[method-assign]
    model = WordModel(before=lambda: count("scoring", 10))
    scoring.score(settings(source, output), load=lambda: model)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
