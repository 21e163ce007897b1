"""The supervised contrastive stage: its loss, its batches, and what it does to a run."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, train_config

import multiregime
from bankintent.config import ContrastiveSection


def test_the_loss_is_the_mean_over_anchors_of_the_positives_log_probability() -> None:
    import torch

    from bankintent.training.methods.contrastive import supervised_contrastive_loss

    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(7, 5, generator=generator)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 0])  # the only sentence of intent 2 has no positive
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).double()
    likeness = torch.exp(unit @ unit.T / 0.2)

    terms = []
    for anchor in range(7):
        others = [row for row in range(7) if row != anchor]
        total = likeness[anchor, others].sum()
        positives = [row for row in others if labels[row] == labels[anchor]]
        if positives:
            terms.append(-torch.log(likeness[anchor, positives] / total).mean().item())

    loss = supervised_contrastive_loss(vectors, labels, 0.2)
    assert float(loss) == pytest.approx(np.mean(terms), abs=1e-5)


def test_the_loss_has_finite_gradients_at_a_low_temperature() -> None:
    import torch

    from bankintent.training.methods.contrastive import supervised_contrastive_loss

    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 0])
    supervised_contrastive_loss(vectors, labels, 0.05).backward()
    assert torch.isfinite(vectors.grad).all()


def test_mined_negatives_have_another_label_and_are_closer_than_random_ones() -> None:
    from bankintent.training.methods.contrastive import MINED, mine

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 60)
    vectors = rng.standard_normal((60, 8)).astype(np.float32)
    # One text under two labels.
    vectors[1] = vectors[0]
    labels[1] = (labels[0] + 1) % 5

    negatives = mine(vectors, labels)
    assert negatives.rows.shape == (60, MINED)
    assert (labels[negatives.rows] != labels[:, None]).all()
    assert 1 not in negatives.rows[0]

    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in range(60):
        others = np.flatnonzero(labels != labels[row])
        random = unit[others] @ unit[row]
        cosines = unit[negatives.rows[row]] @ unit[row]
        np.testing.assert_allclose(cosines, negatives.cosines[row], atol=1e-5)
        assert cosines.min() >= np.sort(random)[-MINED - 1] - 1e-5
        assert cosines.mean() > random.mean()


def test_few_rows_of_other_intents_leave_places_empty() -> None:
    from bankintent.training.methods.contrastive import IntentBatches, mine

    labels = np.array([0, 0, 0, 1])
    negatives = mine(np.eye(4, dtype=np.float32), labels)
    assert negatives.rows[:3].tolist() == [[3, -1, -1, -1, -1]] * 3

    section = ContrastiveSection(steps=5, intents=4, sentences=2, hard=5)
    for batch in IntentBatches(labels, negatives, section, seed=0):
        assert set(batch) <= {0, 1, 2, 3}


LABELS = np.repeat([0, 1, 2, 3, 4, 5, 6, 8, 9], 5)
"""Label ids of 45 rows; intent 7 has no sentence."""


def compose(hard: int) -> tuple[Any, list[list[int]]]:
    """The mined negatives of 45 random rows, and sixty batches of them."""
    from bankintent.training.methods.contrastive import IntentBatches, mine

    vectors = np.random.default_rng(0).standard_normal((45, 8)).astype(np.float32)
    negatives = mine(vectors, LABELS)
    section = ContrastiveSection(steps=60, intents=4, sentences=3, hard=hard)
    return negatives, list(IntentBatches(LABELS, negatives, section, seed=3))


@pytest.mark.parametrize("hard", [0, 1])
def test_batches_have_each_row_once_reach_every_intent_and_follow_the_seed(hard: int) -> None:
    _, batches = compose(hard)
    assert len(batches) == 60
    for rows in batches:
        assert len(set(rows)) == len(rows)

    drawn = LABELS[np.concatenate(batches)]
    assert set(drawn.tolist()) == set(LABELS.tolist())
    assert compose(hard)[1] == batches


def test_a_batch_holds_a_few_sentences_of_each_of_a_few_intents() -> None:
    _, batches = compose(hard=0)
    for rows in batches:
        intents, counts = np.unique(LABELS[rows], return_counts=True)
        assert len(intents) == 4
        assert set(counts) == {3}


def test_a_sentence_brings_one_of_its_hard_negatives_into_the_batch() -> None:
    negatives, batches = compose(hard=1)
    for rows in batches:
        intents, counts = np.unique(LABELS[rows], return_counts=True)
        anchor_intents = intents[counts >= 3]
        assert len(anchor_intents) >= 2
        assert len(rows) > 6

        anchors = [row for row in rows if LABELS[row] in anchor_intents]
        for anchor in anchors[:3]:
            assert set(rows) & set(negatives.rows[anchor].tolist())


@pytest.mark.parametrize("regime", ["lora", "full-ft"])
def test_the_stage_groups_sentences_by_intent_before_training(
    regime: str, tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    settings = {"pooling": "mean", "epochs": 1, "lr": 1e-6}
    stage = {"steps": 20, "lr": 3e-3, "intents": 3, "sentences": 4, "hard": 1}
    plain = train_config(
        tmp_path / "plain.yaml", tiny_bert, data_dir, tmp_path / "plain", **settings
    )
    staged = train_config(
        tmp_path / "staged.yaml",
        tiny_bert,
        data_dir,
        tmp_path / "staged",
        contrastive=stage,
        **settings,
    )
    for config in (plain, staged):
        result = run(multiregime.main, "--config", config, "--regime", regime)
        assert result.code == 0, result.err
    assert "Contrastive stage: 20 steps" in result.out

    with (tmp_path / "staged.negatives.csv").open(newline="") as file:
        negatives = list(csv.DictReader(file))
    assert list(negatives[0]) == ["text", "label", "negative", "negative_label", "cosine"]
    assert all(row["label"] != row["negative_label"] for row in negatives)
    cosines = [float(row["cosine"]) for row in negatives]
    assert cosines == sorted(cosines, reverse=True)

    # Twenty steps are few for an adapter that starts at zero on random weights.
    if regime == "full-ft":
        before = grouping(tmp_path / "plain", data_dir)
        assert grouping(tmp_path / "staged", data_dir) > 1.5 * before


def grouping(bundle: Path, data_dir: Path) -> float:
    """Mean cosine of what the classification layer reads, within intents less between them."""
    import torch

    from bankintent.corpus import dataset
    from bankintent.inference.predictor import Predictor

    val = dataset.load(data_dir).read("val")
    predictor = Predictor.load(bundle)
    batch = predictor.tokenizer(val.texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        vectors = predictor.model.base_model(**batch).pooler_output.numpy()

    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    same = np.equal.outer(val.labels, val.labels)
    return float(cosine[same].mean() - cosine[~same].mean())


def test_training_after_the_stage_keeps_the_precision_that_was_asked_for(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two Trainers prepare one model in turn; Accelerate passes over a model prepared before."""
    import torch

    from bankintent.training import regimes

    passes: list[tuple[bool, Any]] = []
    prepare = regimes.prepare

    def watched(*arguments: Any) -> Any:
        model = prepare(*arguments)
        query = model.base_model.encoder.layer[0].attention.self.query
        query.register_forward_hook(
            lambda module, inputs, output: passes.append((module.training, output.dtype))
        )
        return model

    monkeypatch.setattr(regimes, "prepare", watched)
    options = {
        "contrastive": {"steps": 2},
        "epochs": 1,
        "precision": "bf16",
        "export": {"onnx": False},
    }
    config = train_config(tmp_path / "t.yaml", tiny_bert, data_dir, tmp_path / "bundle", **options)
    assert run(multiregime.main, "--config", config, "--regime", "full-ft").code == 0

    assert {dtype for training, dtype in passes if training} == {torch.bfloat16}
    assert passes[-1] == (False, torch.float32)


def test_a_frozen_encoder_has_no_contrastive_stage(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    config = train_config(
        tmp_path / "t.yaml", tiny_bert, data_dir, tmp_path / "bundle", contrastive={"steps": 5}
    )
    message = run(multiregime.main, "--config", config, "--regime", "head-only").one_line_error()
    assert "head-only keeps frozen" in message
    assert not (tmp_path / "bundle").exists()
