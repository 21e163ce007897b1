"""The answers of trained models, one file a run: `trust_runs` writes them, `trust` measures them.

A file is safetensors. For each LIST of sentences it holds

- `LIST.logits`, (sentences, known intents) float32;
- `LIST.features`, (sentences, width) float32: what the last layer of the model reads;
- `LIST.labels`, (sentences,) int64: ids among the known intents, -1 for any other sentence;
- `LIST.frozen` of train and val, (sentences, width) float32: the encoder before it was trained;

and, as the metadata `run`, the JSON of `Facts`. It holds no sentence. The lists are `train`, `val`,
`test` and `general` (data/bundled/general.csv). Where every intent is known there are also the
sentences of CLINC150 that have no intent: `outside_test` of its test split, `outside_rest` of the
others.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from bankintent import files, typed_json
from bankintent.decision.material import LabelledRows, Rows, Vectors
from bankintent.labels import LabelSchema

FACTS = "run"
"""Key of the facts in a file's metadata."""

SUFFIX = ".safetensors"

HELD_OUT = 1 / 3
"""Share of the intents that a rotation does not know."""

FIRST_ROTATION = 100
"""Seed of rotation 0: rotations and seeds of training draw apart."""

Ids = NDArray[np.int64]
Arrays = Mapping[str, NDArray[np.float32] | Ids]


@dataclass(frozen=True)
class Plan:
    """One run of the experiment."""

    data: str
    """banking77 or clinc150."""
    regime: str
    seed: int
    share: int | None = None
    """Intents that are known, in per cent, as in TEXTOIR; None where another rule says it."""
    rotation: int | None = None
    """Number of the draw that holds a third of the intents out; None where none is."""

    @property
    def name(self) -> str:
        """Its name, and the stem of its file."""
        if self.rotation is not None:
            return f"{self.data}-third-{self.regime}-rotation{self.rotation}"
        if self.share is not None:
            return f"{self.data}-known{self.share}-{self.regime}-seed{self.seed}"
        return f"{self.data}-{self.regime}-seed{self.seed}"

    @property
    def is_open(self) -> bool:
        """Whether the test split has intents that the model does not know."""
        return self.share is not None or self.rotation is not None

    def known(self, intents: int) -> Ids:
        """The ids of the intents that the model knows, in order, of so many intents."""
        every = np.arange(intents)
        if self.rotation is not None:
            order = np.random.default_rng(FIRST_ROTATION + self.rotation).permutation(intents)
            return np.setdiff1d(every, order[: round(intents * HELD_OUT)])
        if self.share is not None:
            order = np.random.default_rng(self.seed).permutation(intents)
            return np.sort(order[: round(intents * self.share / 100)])
        return every


@dataclass(frozen=True)
class Facts:
    """What is known of a run beside its answers."""

    plan: Plan
    labels: list[str]
    """Names of the known intents, in id order."""
    hardware: str
    precision: str
    """Of training; the answers are float32."""
    seconds: float
    """Of training, without loading and answering."""
    versions: dict[str, str]
    """Library -> its version."""


def write(path: Path, facts: Facts, arrays: Arrays) -> None:
    """Write the file of a run; it is there whole or not at all."""
    metadata = {FACTS: files.json_text(asdict(facts))}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with files.staged(path) as staging:
        save_file(contiguous, staging, metadata=metadata)


class Answers:
    """The file of a run; its arrays are read when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, framework="np") as file:
            self.facts = typed_json.parse(Facts, file.metadata()[FACTS])

    @property
    def plan(self) -> Plan:
        """Which run it is."""
        return self.facts.plan

    @cached_property
    def labels(self) -> LabelSchema:
        """The intents that the model knows."""
        return LabelSchema(tuple(self.facts.labels))

    def rows(self, name: str) -> Rows:
        """The sentences of a list, without their intents."""
        return Rows(self._read(f"{name}.logits"), self._read(f"{name}.features"))

    def labelled(self, name: str) -> LabelledRows:
        """The sentences of a list; -1 is an intent that the model does not know."""
        rows = self.rows(name)
        return LabelledRows(rows.logits, rows.features, self._read(f"{name}.labels"))

    def known(self, name: str) -> LabelledRows:
        """The sentences of a list whose intent the model knows."""
        rows = self.labelled(name)
        return rows.take(rows.labels >= 0)

    @property
    def train(self) -> Vectors:
        """The training sentences as the model reads them."""
        return Vectors(self._read("train.features"), self._read("train.labels"))

    @property
    def frozen_train(self) -> Vectors:
        """The training sentences as the encoder read them before it was trained."""
        return Vectors(self._read("train.frozen"), self._read("train.labels"))

    @property
    def frozen_val(self) -> LabelledRows:
        """The validation sentences of known intents, read by the encoder before it was trained."""
        rows = self.labelled("val")
        frozen = LabelledRows(rows.logits, self._read("val.frozen"), rows.labels)
        return frozen.take(rows.labels >= 0)

    def _read(self, name: str) -> NDArray[Any]:
        with safe_open(self.path, framework="np") as file:
            array: NDArray[Any] = file.get_tensor(name)
        return array
