"""Training rows that stay on disk: the same model as from memory, and what needs all of them in memory is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, train_config
from tiny_models import tiny_encoder

import multiregime
from bankintent.config import TrainConfig
from bankintent.corpus import dataset
from bankintent.errors import ConfigError
from bankintent.inference import trained_on
from bankintent.inference.predictor import Predictor
from bankintent.training.rows import read_rows

RECIPES: dict[str, dict[str, Any]] = {
    "lora": {"regime": "lora"},
    "full-ft": {"regime": "full-ft"},
    "head-only": {"regime": "head-only"},
    "head-only on a probe": {"regime": "head-only", "head_init": "probe"},
    "a probe and a contrastive stage": {
        "regime": "lora",
        "head_init": "probe",
        "contrastive": {"steps": 3, "intents": 3},
    },
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("bert", tmp_path_factory.mktemp("encoder"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_rows_on_disk_give_the_model_that_rows_in_memory_give(
    recipe: str, encoder: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    logits = []
    for place, most in (("memory", 200_000), ("disk", 0)):
        settings = {"stream_above": most, "cache_dir": str(tmp_path / place), **RECIPES[recipe]}
        bundle = tmp_path / f"bundle-{place}"
        config = train_config(tmp_path / f"{place}.yaml", encoder, data_dir, bundle, **settings)
        result = run(multiregime.main, "--config", config)
        assert result.code == 0, result.err
        logits.append(Predictor.load(bundle).logits(["i lost my card", "top up", "rate today"]))

    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)
    # Files of rows, of tokens and of vectors have no names: nothing of them is left.
    left = [path for path in (tmp_path / "disk").rglob("*") if path.is_file()]
    assert all(path.suffix == ".safetensors" for path in left)


def test_mapped_rows_are_those_of_the_split(data_dir: Path, tmp_path: Path) -> None:
    data = dataset.load(data_dir)
    rows = data.read("train")
    mapped = data.read_mapped("train", tmp_path / "cache")

    assert mapped.is_mapped and not rows.is_mapped
    assert data.count("train") == len(mapped) == len(rows)
    assert list(mapped.texts) == list(rows.texts)
    assert list(mapped.ids) == list(rows.ids)
    assert mapped.labels == rows.labels
    assert mapped.texts[3] == rows.texts[3]
    assert mapped.texts[-1] == rows.texts[-1]
    assert mapped.texts[1:9:3] == rows.texts[1:9:3]
    assert mapped.take([5, 2]) == rows.take([5, 2])
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"label_names": True},
        {"pseudo_labels": {}},
        {"contrastive": {"steps": 2, "hard": 1}},
        {"distill": {"layers": 1}},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_needs_every_row_in_memory_is_refused(
    settings: dict[str, Any], data_dir: Path, tmp_path: Path
) -> None:
    more = {"model_name": "any", "regime": "full-ft", "output_dir": str(tmp_path / "bundle")}
    config = TrainConfig.model_validate(more | {"stream_above": 10} | settings)

    with pytest.raises(ConfigError, match="needs all training sentences in memory") as caught:
        read_rows(config, dataset.load(data_dir))
    assert "more than stream_above (10)" in str(caught.value)


def test_few_of_many_rows_are_in_memory(
    encoder: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    more = {"regime": "head-only", "stream_above": 10, "few_shot": 4, "label_names": True}
    config = train_config(tmp_path / "train.yaml", encoder, data_dir, tmp_path / "bundle", **more)
    assert run(multiregime.main, "--config", config).code == 0


def test_an_evaluation_leaves_many_training_rows_on_disk(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trained_on, "MOST_IN_MEMORY", 10)
    data = dataset.load(data_dir)
    train = trained_on._read_train(data)

    assert train.is_mapped
    texts = [data.read("train").texts[7].upper(), "nothing like it"]
    assert trained_on.find_known(texts, train) == [True, False]
