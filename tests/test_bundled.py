"""The embedded default: the dataset is complete, clean and its own; the backbone is the published one."""

import importlib.util
import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from conftest import DATASETS, REPOSITORY, needs_datasets

from bankintent.errors import ModelError
from bankintent.labels import LabelSchema
from bankintent.texts import fold, normalise


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "check", REPOSITORY / "data" / "bundled" / "check.py"
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_intent_has_enough_clean_different_sentences(check: ModuleType) -> None:
    texts, labels = check.read(check.BUNDLED)
    counts = Counter(labels)
    assert len(counts) == 77
    assert min(counts.values()) >= 30
    assert all(text == fold(text) for text in texts)
    assert len({normalise(text) for text in texts}) == len(texts)
    described = (REPOSITORY / "data" / "bundled" / "INTENTS.md").read_text(encoding="utf-8")
    assert all(f"- **{label}**:" in described for label in counts)


@needs_datasets
def test_no_sentence_is_one_of_banking77(check: ModuleType) -> None:
    known: set[str] = set()
    for split in ("train", "test"):
        texts, _ = check.read(DATASETS / "banking77" / f"{split}.csv")
        known |= {normalise(text) for text in texts}
    ours, _ = check.read(check.BUNDLED)
    assert not known & {normalise(text) for text in ours}


@pytest.mark.proof
@needs_datasets
def test_no_sentence_repeats_or_closely_paraphrases_banking77(check: ModuleType) -> None:
    figures = check.compare(DATASETS / "banking77")
    assert figures["same after normalisation"] == 0
    assert figures["highest similarity to a BANKING77 row"] < check.PARAPHRASE == 0.90
    ours, theirs = (
        figures[f"mean similarity within intents, {name}"]
        for name in ("bundled", "BANKING77 train")
    )
    assert ours < theirs  # no templates: at least as varied as the real thing


@needs_datasets
def test_the_labels_are_those_of_banking77(check: ModuleType) -> None:
    ours, theirs = (
        set(check.read(path)[1]) for path in (check.BUNDLED, DATASETS / "banking77" / "test.csv")
    )
    assert LabelSchema.from_names(ours).hash == LabelSchema.from_names(theirs).hash


def test_a_changed_weight_file_of_the_backbone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.training import backbones

    real = backbones.bundled_folder()
    package = tmp_path / backbones.BUNDLED_PACKAGE
    shutil.copytree(real, package / "model")
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda _: importlib.machinery.PathFinder.find_spec(package.name, [str(tmp_path)]),
    )
    assert backbones.bundled_folder() == package / "model"
    with (package / "model" / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError, match="sha256 differs"):
        backbones.bundled_folder()
    shutil.rmtree(package)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="not installed"):
        backbones.bundled_folder()
