"""Students with some of the layers of a trained model, which learn its answers."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ARCHITECTURES, Run, rows, tiny_encoder, train_config

import multiregime
from bankintent.config import DistillSection, TrainConfig
from bankintent.errors import ConfigError, LabelError, ModelError
from bankintent.labels import LabelSchema

LABELS = LabelSchema(("card_lost", "Exchange", "top_up"))
TEXTS = [text for text, _ in rows(6)] + [
    "rate",
    "i want to add funds to the account with the card that i lost today",
]
DEPTH = 5


def classifier(architecture: str, folder: Path, depth: int = DEPTH) -> Any:
    """A random classifier of `depth` layers, saved with its tokenizer as a plain checkpoint, whose answers differ."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(tiny_encoder(architecture, folder))
    config.num_hidden_layers = depth
    config.id2label, config.label2id = LABELS.id2label, LABELS.label2id
    if getattr(config, "layer_types", None):
        config.layer_types = [
            "full_attention",
            "sliding_attention",
            "sliding_attention",
            "full_attention",
        ][:depth]
        config.layer_types += ["sliding_attention"] * (depth - len(config.layer_types))
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    return model.eval()


def answers(model: Any, folder: Path) -> np.ndarray:
    from transformers import AutoTokenizer

    from bankintent.inference.predictor import Predictor

    return Predictor(model, AutoTokenizer.from_pretrained(folder), LABELS).logits(TEXTS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_student_is_its_teacher_without_some_layers_and_loads_plainly(
    architecture: str, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    from bankintent.training.methods.distillation import find_layers, make_student

    teacher = classifier(architecture, tmp_path)
    student, kept = make_student(teacher, 3)
    assert kept == [0, 2, 4]
    assert type(student) is type(teacher)
    assert student.config.num_hidden_layers == 3
    assert teacher.config.num_hidden_layers == DEPTH
    ours, theirs = (model.get_submodule(find_layers(model)) for model in (student, teacher))
    for layer, index in zip(ours, kept, strict=True):
        assert layer.state_dict().keys() == theirs[index].state_dict().keys()
        for name, weight in layer.state_dict().items():
            torch.testing.assert_close(weight, theirs[index].state_dict()[name], rtol=0, atol=0)

    found = answers(student, tmp_path)
    student.save_pretrained(tmp_path / "student")
    loaded, loading = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "student", output_loading_info=True
    )
    assert not any(loading.values()), loading
    assert loaded.config.id2label == LABELS.id2label
    np.testing.assert_array_equal(answers(loaded, tmp_path), found)

    # The teacher with the other layers taken out by hand answers as the student does, and otherwise than before.
    whole = answers(teacher, tmp_path)
    parent, _, last = find_layers(teacher).rpartition(".")
    setattr(
        teacher.get_submodule(parent), last, torch.nn.ModuleList([theirs[index] for index in kept])
    )
    np.testing.assert_allclose(answers(teacher, tmp_path), found, atol=1e-6)
    assert np.abs(whole - found).max() > 1e-3


def test_layers_are_spread_evenly_from_the_first_to_the_last() -> None:
    from bankintent.training.methods.distillation import spread

    assert spread(7, 3) == [0, 3, 6]
    assert spread(12, 6) == [0, 2, 4, 7, 9, 11]  # DistilBERT's own choice of BERT's
    assert spread(6, 1) == [5]
    for depth in range(2, 26):
        for layers in range(1, depth):
            kept = spread(depth, layers)
            gaps = np.diff(kept)
            assert len(kept) == layers
            assert kept[-1] == depth - 1
            assert layers == 1 or (
                kept[0] == 0 and gaps.min() >= 1 and gaps.max() - gaps.min() <= 1
            )


def test_what_cannot_lose_layers_is_refused(tmp_path: Path) -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    from bankintent.training.methods.distillation import make_student

    shared = AlbertConfig(
        vocab_size=30,
        embedding_size=8,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
    )
    with pytest.raises(ModelError, match="a albert model has no list of layers of its own"):
        make_student(AlbertForSequenceClassification(shared), 2)
    # ModernBERT's first layer lacks a norm that the others have.
    with pytest.raises(ModelError, match="not alike"):
        make_student(classifier("modernbert", tmp_path), 1)


def test_the_loss_is_that_of_the_definition() -> None:
    import torch

    from bankintent.training.methods.distillation import TaughtLoss
    from bankintent.training.trainer import IntentLoss

    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 4, 3))
    labels, temperature, weight = np.array([0, 2, 1, 0]), 3.0, 0.7

    def softmax(logits: np.ndarray) -> np.ndarray:
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    p, q = softmax(teacher / temperature), softmax(student / temperature)
    taught = temperature**2 * (p * np.log(p / q)).sum() / 4
    on_labels = -np.log(softmax(student)[np.arange(4), labels]).mean()
    loss = TaughtLoss(
        IntentLoss(0.0, None), DistillSection(layers=1, temperature=temperature, weight=weight)
    )
    outputs, goal = (
        SimpleNamespace(logits=torch.tensor(student)),
        (torch.tensor(labels), torch.tensor(teacher)),
    )
    assert loss(outputs, goal).item() == pytest.approx(
        weight * taught + (1 - weight) * on_labels, rel=1e-5
    )
    assert loss(outputs, goal[0]).item() == pytest.approx(
        on_labels, rel=1e-5
    )  # as validation rows have it
    # Two accumulated half batches sum to the loss of the whole.
    halves = [
        loss(
            SimpleNamespace(logits=outputs.logits[s]),
            (goal[0][s], goal[1][s]),
            num_items_in_batch=4,
        ).item()
        for s in (slice(0, 1), slice(1, 4))
    ]
    assert sum(halves) == pytest.approx(loss(outputs, goal).item(), rel=1e-5)


