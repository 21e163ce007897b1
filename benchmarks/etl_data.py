"""Generated labelled sentences with planted duplicates, leaks and nearly the same sentences.

python -m benchmarks.etl_data 1000000 sentences

The sentences say nothing: their words are made of syllables. What matters for ETL is real about
them: lengths, words that return, and rows that other rows repeat.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

INTENTS = 100

WORDS = 20_000
"""Words of the language; those of low numbers are frequent, as in a real one."""

SYLLABLES = 80

LONGEST = 16
"""Words of a sentence, at most; at least a third of it."""

REPEATED = 0.04
"""Share of the rows that repeat another row but for case and punctuation."""

NEAR = 0.04
"""Share of the rows that are another row but for the end of one word."""

TESTED = 0.1
"""Share of the rows that are the source's own test split; many of them leak into train."""

CHUNK = 50_000
"""Rows that are made at a time; what is repeated is of the same chunk or of the first one."""


def make(rows: int, folder: Path, seed: int = 6) -> None:
    """Write `train.parquet` and `test.parquet` with so many rows in all, a chunk at a time."""
    rng = np.random.default_rng(seed)
    words = _words(rng)
    folder.mkdir(parents=True, exist_ok=True)

    schema = pa.schema([("text", pa.string()), ("label", pa.string())])
    train = pq.ParquetWriter(folder / "train.parquet", schema, compression="zstd")
    test = pq.ParquetWriter(folder / "test.parquet", schema, compression="zstd")
    with train, test:
        first: list[str] = []
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            texts = _sentences(rng, words, count)
            first = first or list(texts)
            _plant(rng, texts, first)

            labels = [f"intent_{number:03}" for number in rng.integers(0, INTENTS, count)]
            table = pa.table({"text": texts, "label": labels}, schema)
            is_test = rng.random(count) < TESTED
            train.write_table(table.filter(pa.array(~is_test)))
            test.write_table(table.filter(pa.array(is_test)))


def _words(rng: np.random.Generator) -> list[str]:
    consonants = "bcdfghklmnprstvwz"
    vowels = ["a", "e", "i", "o", "u", "ea", "ou"]
    syllables = [
        consonants[rng.integers(len(consonants))] + vowels[rng.integers(len(vowels))]
        for _ in range(SYLLABLES)
    ]
    words = []
    for _ in range(WORDS):
        chosen = rng.integers(0, SYLLABLES, rng.integers(1, 5))
        words.append("".join([syllables[index] for index in chosen]))
    return words


def _sentences(rng: np.random.Generator, words: list[str], count: int) -> list[str]:
    lengths = rng.integers(LONGEST // 3, LONGEST + 1, count)
    # The square of an even number between 0 and 1: words of low numbers come more often.
    drawn = (rng.random(int(lengths.sum())) ** 2 * len(words)).astype(int).tolist()

    texts = []
    place = 0
    for length in lengths.tolist():
        texts.append(" ".join([words[index] for index in drawn[place : place + length]]))
        place += length
    return texts


def _plant(rng: np.random.Generator, texts: list[str], first: list[str]) -> None:
    """Put repeated sentences, and nearly the same ones, in the place of some; in place."""
    kinds = rng.random(len(texts))
    sources = rng.integers(0, len(texts), len(texts)).tolist()
    for index, source in enumerate(sources):
        # Half of them repeat a row of the first chunk, which is far away.
        known = first if index % 2 else texts
        text = known[source % len(known)]
        if kinds[index] < REPEATED:
            texts[index] = f"{text.capitalize()}!"
        elif kinds[index] < REPEATED + NEAR:
            texts[index] = f"{text}s"


if __name__ == "__main__":
    make(int(sys.argv[1]), Path(sys.argv[2]))
