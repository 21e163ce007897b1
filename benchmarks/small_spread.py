"""How far the figures of small data depend on the draw: a test split beside cross-validation.

For each seed the same rows are divided 80/10/10 (split: stable) and into five folds (split: cross),
as ETL does it, and the methods learn from the same rows and answer the same held-out ones:

- the recipe of configs/recommended/small.yaml, by the project's own training;
- TF-IDF and logistic regression, as it stands behind every evaluation;
- logistic regression on the frozen encoder's vectors, alone and with the intents' names as further
  sentences, which the recipe has too.

The frozen encoder runs once for all of them.
"""

import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from bankintent.config import DataConfig, TrackingConfig, TrainConfig
from bankintent.corpus import cleaning, division, language, sources
from bankintent.corpus.cleaning import Cleaned
from bankintent.corpus.dataset import DataManifest, Dataset, SourceConfig, SplitData
from bankintent.corpus.folds import Fold, Folds
from bankintent.corpus.splits import Corpus, pool
from bankintent.errors import ConfigError
from bankintent.labels import LabelSchema
from benchmarks.tables import Record

if TYPE_CHECKING:
    from bankintent.training.features import KnownVectors

RECIPE = "recipe"
TFIDF = "TF-IDF"
REGRESSION = "regression"
WITH_NAMES = "regression with names"

OTHERS = (TFIDF, REGRESSION, WITH_NAMES)
"""What the recipe is compared with."""

STRENGTHS = (1.0, 10.0, 100.0)
"""Inverse regularisation strengths of the regression, one of which is chosen on training rows."""

MIDDLE_STRENGTH = 10.0
"""The strength where the rarest intent has too few training rows to choose one."""

INNER_FOLDS = 3

RECORDED = (
    "model_name",
    "regime",
    "pooling",
    "head_init",
    "batch_size",
    "epochs",
    "lr",
    "label_smoothing",
    "label_names",
    "keep",
)
"""Keys of the recipe that a record repeats."""

RESAMPLES = 10_000

TAILS = (0.025, 0.975)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Predict = Callable[[Fold, int], Ints]
"""(the rows to learn from and to answer, the seed) -> the label id of each held-out row."""


@dataclass(frozen=True)
class Sentences:
    """The usable rows of a source."""

    name: str
    cleaned: Cleaned
    rows: SplitData
    """All of them, in the source's order."""
    labels: LabelSchema
    path: Path

    def draw_split(self, seed: int) -> Fold:
        """Train and test of ETL's split: stable; its validation rows are left out."""
        splits = self._divide("stable", seed).splits
        row_of_example = {example: row for row, example in enumerate(pool(self.cleaned.dataset))}
        train = [row_of_example[example] for example in splits["train"]]
        test = [row_of_example[example] for example in splits["test"]]
        return Fold(0, 0, np.asarray(train), np.asarray(test))

    def draw_folds(self, seed: int) -> Folds:
        """The folds of ETL's split: cross."""
        # A corpus that is divided so has folds.
        return cast(Folds, self._divide("cross", seed).folds)

    def _divide(self, split: str, seed: int) -> Corpus:
        return division.divide(self.cleaned, data_config(self.path, split, seed))


def data_config(path: Path, split: str, seed: int) -> DataConfig:
    """The data.yaml of one draw; intents of fewer than three rows are trained on, not judged."""
    settings = {
        "dataset_name": str(path),
        "split": split,
        "seed": seed,
        "rare": "train_only",
        "bad_rows": "drop",
    }
    return DataConfig.model_validate(settings)


def read(name: str, path: Path) -> Sentences:
    """Read and clean a source in any format of ETL; raises what ETL raises."""
    config = data_config(path, "cross", seed=1)
    source = sources.read_all(config)
    cleaned = cleaning.clean_all(source, config)
    corpus = division.divide(cleaned, config)
    labels = corpus.label_schema(source.dataset.label_order)

    examples = pool(cleaned.dataset)
    rows = SplitData(
        [example.id for example in examples],
        [example.text for example in examples],
        [labels.label2id[example.label_text] for example in examples],
    )
    return Sentences(name, cleaned, rows, labels, path)


