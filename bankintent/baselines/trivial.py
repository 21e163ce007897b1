"""TF-IDF beside the evaluation of a model: fitted on its training rows, measured on the same rows.

Seconds the first time; its answers are kept, so that the next evaluation on these rows has them at
once. Whatever goes wrong here costs an evaluation nothing but this comparison.
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bankintent import files
from bankintent.baselines.measurement import show_progress
from bankintent.corpus.dataset import UNKNOWN, SplitData
from bankintent.corpus.folds import Folds
from bankintent.distribution import command
from bankintent.measures import paired
from bankintent.progress import Advance

if TYPE_CHECKING:
    from bankintent.inference.evaluation import Evaluation
    from bankintent.inference.labelled import EvaluationData
    from bankintent.inference.runtime import Logits

ABOUT = "TF-IDF and logistic regression"

CACHE = Path("artifacts/cache/tfidf")
"""Folder of the kept answers, one small file for each pair of training and evaluated rows."""

RECIPE = "1"
"""Changes with the classifier: answers of another one are not believed."""

UNITS_OF_WORK = 3
"""Vectors of train, the fit, the answers."""

MOST_WORK = 500_000_000
"""Most n-grams of train times intents: the fit takes some ten seconds for every 100 million."""

Answers = NDArray[np.int64]
"""(rows,) label ids."""


class TooMuchWork(Exception):
    """The fit would take minutes."""


def beside(
    result: "Evaluation", logits: "Logits", data: "EvaluationData", train: SplitData | None
) -> "Evaluation":
    """The evaluation with the comparison, or with the reason why there is none."""
    if result.split == "train":
        return replace(result, no_trivial="these are the sentences that it was trained on")
    if train is None:
        return replace(result, no_trivial="the model's training data is not at hand")
    if len(set(train.labels)) < 2:
        return replace(result, no_trivial="the training data has a single intent")

    try:
        answers = find_answers(train, data)
    except TooMuchWork:
        reason = (
            f"fitting it on {len(train):,} sentences takes minutes ({command('baseline')} does)"
        )
        return replace(result, no_trivial=reason)
    except (OSError, ValueError, MemoryError, ImportError) as error:
        cause = " ".join(str(error).split())[:100] or type(error).__name__
        return replace(result, no_trivial=f"it could not be fitted ({cause})")
    return _compare(result, logits, data, answers, len(train))


def _compare(
    result: "Evaluation",
    logits: "Logits",
    data: "EvaluationData",
    answers: Answers,
    train_rows: int,
) -> "Evaluation":
    from bankintent.inference.evaluation import TrivialRecord

    true = np.asarray(data.rows.labels)
    # A row for each answer out of fold: a sentence is resampled with all of its answers.
    repeats = data.source.repeats
    model_right = (logits.argmax(axis=1) == true).reshape(repeats, -1)
    trivial_right = (answers == true).reshape(repeats, -1)

    bootstrap = result.bootstrap
    interval = paired.bootstrap_difference(
        model_right,
        trivial_right,
        bootstrap.resamples,
        bootstrap.seed,
    )
    accuracy = float(trivial_right.mean())
    record = TrivialRecord(
        about=ABOUT,
        train_rows=train_rows,
        accuracy=accuracy,
        difference=float(model_right.mean()) - accuracy,
        interval=interval,
    )
    return replace(result, trivial=record)


def find_answers(train: SplitData, data: "EvaluationData") -> Answers:
    """(rows,) the label ids that TF-IDF gives, kept ones where there are any for these rows.

    Raises TooMuchWork, also for training rows that are not in memory, and what scikit-learn raises.
    """
    if train.is_mapped:
        raise TooMuchWork

    texts = data.rows.texts
    folds = data.source.folds
    key = _key_of(train, texts, folds)
    path = CACHE / f"{key[:16]}.json"

    answers = _read_answers(path, key, len(texts), len(data.labels))
    if answers is not None:
        return answers

    with show_progress("TF-IDF to compare with") as progress:
        if folds is None:
            answers = _fit_and_answer(train, texts, lambda units: progress(units, UNITS_OF_WORK))
        else:
            total = UNITS_OF_WORK * folds.repeats * folds.count
            answers = _answer_out_of_fold(train, folds, lambda units: progress(units, total))

    kept = answers.tolist()
    content = {"key": key, "sha256": _digest(key, kept), "answers": kept}
    # A folder that cannot be written costs the next evaluation some seconds.
    with contextlib.suppress(OSError):
        files.write_text(path, json.dumps(content))
    return answers


def _answer_out_of_fold(train: SplitData, folds: Folds, advance: Advance) -> Answers:
    """The answers to the judged rows, repeats one after the other, each by a fold without them."""
    answers = np.full(folds.assignment.shape, UNKNOWN)
    for fold in folds:
        texts = train.take(fold.held_out.tolist()).texts
        learned = train.take(fold.train.tolist())
        answers[fold.repeat, fold.held_out] = _fit_and_answer(learned, texts, advance)
    return answers[:, folds.judged].ravel()


def _key_of(train: SplitData, texts: Sequence[str], folds: Folds | None) -> str:
    """One hash of everything that the answers follow from; an intent counts by its id."""
    rows = [train.texts, train.labels, texts]
    if folds is not None:
        rows.append(folds.assignment.tolist())
    return files.sha256_text(json.dumps([RECIPE, rows], ensure_ascii=False))


def _digest(key: str, answers: list[int]) -> str:
    """Hash of the kept answers: a digit that has changed on the disk is not believed."""
    return files.sha256_text(json.dumps([key, answers]))


def _read_answers(path: Path, key: str, rows: int, num_labels: int) -> Answers | None:
    """The kept answers; None where the file is missing, damaged or of other rows."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recorded_key = content["key"]
        is_whole = content["sha256"] == _digest(key, content["answers"])
        answers = np.asarray(content["answers"], dtype=np.int64)
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None

    if not is_whole or recorded_key != key or answers.shape != (rows,):
        return None
    if np.any((answers < 0) | (answers >= num_labels)):
        return None
    return answers


def _fit_and_answer(train: SplitData, texts: Sequence[str], advance: Advance) -> Answers:
    # Late: scikit-learn takes a second, which kept answers spare.
    from bankintent.baselines.tfidf import FIXED_STRENGTH, make_tfidf_pipeline

    pipeline = make_tfidf_pipeline(FIXED_STRENGTH)
    vectorizer = pipeline[0]
    classifier = pipeline[1]
    vectors = vectorizer.fit_transform(train.texts)
    advance(1)

    if vectors.nnz * len(set(train.labels)) > MOST_WORK:
        raise TooMuchWork
    classifier.fit(vectors, train.labels)
    advance(1)

    answers = classifier.predict(vectorizer.transform(texts))
    advance(1)
    return np.asarray(answers, dtype=np.int64)
