"""Data that is judged by cross-validation: its folds, the choice of the epoch, training, evaluation."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import BuildOnce, Run, train_config, write_csv, write_yaml
from tiny_models import rows

import etl
import eval as evaluate
import multiregime
from bankintent import __main__ as verbs
from bankintent.bundle import layout, out_of_fold
from bankintent.config import DataConfig, FrontendConfig, TrainConfig
from bankintent.corpus import dataset, division
from bankintent.corpus.cleaning import Example
from bankintent.corpus.cross_split import draw_folds
from bankintent.corpus.dataset import Dataset
from bankintent.corpus.folds import ALWAYS_TRAINED, Fold, Folds
from bankintent.errors import ConfigError, DataError
from bankintent.gradio_app.examples import find_examples
from bankintent.inference.cross_record import CrossRecord, next_steps
from bankintent.measures import metrics
from bankintent.measures.learning import CurvePoint, foretell_doubling
from bankintent.measures.metrics import ConfusedPair, IntentScores
from bankintent.training import epoch_choice, learning_curve
from bankintent.training.epoch_choice import JudgedFold
from bankintent.training.fit import fit_run
from bankintent.training.rows import read_rows

Pairs = list[tuple[str, str]]

FEW = [("block my card", "block"), ("card is blocked", "block"), ("hello", "greet")]
"""Two intents that are too small to be judged."""


def small(pairs: Pairs, run: Run, **more: Any) -> Dataset:
    """ETL's output of some rows, divided into folds."""
    source = write_csv(Path("small.csv"), pairs)
    settings = {"split": "cross", "folds": 3, "output_dir": "data"} | more
    result = run(
        etl.main, "--config", write_yaml(Path("data.yaml"), dataset_name=str(source), **settings)
    )
    assert result.code == 0, result.err
    return dataset.load(Path("data"))


def examples(pairs: Pairs) -> list[Example]:
    return [
        Example(f"a.csv:{number}", text, label) for number, (text, label) in enumerate(pairs, 1)
    ]


def folds_of(pairs: Pairs, **settings: Any) -> Folds:
    config = DataConfig(dataset_name="a.csv", split="cross", **settings)
    return draw_folds(examples(pairs), config)


# Folds


def test_each_judged_row_is_held_out_once_in_each_repeat() -> None:
    folds = folds_of(rows(), folds=4, repeats=3)
    for repeat in range(3):
        held_out = [fold.held_out for fold in folds if fold.repeat == repeat]
        assert sorted(np.concatenate(held_out)) == list(range(60))
    for fold in folds:
        assert not set(fold.train) & set(fold.held_out)
        assert len(fold.train) + len(fold.held_out) == 60


def test_folds_hold_the_same_share_of_each_intent() -> None:
    labels = [label for _, label in rows()]
    for fold in folds_of(rows(), folds=4):
        counts = Counter(labels[row] for row in fold.held_out)
        assert set(counts.values()) == {5}


def test_nearly_the_same_texts_stand_in_one_fold() -> None:
    pairs = rows() + [("please tell me how i can top up my account today", "top_up")] * 2
    pairs += [("Please tell me how I can top up my account today!", "top_up")]
    for assigned in folds_of(pairs, folds=5, repeats=4).assignment:
        assert len(set(assigned[-3:])) == 1


def test_small_intents_are_always_trained_on() -> None:
    folds = folds_of(rows() + FEW, folds=5)
    assert set(folds.assignment[0, -3:]) == {ALWAYS_TRAINED}
    assert folds.judged.sum() == 60
    for fold in folds:
        assert set(fold.train) >= {60, 61, 62}


def test_an_intent_of_one_text_is_never_held_out_as_a_whole() -> None:
    same = [
        ("where is my parcel", "parcel"),
        ("Where is my parcel?", "parcel"),
        ("where is my parcel!", "parcel"),
    ]
    folds = folds_of(rows() + same, folds=5, repeats=2)
    assert set(folds.assignment[:, -3:].ravel()) == {ALWAYS_TRAINED}


def test_the_draw_follows_from_the_seed_and_repeats_differ() -> None:
    assignment = folds_of(rows(), repeats=2).assignment
    assert np.array_equal(assignment, folds_of(rows(), repeats=2).assignment)
    assert not np.array_equal(assignment, folds_of(rows(), repeats=2, seed=7).assignment)
    assert not np.array_equal(assignment[0], assignment[1])