@dataclass(frozen=True)
class Methods:
    """The methods on the rows of one source."""

    predict: dict[str, Predict]
    settings: Record
    """Of the recipe. `label_names` is off where names are no words or two read alike."""


def prepare(sentences: Sentences, recipe: TrainConfig, work: Path) -> Methods:
    """Run the frozen encoder once; the methods take their vectors from that."""
    # Late, because torch takes seconds.
    from bankintent.bundle.work import WorkFolder
    from bankintent.tracking import Tracker
    from bankintent.training import cross_validation
    from bankintent.training.fit import TrainingRun
    from bankintent.training.rows import RunRows, label_name_rows

    learns_names = recipe.label_names and _are_words(sentences.labels)
    untracked = TrackingConfig(enabled=False)
    config = recipe.model_copy(
        update={"label_names": learns_names, "tracking": untracked, "cache_dir": work / "cache"}
    )
    manifest = DataManifest(SourceConfig(""), {}, sentences.labels.hash, "", {})
    data = Dataset(sentences.path, sentences.labels, manifest)
    rows = RunRows(sentences.rows, SplitData.empty())
    run = TrainingRun(config, data, rows, WorkFolder(work), Tracker(untracked))
    run = cross_validation.with_vectors(run)
    known = cast("KnownVectors", run.known)

    def train_recipe(fold: Fold, seed: int) -> Ints:
        seeded = replace(run, config=config.model_copy(update={"seed": seed}))
        answers = cross_validation.train_fold(seeded, fold)
        return np.asarray(answers[-1].argmax(axis=1))

    names = SplitData.empty()
    if learns_names:
        names = label_name_rows(sentences.labels)
    predict: dict[str, Predict] = {
        RECIPE: train_recipe,
        TFIDF: tfidf_method(sentences.rows),
        REGRESSION: regression_method(known, sentences.rows, SplitData.empty()),
        WITH_NAMES: regression_method(known, sentences.rows, names),
    }
    settings = config.model_dump(mode="json", include=set(RECORDED))
    return Methods(predict, settings)


def _are_words(labels: LabelSchema) -> bool:
    from bankintent.training.rows import require_words

    try:
        require_words(labels)
    except ConfigError:
        return False
    return True


def tfidf_method(rows: SplitData) -> Predict:
    """TF-IDF with the regularisation that evaluations have."""
    from bankintent.baselines.tfidf import FIXED_STRENGTH, make_tfidf_pipeline

    def predict(fold: Fold, seed: int) -> Ints:
        train = rows.take(fold.train.tolist())
        held_out = rows.take(fold.held_out.tolist())
        pipeline = make_tfidf_pipeline(FIXED_STRENGTH)
        with warnings.catch_warnings():
            _ignore_advice()
            pipeline.fit(train.texts, train.labels)
        return np.asarray(pipeline.predict(held_out.texts))

    return predict


def regression_method(known: "KnownVectors", rows: SplitData, more: SplitData) -> Predict:
    """Logistic regression on the frozen encoder's vectors, which are brought to length one.

    `more` is learned from as well, whichever rows are held out.
    """
    from sklearn.linear_model import LogisticRegression

    every = rows + more
    vectors = known.take(every.texts).double().numpy()
    inputs = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = np.asarray(every.labels)
    always = np.arange(len(rows), len(every))

    def predict(fold: Fold, seed: int) -> Ints:
        learned = np.concatenate([fold.train, always])
        with warnings.catch_warnings():
            _ignore_advice()
            strength = choose_strength(inputs[learned], labels[learned], seed)
            model = LogisticRegression(C=strength, max_iter=2000)
            model.fit(inputs[learned], labels[learned])
        return np.asarray(model.predict(inputs[fold.held_out]))

    return predict


