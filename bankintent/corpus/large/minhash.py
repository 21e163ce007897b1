"""Pairs of texts that may be nearly the same, by MinHash and banding (Broder, 1997).

A text is the set of its 3-grams inside words. Of two texts that have the share J of them in common,
a signature of ROWS minima is equal with the probability J ** ROWS, and one of BANDS signatures with
1 - (1 - J ** ROWS) ** BANDS: 0.99999 for J = 0.9, 0.03 for J = 0.5.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROWS = 10
BANDS = 30

WINDOW = 40
"""Texts of equal signatures stand in alphabetical order, and each is compared with so many next
ones (sorted neighbourhood; Hernandez and Stolfo, 1995): texts of one template may be millions."""

SEED = 20
MIX = np.uint64(0x9E3779B97F4A7C15)

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Numbers of texts, and of later texts."""


def write_signatures(blocks: Iterable[list[str]], folder: Path) -> None:
    """Write the signatures of each band of all texts, one file for each band."""
    multipliers, offsets = _draw_hashes()
    opened = [(folder / f"band-{band}.bin").open("wb") for band in range(BANDS)]
    try:
        for texts in blocks:
            signatures = _sign(texts, multipliers, offsets)
            for file, signature in zip(opened, signatures, strict=True):
                file.write(signature.tobytes())
    finally:
        for file in opened:
            file.close()


def _draw_hashes() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    rng = np.random.default_rng(SEED)
    multipliers = rng.integers(0, 1 << 32, ROWS * BANDS, dtype=np.uint32) | np.uint32(1)
    offsets = rng.integers(0, 1 << 32, ROWS * BANDS, dtype=np.uint32)
    return multipliers, offsets


def _sign(
    texts: list[str], multipliers: NDArray[np.uint32], offsets: NDArray[np.uint32]
) -> NDArray[np.uint64]:
    """(bands, texts): the signatures of some texts."""
    grams, starts = _hash_grams(texts)
    signatures = np.zeros((BANDS, len(texts)), dtype=np.uint64)
    for number, (multiplier, offset) in enumerate(zip(multipliers, offsets, strict=True)):
        minima = np.minimum.reduceat(grams * multiplier + offset, starts)
        band = signatures[number // ROWS]
        band *= MIX
        band ^= minima
        band ^= band >> np.uint64(29)
    return signatures


def _hash_grams(texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """A hash of each 3-gram of all texts, and where those of each text begin.

    A 3-gram has a character that is no blank in its middle: none goes over the end of a word.
    """
    padded = " ".join([" ", *[text or "\0" for text in texts], " "])
    points = np.frombuffer(padded.encode("utf-32-le"), dtype=np.uint32)
    inside = np.flatnonzero(points[1:-1] != ord(" ")) + 1

    grams = points[inside - 1] * np.uint32(0x85EBCA6B)
    grams ^= points[inside] * np.uint32(0xC2B2AE35)
    grams = (grams ^ (grams >> np.uint32(15))) * np.uint32(0x27D4EB2F)
    grams += points[inside + 1] * np.uint32(0x165667B1)
    grams = (grams ^ (grams >> np.uint32(13))) * np.uint32(0x9E3779B1)
    grams ^= grams >> np.uint32(16)

    lengths = np.array([len(text or "\0") + 1 for text in texts])
    begins = 2 + np.cumsum(lengths) - lengths
    return grams, np.searchsorted(inside, begins)


def candidates(folder: Path) -> Iterator[Pairs]:
    """Pairs of texts with an equal signature, some at a time; a pair may come several times."""
    for band in range(BANDS):
        signatures = np.fromfile(folder / f"band-{band}.bin", dtype=np.uint64)
        # Stable, so that texts with one signature stay in alphabetical order.
        order = np.argsort(signatures, kind="stable").astype(np.int32)
        ordered = signatures[order]
        del signatures

        # Only those that are not alone go on: mostly few.
        starts = np.flatnonzero(ordered[1:] == ordered[:-1])
        for step in range(1, WINDOW + 1):
            starts = starts[starts + step < len(ordered)]
            starts = starts[ordered[starts] == ordered[starts + step]]
            if not len(starts):
                break
            yield order[starts].astype(np.int64), order[starts + step].astype(np.int64)