# ETL


def test_small_data_without_a_test_split_is_judged_by_cross_validation(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(division, "CROSS_BELOW", 1000)
    source = write_csv(Path("small.csv"), rows() + FEW)
    config = write_yaml(Path("data.yaml"), dataset_name=str(source), output_dir="data")
    result = run(etl.main, "--config", config)

    assert result.code == 0, result.err
    out = " ".join(result.out.split())
    assert "Split: cross, nothing is held out: a model is trained on all 63 sentences" in out
    assert "because a test split of fewer than 1,000 sentences says little" in out
    assert "2 intents are trained on but not judged" in out
    assert "block (2), greet (1)" in out
    assert sorted(path.name for path in Path("data").iterdir()) == [
        "folds.parquet",
        "labels.json",
        "manifest.json",
        "report.json",
        "report.md",
        "train.parquet",
    ]


@pytest.mark.parametrize(
    "settings", [{"test_split": 0.2}, {"val_split": 0.2}, {"few_shot": 3}, {"split": "stable"}]
)
def test_who_asks_for_a_share_gets_splits(
    run: Run, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(division, "CROSS_BELOW", 1000)
    source = write_csv(Path("small.csv"), rows())
    config = write_yaml(Path("data.yaml"), dataset_name=str(source), output_dir="data", **settings)
    assert run(etl.main, "--config", config).code == 0
    assert not dataset.load(Path("data")).is_cross


def test_a_source_with_a_test_split_keeps_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(division, "CROSS_BELOW", 1000)
    folder = Path("own")
    folder.mkdir()
    write_csv(folder / "train.csv", rows(10))
    write_csv(folder / "test.csv", [(f"{text} again", label) for text, label in rows(3)])
    config = write_yaml(Path("data.yaml"), dataset_name=str(folder), output_dir="data")
    assert run(etl.main, "--config", config).code == 0
    assert dataset.load(Path("data")).manifest.split == "official"


def test_few_shot_and_cross_validation_are_refused_together(run: Run) -> None:
    source = write_csv(Path("small.csv"), rows())
    config = write_yaml(
        Path("data.yaml"), dataset_name=str(source), output_dir="data", split="cross", few_shot=2
    )
    assert (
        "Set split: stable, or remove few_shot"
        in run(etl.main, "--config", config).one_line_error()
    )
    assert not Path("data").exists()


def test_data_without_an_intent_that_can_be_judged_is_refused(run: Run) -> None:
    source = write_csv(Path("small.csv"), FEW)
    config = write_yaml(
        Path("data.yaml"), dataset_name=str(source), output_dir="data", split="cross"
    )
    assert "has 3 different sentences" in run(etl.main, "--config", config).one_line_error()


def test_extra_sentences_are_trained_on_in_every_fold_unless_they_are_nearly_judged_ones(
    run: Run,
) -> None:
    extra = write_csv(
        Path("extra.csv"),
        [("lost it in a taxi", "card_lost"), ("I lost my card, number 0", "card_lost")],
    )
    data = small(rows(), run, extra_train=str(extra))
    assert data.read("train").texts[60:] == ["lost it in a taxi"]
    assert set(data.read_folds().assignment[:, 60]) == {ALWAYS_TRAINED}


def test_other_folds_are_other_data(run: Run) -> None:
    first = small(rows(), run).hash
    assert small(rows(), run).hash == first
    assert small(rows(), run, repeats=2).hash != first


@pytest.mark.parametrize("split", ["val", "test"])
def test_there_are_no_held_out_splits_to_read(run: Run, split: str) -> None:
    with pytest.raises(DataError, match="Run ETL again with --set split=stable"):
        small(rows(), run).read(split)


@pytest.mark.parametrize("settings", [{"few_shot": 3}, {"early_stopping": 2}])
def test_settings_that_need_held_out_rows_are_refused(run: Run, settings: dict[str, Any]) -> None:
    data = small(rows(), run)
    config = TrainConfig.model_validate(
        {"model_name": "m", "regime": "full-ft", "output_dir": "b", **settings}
    )
    with pytest.raises(ConfigError, match=next(iter(settings))):
        read_rows(config, data)


# The choice of the epoch


def judged_folds(scores: list[list[bool]], labels: np.ndarray) -> list[JudgedFold]:
    """One fold for each list: whether it answers correctly after each epoch; each holds out two rows of two labels."""
    folds = []
    for number, right_by_epoch in enumerate(scores):
        held_out = np.asarray([2 * number, 2 * number + 1])
        answers = np.zeros((len(right_by_epoch), 2, 2), dtype=np.float32)
        for epoch, is_right in enumerate(right_by_epoch):
            for place, label in enumerate(labels[held_out]):
                answers[epoch, place, label if is_right else 1 - label] = 1
        folds.append(JudgedFold(Fold(0, number, np.asarray([]), held_out), answers))
    return folds


LABELS = np.asarray([0, 1, 0, 1, 0, 1])


def test_the_epoch_that_judges_a_fold_is_chosen_without_it() -> None:
    # The last fold alone is right after the first epoch; the others after the second.
    judged = judged_folds([[False, True], [False, True], [True, False]], LABELS)
    folds = Folds(np.asarray([[0, 0, 1, 1, 2, 2]]))
    logits = epoch_choice.out_of_fold(judged, folds, LABELS, "best")
    right = logits[0].argmax(axis=1) == LABELS
    # For the first two folds the other two are of different minds, and the first epoch is taken.
    assert not right.any()
    assert epoch_choice.choose(judged, LABELS, "best") == 1
    assert epoch_choice.choose(judged[:2], LABELS, "best") == 1


def test_of_equal_epochs_the_first_is_chosen_and_last_is_last() -> None:
    judged = judged_folds([[False, True, True], [False, True, True], [False, True, True]], LABELS)
    assert epoch_choice.choose(judged, LABELS, "best") == 1
    assert epoch_choice.choose(judged, LABELS, "last") == 2


@pytest.mark.parametrize(("head_init", "epoch"), [("probe", 1), ("random", 2)])
def test_a_probe_is_epoch_zero(head_init: str, epoch: int) -> None:
    judged = judged_folds([[False, True, False]] * 3, LABELS)
    config = TrainConfig.model_validate(
        {
            "model_name": "m",
            "regime": "full-ft",
            "output_dir": "b",
            "epochs": 2 + (head_init == "random"),
            "head_init": head_init,
        }
    )
    published = epoch_choice.describe(judged, LABELS, 0.5, config)
    assert published.epoch == epoch
    assert published.val_macro_f1 == 0.5


# What more sentences would give


def test_a_doubling_is_foretold_by_the_last_one() -> None:
    points = [CurvePoint(25, 0.4), CurvePoint(50, 0.6), CurvePoint(100, 0.8)]
    # The error was halved, and is expected to be halved again.
    assert foretell_doubling(points) == pytest.approx(0.9)
    assert foretell_doubling([CurvePoint(50, 0.8), CurvePoint(100, 0.8)]) is None
    assert foretell_doubling([CurvePoint(50, 0.8), CurvePoint(100, 1.0)]) is None


def test_the_curve_is_measured_with_parts_of_each_fold() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(3), 20)
    vectors = rng.normal(size=(60, 8)).astype(np.float32) + 4 * np.eye(8, dtype=np.float32)[labels]
    folds = folds_of(rows(), folds=5)
    points = learning_curve.measure(vectors, labels, folds)
    assert [point.rows for point in points] == [13, 25, 48]
    assert points[-1].accuracy > 0.95
    shuffled = learning_curve.measure(vectors, rng.permutation(labels), folds)
    assert shuffled[-1].accuracy < 0.6


def test_repeated_answers_do_not_narrow_an_interval() -> None:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 3, 80)
    predicted = np.where(rng.random(80) < 0.7, true, (true + 1) % 3)
    once = metrics.bootstrap_intervals(true, predicted, 3, metrics.Bootstrap(400, 1))
    thrice = metrics.bootstrap_intervals(
        np.tile(true, 3), np.tile(predicted, 3), 3, metrics.Bootstrap(400, 1, repeats=3)
    )
    low, high = once["accuracy"]
    assert thrice["accuracy"] == pytest.approx([low, high], abs=0.03)


