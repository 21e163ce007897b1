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
    terms = []
    for i in range(7):
        positives = [j for j in range(7) if j != i and labels[j] == labels[i]]
        everyone = sum(torch.exp(unit[i] @ unit[j] / 0.2) for j in range(7) if j != i)
        if positives:
            terms.append(
                -np.mean(
                    [
                        float(torch.log(torch.exp(unit[i] @ unit[j] / 0.2) / everyone))
                        for j in positives
                    ]
                )
            )
    found = supervised_contrastive_loss(vectors, labels, 0.2)
    assert float(found) == pytest.approx(np.mean(terms), abs=1e-5)

    vectors.requires_grad_(True)
    supervised_contrastive_loss(vectors, labels, 0.05).backward()
    assert torch.isfinite(vectors.grad).all()


def test_mined_negatives_have_another_label_and_are_closer_than_random_ones() -> None:
    from bankintent.training.methods.contrastive import MINED, mine

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 60)
    vectors = rng.standard_normal((60, 8)).astype(np.float32)
    vectors[1], labels[1] = vectors[0], (labels[0] + 1) % 5  # one text under two labels
    negatives = mine(vectors, labels)
    assert negatives.rows.shape == (60, MINED)
    assert (labels[negatives.rows] != labels[:, None]).all()
    assert 1 not in negatives.rows[0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in range(60):
        others = np.flatnonzero(labels != labels[row])
        random = unit[others] @ unit[row]
        np.testing.assert_allclose(
            unit[negatives.rows[row]] @ unit[row], negatives.cosines[row], atol=1e-5
        )
        assert negatives.cosines[row].min() >= np.sort(random)[-MINED - 1] - 1e-5
        assert negatives.cosines[row].mean() > random.mean()


def test_few_rows_of_other_intents_leave_places_empty() -> None:
    from bankintent.training.methods.contrastive import IntentBatches, mine

    labels = np.array([0, 0, 0, 1])
    negatives = mine(np.eye(4, dtype=np.float32), labels)
    assert negatives.rows[:3].tolist() == [[3, -1, -1, -1, -1]] * 3
    section = ContrastiveSection(steps=5, intents=4, sentences=2, hard=5)
    assert all(
        0 <= row < 4 for batch in IntentBatches(labels, negatives, section, 0) for row in batch
    )


@pytest.mark.parametrize("hard", [0, 1])
def test_a_batch_holds_a_few_sentences_of_each_intent_and_their_hard_negatives(hard: int) -> None:
    from bankintent.training.methods.contrastive import IntentBatches, mine

    labels = np.repeat([0, 1, 2, 3, 4, 5, 6, 8, 9], 5)  # intent 7 has no sentence
    negatives = mine(np.random.default_rng(0).standard_normal((45, 8)).astype(np.float32), labels)
    section = ContrastiveSection(steps=60, intents=4, sentences=3, hard=hard)
    batches = list(IntentBatches(labels, negatives, section, seed=3))
    assert len(batches) == 60
    for rows in batches:
        assert len(set(rows)) == len(rows)
        intents, counts = np.unique(labels[rows], return_counts=True)
        anchors = intents[counts >= 3]
        if hard:
            assert len(anchors) >= 2
            assert len(rows) > 6
            known = {int(row) for row in rows}
            of_anchors = [row for row in rows if labels[row] in anchors]
            assert all(known & set(negatives.rows[row].tolist()) for row in of_anchors[:3])
        else:
            assert len(intents) == 4
            assert set(counts) == {3}
    assert list(IntentBatches(labels, negatives, section, seed=3)) == batches
    assert {int(label) for rows in batches for label in labels[rows]} == set(range(10)) - {7}


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

    if (
        regime == "full-ft"
    ):  # twenty steps are few for an adapter that starts at zero on random weights
        assert spread("staged") > 1.5 * spread("plain")


def test_training_after_the_stage_keeps_the_precision_that_was_asked_for(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two Trainers prepare one model in turn; Accelerate passes over a model that it has prepared before."""
    import torch

    from bankintent.training import regimes

    seen, prepare = [], regimes.prepare

    def watched(*arguments: Any) -> Any:
        model = prepare(*arguments)
        layer = next(
            module
            for name, module in model.named_modules()
            if name.endswith("attention.self.query")
        )
        layer.register_forward_hook(
            lambda module, given, out: seen.append((module.training, out.dtype))
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
    assert {dtype for training, dtype in seen if training} == {torch.bfloat16}
    assert seen[-1] == (False, torch.float32)


def test_a_frozen_encoder_has_no_contrastive_stage(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    config = train_config(
        tmp_path / "t.yaml", tiny_bert, data_dir, tmp_path / "bundle", contrastive={"steps": 5}
    )
    message = run(multiregime.main, "--config", config, "--regime", "head-only").one_line_error()
    assert "head-only keeps frozen" in message
    assert not (tmp_path / "bundle").exists()