def test_a_teacher_is_asked_about_every_row_without_dropout(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bankintent.corpus import dataset
    from bankintent.inference.predictor import Predictor
    from bankintent.training import backbones
    from bankintent.training.methods import distillation

    data = dataset.load(data_dir)
    train, val = data.read("train"), data.read("val")
    teacher = classifier("bert", tmp_path / "plain")
    backbone = backbones.load(str(tmp_path / "plain"), data.labels, 32)
    backbone.model.train()
    wanted = DistillSection(layers=3)
    config = TrainConfig(
        model_name=str(tmp_path / "plain"), output_dir=tmp_path / "out", distill=wanted
    )
    lesson = distillation.prepare(config, data, backbone, train, val)
    expected = Predictor(teacher, backbone.tokenizer, data.labels).logits(train.texts + val.texts)
    np.testing.assert_allclose(lesson.logits, expected[: len(train)], atol=1e-5)
    right = expected[len(train) :].argmax(axis=1) == val.labels
    assert lesson.facts["val"]["accuracy"] == pytest.approx(right.mean())
    assert lesson.student.model.config.num_hidden_layers == 3
    assert lesson.facts["kept_layers"] == [1, 3, 5]
    said = capsys.readouterr().out
    assert "its layers 1, 3, 5 of 5" in said
    assert "plain does not record this very data" in " ".join(said.split())


@pytest.fixture(scope="module")
def taught(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle `teacher` of two layers, its data, and the bundle `student` that one of them makes."""
    folder = tmp_path_factory.mktemp("taught")
    shutil.copytree(trained / "data", folder / "data")
    shutil.copytree(trained / "bundle", folder / "teacher")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        distill = {
            "layers": 1,
            "weight": 1.0,
        }  # the labels say nothing: what is learned came with the right row
        config = train_config(
            folder / "student.yaml",
            Path("teacher"),
            Path("data"),
            Path("student"),
            epochs=12,
            lr=1e-3,
            distill=distill,
        )
        multiregime.main(config, regime="full-ft")
    return folder


def test_a_student_moves_towards_its_teacher(taught: Path) -> None:
    import torch

    from bankintent.corpus import dataset
    from bankintent.inference.predictor import Predictor
    from bankintent.training.methods.distillation import divergence, make_student

    teacher, student = (Predictor.load(taught / name) for name in ("teacher", "student"))
    before = Predictor(make_student(teacher.model, 1)[0], teacher.tokenizer, teacher.labels)

    def distance(model: Predictor, texts: list[str]) -> float:
        logits = [torch.from_numpy(predictor.logits(texts)) for predictor in (model, teacher)]
        return divergence(logits[0], logits[1], 1.0).item() / len(texts)

    for split in ("train", "val"):
        texts = dataset.load(taught / "data").read(split).texts
        assert distance(student, texts) < 0.2 * distance(before, texts), split


def test_a_student_is_a_bundle_like_any_other_and_records_its_teacher(taught: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(taught / "student" / "merged")
    assert model.config.num_hidden_layers == 1
    assert list(model.config.id2label.values()) == list(LABELS.names)
    manifest = json.loads((taught / "student" / "manifest.json").read_text())
    assert max(manifest["parity"]["largest_logit_difference"].values()) <= 1e-4
    of_teacher = json.loads((taught / "teacher" / "manifest.json").read_text())
    assert manifest["base_model"] == of_teacher["base_model"]
    record, of_teacher = (
        json.loads((taught / name / "metrics.json").read_text()) for name in ("student", "teacher")
    )
    facts = record["distilled_from"]
    assert facts["name"] == "teacher"
    assert facts["same_data"]
    assert (facts["layers"], facts["kept_layers"]) == (2, [2])
    assert facts["val"]["accuracy"] == of_teacher["metrics"]["val"]["accuracy"]
    assert facts["parameters"] > record["training"]["total_parameters"]
    assert (
        yaml.safe_load((taught / "student" / "config.yaml").read_text())["distill"]["layers"] == 1
    )


def test_another_teacher_makes_another_run(
    taught: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(taught)
    words = ("--config", "student.yaml", "--regime", "full-ft")
    assert "nothing to do" in run(multiregime.main, *words).out
    assert "nothing to do" in run(multiregime.main, *words, "--set", "model_name=teacher").out
    shutil.move("teacher", "kept")
    try:
        retrained = ("--config", "teacher.yaml", "--regime", "full-ft")
        train_config(Path("teacher.yaml"), Path("kept"), Path("data"), Path("teacher"), epochs=1)
        result = run(multiregime.main, *retrained)  # a bundle is a model to start from, too
        assert result.code == 0, result.err
        message = run(multiregime.main, *words).one_line_error()
        assert "it learned from another teacher" in message
    finally:
        shutil.rmtree("teacher", ignore_errors=True)
        shutil.move("kept", "teacher")


def test_runs_without_a_teacher_are_the_same_as_before_there_were_any(
    data_dir: Path, tiny_bert: Path
) -> None:
    from bankintent import configfile
    from bankintent.config import TrainConfig
    from bankintent.corpus import dataset
    from bankintent.training.run import identity

    config = configfile.load(
        TrainConfig, train_config(Path("t.yaml"), tiny_bert, data_dir, Path("out"))
    )
    what = identity(config, dataset.load(data_dir))
    assert set(what) == {"settings", "data_hash", "labels_hash", "model"}
    assert "distill" not in what["settings"]


@pytest.mark.parametrize(
    ("settings", "regime", "expected"),
    [
        ({}, "lora", "regime full-ft, not lora"),
        ({}, "head-only", "regime full-ft, not head-only"),
        ({"contrastive": {}}, "full-ft", "remove contrastive"),
        ({"head_init": "probe"}, "full-ft", "remove head_init: probe"),
        ({"pooling": "mean"}, "full-ft", "remove pooling: mean"),
        (
            {"distill": {"layers": 2}},
            "full-ft",
            "distill.layers is 2, and the teacher teacher has 2",
        ),
        (
            {"distill": {"layers": 0}},
            "full-ft",
            "distill.layers: input should be greater than or equal to 1",
        ),
        (
            {"distill": {"layers": 1, "weight": 0}},
            "full-ft",
            "distill.weight: input should be greater than 0",
        ),
        ({"distill": {}}, "full-ft", 'the key "distill.layers" is missing'),
        (
            {"model_name": "bundled/all-MiniLM-L6-v2"},
            "full-ft",
            "bundled/all-MiniLM-L6-v2 is no folder",
        ),
        ({"model_name": "."}, "full-ft", "is no bundle (no manifest.json) and no checkpoint"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    settings: dict[str, Any],
    regime: str,
    expected: str,
    taught: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(taught)
    values = {"distill": {"layers": 1}} | settings
    config = train_config(
        taught / "wrong.yaml", Path("teacher"), Path("data"), Path("other"), **values
    )
    assert (
        expected in run(multiregime.main, "--config", config, "--regime", regime).one_line_error()
    )
    assert not list(taught.glob("other*"))


def test_a_teacher_must_know_the_labels_of_the_data_and_be_whole(
    taught: Path, tmp_path: Path
) -> None:
    from bankintent.training import backbones
    from bankintent.training.methods import distillation

    def open_teacher(
        folder: Path, labels: LabelSchema = LABELS, layers: int = 1
    ) -> distillation.Teacher:
        wanted = DistillSection(layers=layers)
        return distillation.open_teacher(
            TrainConfig(model_name=str(folder), output_dir="out", distill=wanted), labels
        )

    assert open_teacher(taught / "teacher") == open_teacher(taught / "teacher" / "merged")
    swapped = LabelSchema(("Exchange", "card_lost", "top_up"))
    with pytest.raises(LabelError, match='id 0 is "card_lost" against "Exchange"'):
        open_teacher(taught / "teacher", swapped)
    with pytest.raises(LabelError, match="names no labels"):
        open_teacher(tiny_encoder("bert", tmp_path / "encoder"))

    adapter = shutil.copytree(taught / "teacher", tmp_path / "adapter")
    shutil.rmtree(adapter / "merged")
    with pytest.raises(ModelError, match="holds no merged/"):
        open_teacher(adapter)
    with pytest.raises(ModelError, match="holds no merged/"):
        backbones.locate(str(adapter))
    assert backbones.locate(str(taught / "teacher"))[0] == str(taught / "teacher" / "merged")
    changed = shutil.copytree(taught / "teacher", tmp_path / "changed")
    weights = changed / "merged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    for opened in (open_teacher, lambda folder: backbones.locate(str(folder))):
        with pytest.raises(ModelError, match=r"model\.safetensors was changed"):
            opened(changed)

    plain = tmp_path / "plain"
    classifier("bert", plain)
    teacher = open_teacher(plain, LABELS, DEPTH - 1)
    assert (teacher.name, teacher.base_model) == ("plain", str(plain))
    with pytest.raises(ConfigError, match=f"the teacher plain has {DEPTH}"):
        open_teacher(plain, LABELS, DEPTH)


def test_an_encoder_that_was_given_labels_is_no_teacher(
    data_dir: Path, tmp_path: Path, run: Run
) -> None:
    encoder = tiny_encoder("bert", tmp_path / "encoder")
    config = json.loads((encoder / "config.json").read_text())
    named = config | {
        "id2label": {str(i): name for i, name in LABELS.id2label.items()},
        "label2id": LABELS.label2id,
    }
    (encoder / "config.json").write_text(json.dumps(named))
    path = train_config(
        tmp_path / "t.yaml", encoder, data_dir, tmp_path / "bundle", distill={"layers": 1}
    )
    message = run(multiregime.main, "--config", path, "--regime", "full-ft").one_line_error()
    assert "was not trained: it lacks classifier" in message
    assert not (tmp_path / "bundle").exists()