RECORD = CrossRecord(5, 1, [0.8], 60, [], [CurvePoint(24, 0.6), CurvePoint(48, 0.8)], 0.9)


def scores(name: str, f1: float, support: int) -> IntentScores:
    return IntentScores(name, f1, f1, f1, support)


def test_what_would_help_is_said_from_the_result() -> None:
    intents = [
        scores("a", 0.9, 20),
        scores("b", 0.4, 5),
        scores("c", 0.9, 10),
        scores("d", 0.8, 10),
    ]
    pairs = [
        ConfusedPair("c", "d", 3, []),
        ConfusedPair("d", "c", 2, []),
        ConfusedPair("a", "b", 2, []),
    ]
    steps = next_steps(RECORD, intents, pairs)
    assert steps[0] == "- more sentences for b (F1 0.40, 5 sentences)"
    assert steps[1].startswith("- c and d may be one intent: 5 of 20 answers")
    assert "another doubling should give about 10.00" in steps[2]
    assert len(steps) == 3


def test_where_nothing_is_wrong_more_sentences_are_not_asked_for() -> None:
    curve = [CurvePoint(24, 0.8), CurvePoint(48, 1.0)]
    record = CrossRecord(5, 1, [1.0], 60, [], curve, None)
    assert next_steps(record, [scores("a", 1.0, 20)], []) == []


