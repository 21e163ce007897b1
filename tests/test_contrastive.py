"""The supervised contrastive stage: its loss, its batches, and what it does to a run."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Run, train_config

import multiregime
from bankintent.config import ContrastiveSection


def test_the_loss_is_the_mean_over_anchors_of_the_positives_log_probability() -> None:
    import torch

    from bankintent.training.contrastive import supervised_contrastive_loss

    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(7, 5, generator=generator)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 0])  # the only sentence of intent 2 has no positive
    unit = (vectors / vectors.norm(dim=1, keepdim=True)).double()
    terms = []
    for i in range(7):
        positives = [j for j in range(7) if j != i and labels[j] == labels[i]]
        everyone = sum(torch.exp(unit[i] @ unit[j] / 0.2) for j in range(7) if j != i)
        if positives:
            terms.append(-np.mean([float(torch.log(torch.exp(unit[i] @ unit[j] / 0.2) / everyone)) for j in positives]))
    found = supervised_contrastive_loss(vectors, labels, 0.2)
    assert float(found) == pytest.approx(np.mean(terms), abs=1e-5)

    vectors.requires_grad_(True)
    supervised_contrastive_loss(vectors, labels, 0.05).backward()
    assert torch.isfinite(vectors.grad).all()


def test_near_intents_are_those_whose_sentences_look_alike() -> None:
    from bankintent.training.contrastive import nearest_intents

    rng = np.random.default_rng(0)
    centres = np.array([[5, 0, 0, 9], [4.8, 1, 0, 9], [0, 5, 0, 9], [0, 4.9, 1, 9]], dtype=np.float32)
    labels = np.repeat(np.arange(4), 6)
    vectors = (centres[labels] + 0.1 * rng.standard_normal((24, 4))).astype(np.float32)
    nearest = nearest_intents(vectors, labels, 4)
    assert nearest[:, :2].tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]


def test_a_batch_holds_a_few_sentences_of_each_intent_and_its_look_alikes() -> None:
    from bankintent.training.contrastive import IntentBatches

    labels = np.repeat(np.arange(10), 5)
    labels[labels == 7] = 6  # intent 7 has no sentence
    nearest = np.array([[i, i ^ 1, *(j for j in range(10) if j not in (i, i ^ 1))] for i in range(10)])
    section = ContrastiveSection(steps=30, intents=4, sentences=3, hard=1)
    batches = list(IntentBatches(labels, nearest, section, seed=3))
    assert len(batches) == 30
    for rows in batches:
        assert len(set(rows)) == len(rows)
        intents, counts = np.unique(labels[rows], return_counts=True)
        assert len(intents) == 4
        assert set(counts) == {3}
        together = sum(1 for intent in intents if intent ^ 1 in intents)
        assert together >= 2  # at least the first anchor has its look-alike beside it
    again = list(IntentBatches(labels, nearest, section, seed=3))
    assert again == batches
    assert {int(label) for rows in batches for label in labels[rows]} == set(range(10)) - {7}


@pytest.mark.parametrize("regime", ["lora", "full-ft"])
def test_the_stage_groups_sentences_by_intent_before_training(
    regime: str, tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    settings = {"pooling": "mean", "epochs": 1, "lr": 1e-6}
    stage = {"steps": 20, "lr": 3e-3, "intents": 3, "sentences": 4, "hard": 1}
    plain = train_config(tmp_path / "plain.yaml", tiny_bert, data_dir, tmp_path / "plain", **settings)
    staged = train_config(
        tmp_path / "staged.yaml", tiny_bert, data_dir, tmp_path / "staged", contrastive=stage, **settings
    )
    for config in (plain, staged):
        result = run(multiregime.main, "--config", config, "--regime", regime)
        assert result.code == 0, result.err
    assert "Contrastive stage: 20 steps" in result.out

    import torch

    from bankintent.corpus import dataset
    from bankintent.inference.predictor import Predictor

    val = dataset.load(data_dir).read("val")

    def spread(bundle: str) -> float:
        """Mean cosine of what the classification layer reads, within intents less between them."""
        predictor = Predictor.load(tmp_path / bundle)
        batch = predictor.tokenizer(val.texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            vectors = predictor.model.base_model(**batch).pooler_output.numpy()
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        same, cosine = np.equal.outer(val.labels, val.labels), unit @ unit.T
        return float(cosine[same].mean() - cosine[~same].mean())

    if regime == "full-ft":  # twenty steps are few for an adapter that starts at zero on random weights
        assert spread("staged") > 1.5 * spread("plain")


def test_a_frozen_encoder_has_no_contrastive_stage(tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run) -> None:
    config = train_config(tmp_path / "t.yaml", tiny_bert, data_dir, tmp_path / "bundle", contrastive={"steps": 5})
    message = run(multiregime.main, "--config", config, "--regime", "head-only").one_line_error()
    assert "head-only keeps frozen" in message
    assert not (tmp_path / "bundle").exists()
