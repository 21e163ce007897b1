"""Evaluation: the figures against scikit-learn, and what is read, written and refused."""

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
from bankintent.measures.metrics import ConfidenceBin

NO_TRACKING = ("--set", "tracking.enabled=false")
REPORT_FILES = {
    "confusion.png",
    "metrics.json",
    "predictions.parquet",
    "reliability.png",
    "report.md",
}


def test_metrics_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score

    rng = np.random.default_rng(0)
    true = rng.integers(0, 7, 400)
    logits = rng.normal(size=(400, 7)).astype(np.float32)
    logits[np.arange(400), true] += 1.0
    predicted = logits.argmax(axis=1)

    summary = metrics.summary(logits, true)
    assert summary["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert summary["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert summary["top3_accuracy"] == pytest.approx(top_k_accuracy_score(true, logits, k=3))

    # Labels that occur neither in truth nor in prediction do not count.
    few_true = np.array([0, 0, 1])
    few_predicted = np.array([0, 1, 1])
    counts = metrics.confusion(few_true, few_predicted, 5)
    expected = f1_score(few_true, few_predicted, average="macro")
    assert metrics.macro_f1(counts) == pytest.approx(expected)


def test_calibration_error_of_known_cases() -> None:
    confident = np.array([[0.9, 0.1]] * 10)
    nine_right = np.array([0] * 9 + [1])
    four_right = np.array([0] * 4 + [1] * 6)
    error = metrics.expected_calibration_error
    assert error(confident, nine_right) == pytest.approx(0.0)
    assert error(confident, four_right) == pytest.approx(0.5)


def test_bootstrap_intervals_cover_and_ignore_row_order() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 500)
    predicted = np.where(rng.random(500) < 0.8, true, (true + 1) % 3)

    intervals = metrics.bootstrap_intervals(true, predicted, 3, 500, seed=1)
    low, high = intervals["accuracy"]
    assert low < (true == predicted).mean() < high
    normal_width = 2 * 1.96 * (0.8 * 0.2 / 500) ** 0.5
    assert high - low == pytest.approx(normal_width, rel=0.2)

    order = rng.permutation(500)
    shuffled = metrics.bootstrap_intervals(true[order], predicted[order], 3, 500, seed=1)
    assert shuffled == intervals


def hashes(folder: Path) -> dict[str, str]:
    return {name: files.sha256(folder / name) for name in files.list_files(folder)}


def test_evaluation_writes_its_report_and_nothing_into_the_bundle(bundle: Path, run: Run) -> None:
    before = hashes(bundle)
    result = run(evaluate.main, "--checkpoint_path", bundle, *NO_TRACKING)
    assert result.code == 0, result.err
    assert "macro-F1" in result.out

    folder = Path("artifacts/evals/bundle")
    assert set(files.list_files(folder)) == REPORT_FILES
    record = json.loads((folder / "metrics.json").read_text())
    table = pq.read_table(folder / "predictions.parquet").to_pylist()
    assert record["rows"] == len(table) == 6

    is_right = [row["label"] == row["predicted"] for row in table]
    accuracy = record["metrics"]["accuracy"]
    assert accuracy == pytest.approx(np.mean(is_right))
    low, high = record["intervals"]["accuracy"]
    assert low <= accuracy <= high
    assert hashes(bundle) == before


def test_metrics_json_has_its_keys_in_order(bundle: Path, run: Run) -> None:
    assert run(evaluate.main, "--checkpoint_path", bundle, *NO_TRACKING).code == 0
    record = json.loads(Path("artifacts/evals/bundle/metrics.json").read_text())
    assert list(record) == [
        "checkpoint",
        "data",
        "split",
        "rows",
        "metrics",
        "intervals",
        "bootstrap",
        "per_intent",
        "confused_pairs",
        "reliability",
        "machine",
    ]
    assert list(record["checkpoint"]) == ["name", "format", "labels_hash"]
    assert list(record["data"]) == ["name", "data_hash"]
    assert list(record["bootstrap"]) == ["resamples", "seed"]
    assert list(record["machine"]) == ["python", "machine"]