# Training and evaluation


@pytest.fixture
def trained(
    run: Run,
    tiny_bert: Path,
    request: pytest.FixtureRequest,
    build_once: BuildOnce,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A copy of a bundle of data that is judged by cross-validation, of the regime of the test."""
    regime = getattr(request, "param", "head-only")
    own_folder = Path.cwd()

    def build(folder: Path) -> None:
        monkeypatch.chdir(folder)
        small(rows() + FEW, run, repeats=2)
        config = train_config(
            Path("train.yaml"), tiny_bert, Path("data"), Path("bundle"), epochs=3, head_init="probe"
        )
        result = run(multiregime.main, "--config", config, "--regime", regime)
        assert result.code == 0, result.err
        Path("out.txt").write_text(result.out)

    shared = build_once(f"cross-{regime}", build)
    monkeypatch.chdir(own_folder)
    shutil.copytree(shared, own_folder, dirs_exist_ok=True)
    return Path("bundle")


@pytest.mark.parametrize("trained", ["head-only", "lora", "full-ft"], indirect=True)
def test_every_regime_is_judged_out_of_fold_and_trained_on_everything(trained: Path) -> None:
    layout.open_checkpoint(trained)
    content = json.loads((trained / "metrics.json").read_text())
    cross = content["validation"]["cross"]
    answers = out_of_fold.read(layout.open_checkpoint(trained))

    assert content["validation"]["rows"] == 60
    assert (cross["folds"], cross["repeats"]) == (3, 2)
    assert cross["not_judged"] == ["block", "greet"]
    assert answers.logits.shape == (120, 5)
    assert answers.ids[:60] == answers.ids[60:]

    true = np.asarray(pq.read_table(trained / out_of_fold.FILE)["label"].to_pylist())
    accuracy = float((answers.logits.argmax(axis=1) == true).mean())
    assert content["metrics"]["val"]["accuracy"] == pytest.approx(accuracy)
    assert np.mean(cross["accuracies"]) == pytest.approx(accuracy)

    out = Path("out.txt").read_text()
    assert "fold 6 of 6" in out
    assert "63 sentences, 3 epochs" in out
    card = (trained / "README.md").read_text()
    assert "3-fold cross-validation, 2 times: each of 60 sentences" in card
    assert "for validation" not in card


def test_the_answers_out_of_fold_are_those_of_models_without_the_row(
    run: Run, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small(rows(), run)
    learned: list[tuple[set[str], set[str]]] = []
    original = fit_run

    def watch(part: Any) -> Any:
        learned.append((set(part.rows.train.ids), set(part.rows.val.ids)))
        return original(part)

    monkeypatch.setattr("bankintent.training.cross_validation.fit_run", watch)
    config = train_config(Path("train.yaml"), tiny_bert, Path("data"), Path("bundle"), epochs=1)
    assert run(multiregime.main, "--config", config, "--regime", "head-only").code == 0

    assert len(learned) == 3
    for trained_ids, judged_ids in learned:
        assert not trained_ids & judged_ids
        assert trained_ids | judged_ids == set(data.read("train").ids)


def test_finished_folds_are_not_trained_again(
    run: Run, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(rows(), run)
    original = fit_run
    calls: list[int] = []

    def fail_third(part: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(part)

    monkeypatch.setattr("bankintent.training.cross_validation.fit_run", fail_third)
    config = train_config(Path("train.yaml"), tiny_bert, Path("data"), Path("bundle"), epochs=1)
    words = ("--config", config, "--regime", "head-only")
    assert run(multiregime.main, *words).code == 130
    assert not Path("bundle").exists()

    # Two folds are there: one is left, which is the fourth call.
    assert run(multiregime.main, *words).code == 0
    assert len(calls) == 4
    assert not Path("bundle.work").exists()


def test_eval_reports_the_answers_out_of_fold(run: Run, trained: Path) -> None:
    result = run(
        evaluate.main,
        "--checkpoint-path",
        trained,
        "--output-dir",
        "report",
        "--set",
        "tracking.enabled=false",
    )
    assert result.code == 0, result.err
    out = " ".join(result.out.split())
    assert "60 sentences, each held out once" in out
    assert "6 trainings by the same recipe" in out
    assert "The published model is trained on all 63 sentences" in out
    assert "TF-IDF and logistic regression" in out
    assert "Accuracy by repeat" in out

    content = json.loads(Path("report/metrics.json").read_text())
    recorded = json.loads((trained / "metrics.json").read_text())
    assert content["split"] == "cross"
    assert content["rows"] == 60
    assert content["trained_on"] is None
    assert content["metrics"]["accuracy"] == pytest.approx(recorded["metrics"]["val"]["accuracy"])
    assert content["cross"]["learning_curve"] == recorded["validation"]["cross"]["learning_curve"]
    assert Path("report/learning-curve.png").is_file()
    predictions = pq.read_table("report/predictions.parquet")
    assert predictions["repeat"].to_pylist() == [0] * 60 + [1] * 60


def test_a_split_that_is_asked_for_is_refused(run: Run, trained: Path) -> None:
    words = ("--checkpoint-path", trained, "--split", "test", "--set", "tracking.enabled=false")
    assert "has no val and test rows" in run(evaluate.main, *words).one_line_error()


def test_a_model_of_other_data_is_not_judged_by_these_folds(run: Run, trained: Path) -> None:
    small(rows(), run, output_dir="other")
    words = ("--checkpoint-path", trained, "--data-dir", "other", "--set", "tracking.enabled=false")
    error = run(evaluate.main, *words).one_line_error()
    assert "labels" in error or "was not judged by the folds of other" in error


def test_two_models_are_compared_by_their_answers_out_of_fold(
    run: Run, trained: Path, tiny_bert: Path
) -> None:
    config = train_config(Path("b.yaml"), tiny_bert, Path("data"), Path("second"), epochs=1)
    assert run(multiregime.main, "--config", config, "--regime", "head-only").code == 0
    result = run(verbs.compare_models, trained, "second", "--output-dir", "pair")
    assert result.code == 0, result.err
    content = json.loads(Path("pair/metrics.json").read_text())
    assert content["difference"]["rows"] == 60


def test_a_page_shows_sentences_of_data_without_a_test_split(trained: Path) -> None:
    sentences = find_examples(FrontendConfig(model_dir=trained))
    known = dataset.load(Path("data")).read("train").texts
    assert sentences
    assert set(sentences) <= set(known)


def test_a_comparison_of_recipes_asks_for_a_test_split(run: Run, tiny_bert: Path) -> None:
    small(rows(), run)
    recipe = train_config(Path("t.yaml"), tiny_bert, Path("data"), Path("x"), regime="head-only")
    config = write_yaml(
        Path("compare.yaml"),
        name="small",
        data_dir="data",
        recipes={"head": str(recipe)},
    )
    error = run(verbs.compare, "--config", config).one_line_error()
    assert "data has no val and test rows" in error
    assert "--set split=stable" in error
    assert not Path("artifacts/studies").exists()
