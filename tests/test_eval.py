"""Evaluation: the figures against scikit-learn, what is read, what is written, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Run, write_csv, write_yaml

import etl
import eval as evaluate
from bankintent import files
from bankintent.bundle import layout
from bankintent.errors import ModelError
from bankintent.inference.predictor import Predictor
from bankintent.measures import metrics, plots

NO_TRACKING = ("--set", "tracking.enabled=false")


def test_metrics_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score

    rng = np.random.default_rng(0)
    true = rng.integers(0, 7, 400)
    logits = rng.normal(size=(400, 7)).astype(np.float32)
    logits[np.arange(400), true] += 1.0
    found = metrics.summary(logits, true)
    predicted = logits.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert found["top3_accuracy"] == pytest.approx(top_k_accuracy_score(true, logits, k=3))
    rare = np.array([0, 0, 1]), np.array([0, 1, 1])
    assert metrics.macro_f1(metrics.confusion(*rare, 5)) == pytest.approx(
        f1_score(*rare, average="macro")
    )


def test_calibration_error_of_known_cases() -> None:
    confident = np.array([[0.9, 0.1]] * 10)
    assert metrics.expected_calibration_error(confident, np.array([0] * 9 + [1])) == pytest.approx(
        0.0
    )
    assert metrics.expected_calibration_error(
        confident, np.array([0] * 4 + [1] * 6)
    ) == pytest.approx(0.5)


def test_bootstrap_intervals_cover_and_ignore_row_order() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 500)
    predicted = np.where(rng.random(500) < 0.8, true, (true + 1) % 3)
    found = metrics.bootstrap_intervals(true, predicted, 3, 500, seed=1)
    low, high = found["accuracy"]
    assert low < (true == predicted).mean() < high
    assert pytest.approx(high - low, rel=0.2) == 2 * 1.96 * (0.8 * 0.2 / 500) ** 0.5
    order = rng.permutation(500)
    assert metrics.bootstrap_intervals(true[order], predicted[order], 3, 500, seed=1) == found


def test_evaluation_writes_its_report_and_nothing_into_the_bundle(bundle: Path, run: Run) -> None:
    before = {name: files.sha256(bundle / name) for name in files.list_files(bundle)}
    result = run(evaluate.main, "--checkpoint_path", bundle, *NO_TRACKING)
    assert result.code == 0, result.err
    assert "macro-F1" in result.out
    folder = Path("artifacts/evals/bundle")
    names = {"confusion.png", "metrics.json", "predictions.parquet", "reliability.png", "report.md"}
    assert set(files.list_files(folder)) == names
    record = json.loads((folder / "metrics.json").read_text())
    table = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert record["rows"] == len(table) == 6
    assert record["metrics"]["accuracy"] == pytest.approx(
        np.mean([r["label"] == r["predicted"] for r in table])
    )
    low, high = record["intervals"]["accuracy"]
    assert low <= record["metrics"]["accuracy"] <= high
    assert before == {name: files.sha256(bundle / name) for name in files.list_files(bundle)}


def test_every_form_of_a_model_gives_the_same_result(
    bundle: Path, tmp_path: Path, run: Run
) -> None:
    only_adapter, plain = tmp_path / "only_adapter", tmp_path / "plain"
    shutil.copytree(bundle, only_adapter)
    shutil.rmtree(only_adapter / "merged")
    shutil.copytree(bundle / "merged", plain)
    found = {}
    for path in (bundle, bundle / "merged", only_adapter, plain):
        result = run(
            evaluate.main,
            "--checkpoint-path",
            path,
            "--data-dir",
            "data",
            "--output-dir",
            "r",
            *NO_TRACKING,
        )
        assert result.code == 0, result.err
        found[path.name] = json.loads(Path("r/metrics.json").read_text())
    forms = {name: record["checkpoint"]["format"] for name, record in found.items()}
    assert forms == {
        "bundle": "merged",
        "merged": "merged",
        "only_adapter": "base + adapter",
        "plain": "plain checkpoint",
    }
    for record in found.values():
        assert record["metrics"] == pytest.approx(found["bundle"]["metrics"], abs=1e-5)
    assert found["merged"]["checkpoint"]["name"] == "bundle"


def test_batch_size_and_row_order_do_not_change_predictions(bundle: Path) -> None:
    predictor = Predictor.load(bundle)
    texts = [
        "i lost my card",
        "top up " * 12,
        "exchange",
        "how do i add money to my account",
        "rate",
    ] * 4
    together = predictor.logits(texts, batch_size=64)
    alone = np.concatenate([predictor.logits([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_allclose(
        predictor.logits([texts[i] for i in order], 3), together[order], atol=1e-5
    )
    assert predictor.logits([]).shape == (0, 3)


def test_other_labels_are_refused_with_the_first_difference(
    bundle: Path, tmp_path: Path, run: Run
) -> None:
    pairs = [
        (f"text {i} {label}", label)
        for label in ("card_lost", "Exchange", "pin")
        for i in range(20)
    ]
    source = write_csv(tmp_path / "other.csv", pairs)
    config = write_yaml(tmp_path / "o.yaml", dataset_name=str(source), output_dir="other")
    assert run(etl.main, "--config", config).code == 0
    message = run(
        evaluate.main, "--checkpoint_path", bundle, "--data-dir", "other", *NO_TRACKING
    ).one_line_error()
    assert 'id 2 is "top_up" against "pin"' in message
    assert not Path("artifacts/evals").exists()


def test_changed_data_under_the_recorded_path_is_refused(
    bundle: Path, tmp_path: Path, run: Run
) -> None:
    assert run(etl.main, "--config", tmp_path / "data.yaml", "--set", "seed=99").code == 0
    message = run(evaluate.main, "--checkpoint_path", bundle, *NO_TRACKING).one_line_error()
    assert "no longer holds the data" in message


def test_a_checkpoint_without_labels_is_refused(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    model.save_pretrained(tmp_path / "plain")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "plain")
    words = ("--checkpoint_path", tmp_path / "plain", "--data-dir", data_dir, *NO_TRACKING)
    assert "names no labels" in run(evaluate.main, *words).one_line_error()
    shutil.copy(data_dir / "labels.json", tmp_path / "plain" / "labels.json")
    assert run(evaluate.main, *words).code == 0


def test_an_encoder_without_its_classifier_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    from bankintent.labels import LabelSchema

    shutil.copytree(tiny_bert, tmp_path / "encoder")
    LabelSchema(("no", "yes")).save(tmp_path / "encoder" / "labels.json")
    with pytest.raises(ModelError, match=r"lacks weights of the classifier \(classifier.bias"):
        Predictor.load(tmp_path / "encoder")
    (tmp_path / "encoder" / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Predictor.load(tmp_path / "encoder")


@pytest.mark.parametrize(
    "fault", ["changed", "added", "missing", "truncated", "labels", "manifest"]
)
def test_a_tampered_bundle_is_refused_by_file(fault: str, bundle: Path) -> None:
    weights = bundle / "merged" / "model.safetensors"
    match fault:
        case "changed":
            content = bytearray(weights.read_bytes())
            content[-1] ^= 1
            weights.write_bytes(content)
        case "added":
            (bundle / "merged" / "extra.bin").write_bytes(b"x")
        case "missing":
            (bundle / "merged" / "config.json").unlink()
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-10])
        case "labels":
            (bundle / "labels.json").write_text("{}")
        case "manifest":
            (bundle / "manifest.json").write_text("[]")
    with pytest.raises(ModelError):
        layout.open_checkpoint(bundle)


def test_an_adapter_alone_is_refused_with_what_is_missing(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle / "adapter", tmp_path / "alone")
    with pytest.raises(ModelError, match="adapter without its base model"):
        layout.open_checkpoint(tmp_path / "alone")
    shutil.rmtree(bundle / "merged")
    shutil.rmtree(bundle / "base_3")
    with pytest.raises(ModelError, match="neither merged/ nor base_3/"):
        layout.open_checkpoint(bundle)


def test_pictures_survive_any_label_name(tmp_path: Path) -> None:
    names = ("reverted_card_payment?", "a $ b_$ {", "<b>bold</b>", "\u00fcber")
    counts = np.diag([5, 0, 3, 1])
    plots.confusion_matrix(counts, names, tmp_path / "a.png", "run $x$")
    plots.reliability_diagram(
        [{"rows": 3, "confidence": 0.5, "accuracy": 0.4}], 0.1, tmp_path / "b.png"
    )
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