def test_what_a_killed_evaluation_left_is_neither_published_nor_in_the_way(
    bundle: Path, run: Run
) -> None:
    folder = Path("artifacts/evals/bundle")
    words = ("--checkpoint_path", bundle, *NO_TRACKING)
    staging = files.work_dir(folder)
    staging.mkdir(parents=True)
    (staging / ".metrics.json.123.tmp").write_text("{")
    (staging / "confusion.png").write_bytes(b"half a picture")

    assert run(evaluate.main, *words).code == 0
    assert set(files.list_files(folder)) == REPORT_FILES
    assert not staging.exists()

    # Reports of earlier releases may hold such a file.
    (folder / ".metrics.json.123.tmp").write_text("{")
    result = run(evaluate.main, *words)
    assert result.code == 0, result.err
    assert set(files.list_files(folder)) == REPORT_FILES


def test_a_folder_with_a_file_of_somebody_else_is_left_alone(bundle: Path, run: Run) -> None:
    folder = Path("artifacts/evals/bundle")
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    error = run(evaluate.main, "--checkpoint_path", bundle, *NO_TRACKING).one_line_error()
    assert "is no evaluation report: it holds notes.txt" in error
    assert files.list_files(folder) == ["notes.txt"]


def test_every_form_of_a_model_gives_the_same_result(
    bundle: Path, tmp_path: Path, run: Run
) -> None:
    only_adapter = tmp_path / "only_adapter"
    shutil.copytree(bundle, only_adapter)
    shutil.rmtree(only_adapter / "merged")
    plain = tmp_path / "plain"
    shutil.copytree(bundle / "merged", plain)

    options = ("--data-dir", "data", "--output-dir", "r", *NO_TRACKING)
    records = {}
    for path in (bundle, bundle / "merged", only_adapter, plain):
        result = run(evaluate.main, "--checkpoint-path", path, *options)
        assert result.code == 0, result.err
        records[path.name] = json.loads(Path("r/metrics.json").read_text())

    forms = {name: record["checkpoint"]["format"] for name, record in records.items()}
    assert forms == {
        "bundle": "merged",
        "merged": "merged",
        "only_adapter": "base + adapter",
        "plain": "plain checkpoint",
    }
    for record in records.values():
        assert record["metrics"] == pytest.approx(records["bundle"]["metrics"], abs=1e-5)
    assert records["merged"]["checkpoint"]["name"] == "bundle"


def test_batch_size_and_row_order_do_not_change_predictions(bundle: Path) -> None:
    predictor = Predictor.load(bundle)
    sentences = [
        "i lost my card",
        "top up " * 12,
        "exchange",
        "how do i add money to my account",
        "rate",
    ]
    texts = sentences * 4
    together = predictor.logits(texts, batch_size=64)

    alone = np.concatenate([predictor.logits([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)

    order = np.random.default_rng(0).permutation(len(texts))
    shuffled = predictor.logits([texts[i] for i in order], batch_size=3)
    np.testing.assert_allclose(shuffled, together[order], atol=1e-5)
    assert predictor.logits([]).shape == (0, 3)


def test_other_labels_are_refused_with_the_first_difference(
    bundle: Path, tmp_path: Path, run: Run
) -> None:
    pairs = []
    for label in ("card_lost", "Exchange", "pin"):
        pairs += [(f"text {i} {label}", label) for i in range(20)]
    source = write_csv(tmp_path / "other.csv", pairs)
    config = write_yaml(tmp_path / "o.yaml", dataset_name=str(source), output_dir="other")
    assert run(etl.main, "--config", config).code == 0

    words = ("--checkpoint_path", bundle, "--data-dir", "other", *NO_TRACKING)
    message = run(evaluate.main, *words).one_line_error()
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
    plots.reliability_diagram([ConfidenceBin(3, 0.5, 0.4)], 0.1, tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
