"""Students with some of the layers of a trained model, which learn its answers."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Run, train_config
from scipy.special import softmax
from tiny_models import ARCHITECTURES, rows, tiny_encoder

import multiregime
from bankintent.config import DistillSection, TrainConfig
from bankintent.errors import ConfigError, LabelError, ModelError
from bankintent.labels import LabelSchema

LABELS = LabelSchema(("card_lost", "Exchange", "top_up"))
TEXTS = [
    *(text for text, _ in rows(6)),
    "rate",
    "i want to add funds to the account with the card that i lost today",
]
DEPTH = 5
LAYER_TYPES = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
"""Of a ModernBERT; further layers are sliding."""


def classifier(architecture: str, folder: Path) -> Any:
    """A random classifier of DEPTH layers whose answers differ, saved as a plain checkpoint."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(tiny_encoder(architecture, folder))
    config.num_hidden_layers = DEPTH
    config.id2label = LABELS.id2label
    config.label2id = LABELS.label2id
    if getattr(config, "layer_types", None):
        config.layer_types = [*LAYER_TYPES, "sliding_attention"]

    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config)
    # Larger weights than transformers draws, with which all texts would get nearly one answer.
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    return model.eval()


def answers(model: Any, folder: Path) -> np.ndarray:
    """The model's logits for TEXTS, with the tokenizer in `folder`."""
    from transformers import AutoTokenizer

    from bankintent.inference.predictor import Predictor

    return Predictor(model, AutoTokenizer.from_pretrained(folder), LABELS).logits(TEXTS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_student_has_some_of_its_teachers_layers(architecture: str, tmp_path: Path) -> None:
    import torch

    from bankintent.training.methods.distillation import find_layers, make_student

    teacher = classifier(architecture, tmp_path)
    student, indices = make_student(teacher, 3)
    assert indices == [0, 2, 4]
    assert type(student) is type(teacher)
    assert student.config.num_hidden_layers == 3
    assert teacher.config.num_hidden_layers == DEPTH

    student_layers = student.get_submodule(find_layers(student))
    teacher_layers = teacher.get_submodule(find_layers(teacher))
    for layer, index in zip(student_layers, indices, strict=True):
        expected = teacher_layers[index].state_dict()
        assert layer.state_dict().keys() == expected.keys()
        for name, weight in layer.state_dict().items():
            torch.testing.assert_close(weight, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_student_loads_plainly_and_answers_as_before(architecture: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    from bankintent.training.methods.distillation import make_student

    student, _ = make_student(classifier(architecture, tmp_path), 3)
    expected = answers(student, tmp_path)
    student.save_pretrained(tmp_path / "student")
    loaded, loading = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "student", output_loading_info=True
    )
    assert not any(loading.values()), loading
    assert loaded.config.id2label == LABELS.id2label
    np.testing.assert_array_equal(answers(loaded, tmp_path), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_student_answers_as_its_teacher_with_the_other_layers_taken_out(
    architecture: str, tmp_path: Path
) -> None:
    import torch

    from bankintent.training.methods.distillation import find_layers, make_student

    teacher = classifier(architecture, tmp_path)
    student, indices = make_student(teacher, 3)
    expected = answers(student, tmp_path)
    assert np.abs(answers(teacher, tmp_path) - expected).max() > 1e-3

    place = find_layers(teacher)
    layers = teacher.get_submodule(place)
    parent, _, name = place.rpartition(".")
    fewer = torch.nn.ModuleList([layers[index] for index in indices])
    setattr(teacher.get_submodule(parent), name, fewer)
    np.testing.assert_allclose(answers(teacher, tmp_path), expected, atol=1e-6)


@pytest.mark.parametrize("marked", [True, False])
def test_a_student_keeps_the_layer_that_takes_the_mean(
    marked: bool, tiny_bert: Path, tmp_path: Path
) -> None:
    from bankintent.training import backbones
    from bankintent.training.methods.distillation import make_student
    from bankintent.training.pooling import MARKER

    teacher = backbones.load_backbone(str(tiny_bert), LABELS, 32, pooling="mean")
    student, indices = make_student(teacher.model, 2)
    assert indices == [0, 2]
    if not marked:
        # As in a bundle that was made before there was a marker.
        delattr(student.config, MARKER)
    student.save_pretrained(tmp_path / "student")
    teacher.tokenizer.save_pretrained(tmp_path / "student")

    again = backbones.load_backbone(str(tmp_path / "student"), LABELS, 32, pooling="mean")
    assert again.took_mean
    assert again.model.config.num_hidden_layers == 2
    assert again.kept_rows == len(LABELS)


def test_layers_are_spread_evenly_from_the_first_to_the_last() -> None:
    from bankintent.training.methods.distillation import spread

    assert spread(7, 3) == [0, 3, 6]
    assert spread(12, 6) == [0, 2, 4, 7, 9, 11]  # DistilBERT's own choice of BERT's
    assert spread(6, 1) == [5]

    for depth in range(3, 26):
        for layers in range(2, depth):
            indices = spread(depth, layers)
            assert len(indices) == layers
            assert indices[0] == 0
            assert indices[-1] == depth - 1

            gaps = np.diff(indices)
            assert gaps.min() >= 1
            assert gaps.max() - gaps.min() <= 1


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

    from bankintent.training.losses import IntentLoss
    from bankintent.training.methods.distillation import TaughtLoss

    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 4, 3))
    labels = np.array([0, 2, 1, 0])
    p = softmax(teacher / 3, axis=1)
    q = softmax(student / 3, axis=1)
    on_teacher = 3**2 * (p * np.log(p / q)).sum() / 4
    on_labels = -np.log(softmax(student, axis=1)[np.arange(4), labels]).mean()

    section = DistillSection(layers=1, temperature=3.0, weight=0.7)
    loss = TaughtLoss(IntentLoss(0.0, None), section)
    outputs = SimpleNamespace(logits=torch.tensor(student))
    goal = (torch.tensor(labels), torch.tensor(teacher))
    whole = loss(outputs, goal).item()
    assert whole == pytest.approx(0.7 * on_teacher + 0.3 * on_labels, rel=1e-5)
    # Validation rows come without a teacher.
    assert loss(outputs, goal[0]).item() == pytest.approx(on_labels, rel=1e-5)

    # Two accumulated parts of a batch sum to the loss of the whole.
    total = 0.0
    for part in (slice(0, 1), slice(1, 4)):
        part_outputs = SimpleNamespace(logits=outputs.logits[part])
        part_goal = (goal[0][part], goal[1][part])
        total += loss(part_outputs, part_goal, num_items_in_batch=4).item()
    assert total == pytest.approx(whole, rel=1e-5)


def test_a_teacher_is_asked_about_every_row_without_dropout(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bankintent.corpus import dataset
    from bankintent.inference.predictor import Predictor
    from bankintent.training import backbones
    from bankintent.training.methods import distillation

    data = dataset.load(data_dir)
    train = data.read("train")
    val = data.read("val")
    teacher = classifier("bert", tmp_path / "plain")
    backbone = backbones.load_backbone(str(tmp_path / "plain"), data.labels, 32)
    backbone.model.train()
    config = TrainConfig(
        model_name=str(tmp_path / "plain"),
        regime="full-ft",
        output_dir=tmp_path / "out",
        distill=DistillSection(layers=3),
    )

    lesson = distillation.prepare_student(config, data, backbone, train, val)
    expected = Predictor(teacher, backbone.tokenizer, data.labels).logits(train.texts + val.texts)
    np.testing.assert_allclose(lesson.logits, expected[: len(train)], atol=1e-5)
    right = expected[len(train) :].argmax(axis=1) == val.labels

    assert lesson.teacher.val["accuracy"] == pytest.approx(right.mean())
    assert lesson.student.model.config.num_hidden_layers == 3
    assert lesson.teacher.kept_layers == [1, 3, 5]
    output = " ".join(capsys.readouterr().out.split())
    assert "its layers 1, 3, 5 of 5" in output
    assert "plain does not record this very data" in output


@pytest.fixture(scope="module")
def taught(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, a bundle `teacher` of two layers and its `student` of one."""
    folder = tmp_path_factory.mktemp("taught")
    shutil.copytree(trained / "data", folder / "data")
    shutil.copytree(trained / "bundle", folder / "teacher")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # The labels weigh nothing: what is learned are the teacher's answers to the right rows.
        distill = {"layers": 1, "weight": 1.0}
        config = train_config(
            folder / "student.yaml",
            Path("teacher"),
            Path("data"),
            Path("student"),
            epochs=12,
            lr=1e-3,
            distill=distill,
            # The whole lesson: on few validation rows an early epoch is as right as the last.
            keep="last",
        )
        multiregime.main(config, regime="full-ft")
    return folder


def test_a_student_moves_towards_its_teacher(taught: Path) -> None:
    import torch

    from bankintent.corpus import dataset
    from bankintent.inference.predictor import Predictor
    from bankintent.training.methods.distillation import divergence, make_student

    teacher = Predictor.load(taught / "teacher")
    student = Predictor.load(taught / "student")
    untrained, _ = make_student(teacher.model, 1)
    before = Predictor(untrained, teacher.tokenizer, teacher.labels)

    def distance(model: Predictor, texts: list[str]) -> float:
        own = torch.from_numpy(model.logits(texts))
        expected = torch.from_numpy(teacher.logits(texts))
        return divergence(own, expected, 1.0).item() / len(texts)

    for split in ("train", "val"):
        texts = dataset.load(taught / "data").read(split).texts
        assert distance(student, texts) < 0.2 * distance(before, texts), split


def test_a_student_is_a_bundle_like_any_other_and_records_its_teacher(taught: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(taught / "student" / "merged")
    assert model.config.num_hidden_layers == 1
    assert list(model.config.id2label.values()) == list(LABELS.names)

    manifest = json.loads((taught / "student" / "manifest.json").read_text())
    teacher_manifest = json.loads((taught / "teacher" / "manifest.json").read_text())
    assert max(manifest["parity"]["largest_logit_difference"].values()) <= 1e-4
    assert manifest["base_model"] == teacher_manifest["base_model"]

    record = json.loads((taught / "student" / "metrics.json").read_text())
    teacher_record = json.loads((taught / "teacher" / "metrics.json").read_text())
    facts = record["distilled_from"]
    assert facts["name"] == "teacher"
    assert facts["same_data"]
    assert facts["layers"] == 2
    assert facts["kept_layers"] == [2]
    assert facts["val"]["accuracy"] == teacher_record["metrics"]["val"]["accuracy"]
    assert facts["parameters"] > record["training"]["total_parameters"]

    settings = yaml.safe_load((taught / "student" / "config.yaml").read_text())
    assert settings["distill"]["layers"] == 1


def test_another_teacher_makes_another_run(
    taught: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(taught)
    student = ("--config", "student.yaml", "--regime", "full-ft")
    assert "nothing to do" in run(multiregime.main, *student).out
    assert "nothing to do" in run(multiregime.main, *student, "--set", "model_name=teacher").out

    shutil.move("teacher", "first")
    try:
        # A bundle is a model to start from, too.
        train_config(Path("teacher.yaml"), Path("first"), Path("data"), Path("teacher"), epochs=1)
        result = run(multiregime.main, "--config", "teacher.yaml", "--regime", "full-ft")
        assert result.code == 0, result.err
        message = run(multiregime.main, *student).one_line_error()
        assert "it learned from another teacher" in message
    finally:
        shutil.rmtree("teacher", ignore_errors=True)
        shutil.move("first", "teacher")


def test_runs_without_a_teacher_are_the_same_as_before_there_were_any(
    data_dir: Path, tiny_bert: Path
) -> None:
    from bankintent import configfile
    from bankintent.config import TrainConfig
    from bankintent.corpus import dataset
    from bankintent.training.identity import identity

    config = configfile.load(
        TrainConfig,
        train_config(Path("t.yaml"), tiny_bert, data_dir, Path("out")),
        regime="full-ft",
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
    message = run(multiregime.main, "--config", config, "--regime", regime).one_line_error()
    assert expected in message
    assert not list(taught.glob("other*"))


def open_teacher(folder: Path, labels: LabelSchema = LABELS, layers: int = 1) -> Any:
    """The teacher in a folder, for a student of that many layers."""
    from bankintent.training.methods import distillation

    section = DistillSection(layers=layers)
    config = TrainConfig(
        model_name=str(folder), regime="full-ft", output_dir="out", distill=section
    )
    return distillation.open_teacher(config, labels)


def test_a_teacher_must_know_the_labels_of_the_data(taught: Path, tmp_path: Path) -> None:
    assert open_teacher(taught / "teacher") == open_teacher(taught / "teacher" / "merged")

    swapped = LabelSchema(("Exchange", "card_lost", "top_up"))
    with pytest.raises(LabelError, match='id 0 is "card_lost" against "Exchange"'):
        open_teacher(taught / "teacher", swapped)
    with pytest.raises(LabelError, match="names no labels"):
        open_teacher(tiny_encoder("bert", tmp_path / "encoder"))


def test_a_teacher_must_be_whole(taught: Path, tmp_path: Path) -> None:
    from bankintent.training import backbones

    adapter = shutil.copytree(taught / "teacher", tmp_path / "adapter")
    shutil.rmtree(adapter / "merged")
    with pytest.raises(ModelError, match="holds no merged/"):
        open_teacher(adapter)
    with pytest.raises(ModelError, match="holds no merged/"):
        backbones.locate(str(adapter))
    place, _ = backbones.locate(str(taught / "teacher"))
    assert place == str(taught / "teacher" / "merged")

    changed = shutil.copytree(taught / "teacher", tmp_path / "changed")
    weights = changed / "merged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=r"model\.safetensors was changed"):
        open_teacher(changed)
    with pytest.raises(ModelError, match=r"model\.safetensors was changed"):
        backbones.locate(str(changed))


def test_a_teacher_has_more_layers_than_its_student(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    classifier("bert", plain)
    teacher = open_teacher(plain, LABELS, DEPTH - 1)
    assert teacher.name == "plain"
    assert teacher.base_model == str(plain)

    with pytest.raises(ConfigError, match=f"the teacher plain has {DEPTH}"):
        open_teacher(plain, LABELS, DEPTH)


def test_an_encoder_that_was_given_labels_is_no_teacher(
    data_dir: Path, tmp_path: Path, run: Run
) -> None:
    encoder = tiny_encoder("bert", tmp_path / "encoder")
    config = json.loads((encoder / "config.json").read_text())
    config["id2label"] = {str(index): name for index, name in LABELS.id2label.items()}
    config["label2id"] = LABELS.label2id
    (encoder / "config.json").write_text(json.dumps(config))
    path = train_config(
        tmp_path / "t.yaml", encoder, data_dir, tmp_path / "bundle", distill={"layers": 1}
    )
    message = run(multiregime.main, "--config", path, "--regime", "full-ft").one_line_error()
    assert "was not trained: it lacks classifier" in message
    assert not (tmp_path / "bundle").exists()