def choose_strength(train: Floats, labels: Ints, seed: int) -> float:
    """The best of STRENGTHS in cross-validation on the training rows, of equals the first.

    It is MIDDLE_STRENGTH where an intent has fewer rows than there are folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    if min(Counter(labels.tolist()).values()) < INNER_FOLDS:
        return MIDDLE_STRENGTH

    splitter = StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=seed)
    accuracies = {}
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000)
        accuracies[strength] = cross_val_score(model, train, labels, cv=splitter).mean()
    return max(accuracies, key=accuracies.__getitem__)


def _ignore_advice() -> None:
    # With few sentences of many intents scikit-learn asks whether the labels are numbers.
    warnings.filterwarnings("ignore", message="The number of unique classes")


@dataclass(frozen=True)
class Draw:
    """What one seed says."""

    seed: int
    test_rows: int
    folds: int
    split: dict[str, float]
    """Accuracy on the test rows, by method."""
    cross: dict[str, Floats]
    """(rows,) 1 right, 0 wrong, NaN not judged, by method."""
    seconds: float

    def record(self) -> Record:
        """The same as figures, without rows."""
        judged = int(np.isfinite(self.cross[RECIPE]).sum())
        accuracies = {name: float(np.nanmean(right)) for name, right in self.cross.items()}
        return {
            "seed": self.seed,
            "test_rows": self.test_rows,
            "judged_rows": judged,
            "folds": self.folds,
            "split": self.split,
            "cross": accuracies,
            "seconds": self.seconds,
        }


def judge(sentences: Sentences, methods: Methods, seed: int) -> Draw:
    """Divide with one seed and judge every method both ways."""
    started = time.perf_counter()
    labels = np.asarray(sentences.rows.labels)
    split = sentences.draw_split(seed)
    folds = sentences.draw_folds(seed)

    by_split = {}
    by_folds = {}
    for name, predict in methods.predict.items():
        right = predict(split, seed) == labels[split.held_out]
        by_split[name] = float(right.mean())

        of_row = np.full(len(labels), np.nan)
        for fold in folds:
            of_row[fold.held_out] = predict(fold, seed) == labels[fold.held_out]
        by_folds[name] = of_row

    seconds = time.perf_counter() - started
    return Draw(seed, len(split.held_out), folds.count, by_split, by_folds, seconds)


def measure(sentences: Sentences, recipe: TrainConfig, seeds: int) -> Iterator[Record]:
    """The record of a source after each of the seeds 1 to `seeds`."""
    with tempfile.TemporaryDirectory() as work:
        methods = prepare(sentences, recipe, Path(work))
        draws: list[Draw] = []
        for seed in range(1, seeds + 1):
            draws.append(judge(sentences, methods, seed))
            yield describe(sentences, methods, draws)


def describe(sentences: Sentences, methods: Methods, draws: list[Draw]) -> Record:
    """The record of some draws: names and figures, no sentence."""
    sizes = sorted(Counter(sentences.rows.labels).values())
    differences = {}
    for other in OTHERS:
        differences[other] = _difference(draws, other)

    return {
        "source": sentences.name,
        "sentences": len(sentences.rows),
        "refused_rows": len(sentences.cleaned.refusals),
        "language": language.detect(sentences.rows.texts).describe(),
        "intents": len(sizes),
        "sentences_per_intent": {
            "least": sizes[0],
            "median": float(np.median(sizes)),
            "most": sizes[-1],
        },
        "recipe": methods.settings,
        "draws": [draw.record() for draw in draws],
        "recipe_minus": differences,
    }


def _difference(draws: list[Draw], other: str) -> Record:
    """How much better the recipe is out of fold, with the interval of resampled sentences."""
    of_draws = np.stack([draw.cross[RECIPE] - draw.cross[other] for draw in draws])
    judged = np.isfinite(of_draws).any(axis=0)
    of_rows = np.nanmean(of_draws[:, judged], axis=0)
    return {"accuracy": float(of_rows.mean()), "interval": interval(of_rows)}


def interval(of_rows: Floats) -> list[float]:
    """95 % interval of the mean of paired differences, (rows,), by resampling the rows."""
    rng = np.random.default_rng(0)
    picked = rng.integers(len(of_rows), size=(RESAMPLES, len(of_rows)))
    means = of_rows[picked].mean(axis=1)
    return [float(end) for end in np.quantile(means, TAILS)]
