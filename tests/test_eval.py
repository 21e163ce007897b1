"""Evaluation: the figures against scikit-learn, and what is read, written and refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run, write_csv, write_yaml
from tiny_models import rows

import etl
import eval as evaluate
from bankintent import files
from bankintent.bundle import layout
from bankintent.corpus import suspected_test
from bankintent.corpus.suspected_test import SuspectedRow, SuspectedTest
from bankintent.errors import ConfigError, LabelError, ModelError
from bankintent.inference import label_names, labelled, trained_on
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema
from bankintent.measures import calibration, metrics, plots
from bankintent.measures.calibration import ConfidenceBin
from bankintent.measures.confusion_plots import draw_confusion

NO_TRACKING = ("--set", "tracking.enabled=false")
REPORT_FILES = {
    "confusion.png",
    "metrics.json",
    "predictions.parquet",
    "reliability.png",
    "risk-coverage.png",
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
    confident = np.array([0.9] * 10)
    nine_right = np.array([True] * 9 + [False])
    four_right = np.array([True] * 4 + [False] * 6)
    error = calibration.expected_calibration_error
    assert error(confident, nine_right) == pytest.approx(0.0)
    assert error(confident, four_right) == pytest.approx(0.5)


def test_bootstrap_intervals_cover_and_ignore_row_order() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 500)
    predicted = np.where(rng.random(500) < 0.8, true, (true + 1) % 3)

    intervals = metrics.bootstrap_intervals(true, predicted, 3, metrics.Bootstrap(500, seed=1))
    low, high = intervals["accuracy"]
    assert low < (true == predicted).mean() < high
    normal_width = 2 * 1.96 * (0.8 * 0.2 / 500) ** 0.5
    assert high - low == pytest.approx(normal_width, rel=0.2)

    order = rng.permutation(500)
    shuffled = metrics.bootstrap_intervals(
        true[order], predicted[order], 3, metrics.Bootstrap(500, seed=1)
    )
    assert shuffled == intervals


@pytest.mark.parametrize("repeats", [1, 3])
def test_answers_without_a_mistake_have_the_exact_interval_of_a_share(repeats: int) -> None:
    true = np.tile(np.arange(145) % 24, repeats)
    bootstrap = metrics.Bootstrap(50, seed=1, repeats=repeats)
    intervals = metrics.bootstrap_intervals(true, true, 24, bootstrap)
    # With no mistake the lower end is (0.05 / 2) to the power of 1 / rows, of sentences.
    assert intervals == {"accuracy": [pytest.approx(0.025 ** (1 / 145)), 1.0]}

    all_wrong = metrics.bootstrap_intervals(true, (true + 1) % 24, 24, bootstrap)
    assert all_wrong == {"accuracy": [0.0, pytest.approx(1 - 0.025 ** (1 / 145))]}

    values = {"accuracy": 1.0, "macro_f1": 1.0, "top3_accuracy": 1.0, "ece": 0.0, "nll": 0.0}
    _, rows = metrics.overview(values, intervals)
    assert rows[0] == ["accuracy", "100.00 %", "97.49 to 100.00 %"]
    assert rows[1] == ["macro-F1", "100.00 %", ""]


def test_intervals_are_those_of_resampled_confusion_matrices() -> None:
    rng = np.random.default_rng(3)
    true = rng.integers(0, 4, 60)
    # Label 4 has no rows, and is predicted all the same.
    predicted = np.where(rng.random(60) < 0.7, true, 4)
    intervals = metrics.bootstrap_intervals(true, predicted, 5, metrics.Bootstrap(200, seed=9))

    draws = np.random.default_rng(9)
    cells = np.sort(5 * true + predicted)
    accuracies = []
    f1s = []
    for _ in range(200):
        sample = draws.choice(cells, size=60)
        counts = np.bincount(sample, minlength=25).reshape(5, 5)
        accuracies.append(np.trace(counts) / 60)
        f1s.append(metrics.macro_f1(counts, metrics.occurring(true, 5)))
    assert intervals["accuracy"] == pytest.approx(np.quantile(accuracies, (0.025, 0.975)))
    assert intervals["macro_f1"] == pytest.approx(np.quantile(f1s, (0.025, 0.975)))


def test_macro_f1_of_a_summary_is_over_the_intents_that_have_rows() -> None:
    from sklearn.metrics import f1_score

    true = np.array([0, 0, 0, 1, 1, 3])
    predicted = np.array([0, 0, 2, 1, 0, 3])
    logits = np.eye(5, dtype=np.float32)[predicted]
    expected = f1_score(true, predicted, labels=[0, 1, 3], average="macro")
    assert metrics.summary(logits, true)["macro_f1"] == pytest.approx(expected)


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
        "calibration",
        "selective",
        "policy",
        "out_of_scope",
        "slices",
        "machine",
        "absent_intents",
        "refused_rows",
        "trained_on",
        "cross",
        "trivial",
        "no_trivial",
        "wrong",
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


def test_other_labels_are_refused_with_the_names_that_differ(
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
    assert '"pin" (2 x' in message
    assert "1 of " in message and '"top_up"' in message
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
    names = ("reverted_card_payment?", "a $ b_$ {", "<b>bold</b>", "\u00fcber", "\u610f\u56fe")
    counts = np.diag([5, 0, 3, 1, 2])
    draw_confusion(counts, names, tmp_path, "run $x$")
    plots.reliability_diagram([ConfidenceBin(3, 0.5, 0.4)], 0.1, tmp_path / "b.png")
    for name in ("confusion.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def read_tested(folder: str = "data") -> list[tuple[str, str]]:
    """(text, intent) of the test split that ETL wrote."""
    table = pq.read_table(f"{folder}/test.parquet").to_pylist()
    return [(row["text"], row["label_text"]) for row in table]


def record_of(run: Run, *words: object) -> dict[str, Any]:
    """metrics.json of an evaluation of the small bundle."""
    command = ("--checkpoint_path", "bundle", "--output-dir", "r", *words, *NO_TRACKING)
    result = run(evaluate.main, *command)
    assert result.code == 0, result.err
    record: dict[str, Any] = json.loads(Path("r/metrics.json").read_text())
    return record


def test_a_second_figure_leaves_out_suspected_rows_and_is_marked(bundle: Path, run: Run) -> None:
    official = record_of(run)
    assert "cleaned" not in official
    wrong = pq.read_table("r/predictions.parquet").to_pylist()[0]
    text = read_tested()[0][0]
    row = SuspectedRow(wrong["id"], files.sha256_text(text), wrong["label"])
    content = SuspectedTest(suspected_test.KIND, "hash", "a model", 6, [row])
    suspected_test.write(Path("suspected.json"), content)

    record = record_of(run, "--without", "suspected.json")
    cleaned = record.pop("cleaned")
    assert record == official
    assert (cleaned["left_out"], cleaned["rows"]) == (1, 5)
    right = round(6 * official["metrics"]["accuracy"]) - (wrong["label"] == wrong["predicted"])
    assert cleaned["accuracy"] == pytest.approx(right / 5)
    assert [point["precision"] for point in cleaned["coverage_at"]] == [0.98, 0.99]
    assert "Not the official figure: without" in Path("r/report.md").read_text()


@pytest.mark.parametrize("fault", ["other rows", "no such list"])
def test_suspected_rows_of_other_data_are_one_clear_line(
    fault: str, bundle: Path, run: Run
) -> None:
    if fault == "other rows":
        row = SuspectedRow("a.csv:1", files.sha256_text("another text"), "top_up")
        content = SuspectedTest(suspected_test.KIND, "hash", "a model", 6, [row])
        suspected_test.write(Path("suspected.json"), content)
    else:
        Path("suspected.json").write_text("{}")
    result = run(
        evaluate.main, "--checkpoint_path", "bundle", "--without", "suspected.json", *NO_TRACKING
    )
    line = result.one_line_error()
    assert "none of its 1 rows is among" in line or "is no list of suspected" in line


def test_a_table_is_evaluated_as_its_rows_are_in_etl_output(bundle: Path, run: Run) -> None:
    pairs = read_tested()
    write_csv(Path("may.csv"), pairs)
    write_csv(Path("other.csv"), pairs, header="said,meaning")
    lines = [json.dumps({"text": text, "label": label}) for text, label in pairs]
    Path("may.jsonl").write_text("\n".join(lines))
    columns = {"text": [text for text, _ in pairs], "label": [label for _, label in pairs]}
    pq.write_table(pa.table(columns), "may.parquet")
    for name in ("both", "alone"):
        Path(name).mkdir()
        write_csv(Path(name) / "test.csv", pairs)
    write_csv(Path("both/train.csv"), pairs[:2])

    expected = record_of(run)
    found_by_key = ("--set", "text_column=said", "--set", "label_column=meaning")
    records = [
        record_of(run, "--data", "may.csv"),
        record_of(run, "--data-dir", "may.jsonl"),
        record_of(run, "--data", "may.parquet"),
        record_of(run, "--data", "both"),
        record_of(run, "--data", "alone"),
        record_of(run, "--data", "other.csv", *found_by_key),
    ]
    for record in records:
        for key in ("metrics", "intervals", "rows", "per_intent", "absent_intents"):
            assert record[key] == expected[key], key
        # Of the same rows, whatever the file.
        assert record["data"]["data_hash"] == records[0]["data"]["data_hash"]
    names = [record["data"]["name"] for record in records]
    assert names == ["may.csv", "may.jsonl", "may.parquet", "both", "alone", "other.csv"]


def test_the_hash_of_a_table_changes_with_a_text_or_an_intent(bundle: Path, run: Run) -> None:
    pairs = read_tested()
    other_text = [("another text", pairs[0][1]), *pairs[1:]]
    other_intent = [(pairs[0][0], pairs[-1][1]), *pairs[1:]]
    hashes = set()
    for table in (pairs, other_text, other_intent):
        write_csv(Path("may.csv"), table)
        hashes.add(record_of(run, "--data", "may.csv")["data"]["data_hash"])
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("table", "report"),
    [("may.csv", "bundle-may"), ("months/test.csv", "bundle-months-test")],
)
def test_the_report_of_a_table_has_a_folder_of_its_own(
    table: str, report: str, bundle: Path, run: Run
) -> None:
    Path("months").mkdir()
    write_csv(Path(table), read_tested())
    words = ("--checkpoint_path", bundle, "--data", table, *NO_TRACKING)
    result = run(evaluate.main, *words)
    assert result.code == 0, result.err
    assert [path.name for path in Path("artifacts/evals").iterdir()] == [report]
    assert f"6 rows of {Path(table).name}" in " ".join(result.out.split())


def test_a_table_without_some_intents_is_evaluated_on_the_others(bundle: Path, run: Run) -> None:
    pairs = [(text, label) for text, label in read_tested() if label != "Exchange"]
    # One that the model takes for the intent that does not occur.
    pairs.append(("what is the exchange rate number 1", "top_up"))
    write_csv(Path("may.csv"), pairs)
    words = ("--checkpoint_path", bundle, "--data", "may.csv", *NO_TRACKING)
    result = run(evaluate.main, *words)
    assert result.code == 0, result.err
    printed = " ".join(result.out.split())
    assert "1 of 3 intents does not occur (Exchange): macro-F1 is over the other 2." in printed

    folder = Path("artifacts/evals/bundle-may")
    record = json.loads((folder / "metrics.json").read_text())
    assert record["absent_intents"] == ["Exchange"]
    with_rows = [row["f1"] for row in record["per_intent"] if row["support"]]
    assert len(with_rows) == 2
    assert record["metrics"]["macro_f1"] == pytest.approx(np.mean(with_rows))
    # The list of intents has those that were measured.
    intents = (folder / "report.md").read_text().partition("## Intents")[2]
    assert "top_up" in intents
    assert "Exchange" not in intents


def test_an_intent_that_is_trained_on_alone_is_no_hindrance(bundle: Path, run: Run) -> None:
    Path("parts").mkdir()
    write_csv(Path("parts/train.csv"), rows())
    write_csv(Path("parts/test.csv"), [row for row in rows() if row[1] != "top_up"])
    config = write_yaml(Path("o.yaml"), dataset_name="parts", output_dir="other", split="official")
    assert run(etl.main, "--config", config).code == 0
    record = record_of(run, "--data", "other")
    assert record["absent_intents"] == ["top_up"]
    assert record["rows"] == 40


def test_names_that_differ_are_named_on_both_sides(bundle: Path, run: Run) -> None:
    pairs = [(text, label.replace("card_lost", "lost_card")) for text, label in read_tested()]
    write_csv(Path("may.csv"), pairs)
    words = ("--checkpoint_path", bundle, "--data", "may.csv", *NO_TRACKING)
    message = run(evaluate.main, *words).one_line_error()
    assert "1 intent(s) of may.csv (2 rows) are not in" in message
    assert '"lost_card" (2 x, similar to "card_lost")' in message
    assert '"card_lost"' in message.partition("; ")[2]
    assert "--map" in message

    Path("renamed.yaml").write_text("lost_card: card_lost\nnot_in_may: top_up\n")
    renamed = record_of(run, "--data", "may.csv", "--map", "renamed.yaml")
    assert renamed["metrics"] == record_of(run)["metrics"]


def test_a_wrong_column_does_not_list_every_row(bundle: Path, run: Run) -> None:
    pairs = [(text, f"ticket {number}") for number, (text, _) in enumerate(rows())]
    write_csv(Path("may.csv"), pairs)
    words = ("--checkpoint_path", bundle, "--data", "may.csv", *NO_TRACKING)
    message = run(evaluate.main, *words).one_line_error()
    assert "60 intent(s)" in message
    assert "and 55 more" in message
    assert len(message) < 700


def test_integer_labels_are_names_and_no_positions(bundle: Path, run: Run) -> None:
    order = ["top_up", "card_lost", "Exchange"]
    pairs = [(text, str(order.index(label))) for text, label in read_tested()]
    write_csv(Path("may.csv"), pairs)
    words = ("--checkpoint_path", bundle, "--data", "may.csv", *NO_TRACKING)
    assert '"0" (2 x)' in run(evaluate.main, *words).one_line_error()

    Path("renamed.yaml").write_text("0: top_up\n1: card_lost\n2: Exchange\n")
    renamed = record_of(run, "--data", "may.csv", "--map", "renamed.yaml")
    assert renamed["metrics"] == record_of(run)["metrics"]


def test_etl_output_of_other_label_ids_is_matched_by_name(bundle: Path, run: Run) -> None:
    """`Exchange` has the id 1 in the model, and 0 in this data."""
    pairs = [(text, label) for text, label in rows() if label != "card_lost"]
    write_csv(Path("two.csv"), pairs)
    config = write_yaml(Path("o.yaml"), dataset_name="two.csv", output_dir="other")
    assert run(etl.main, "--config", config).code == 0

    record = record_of(run, "--data", "other")
    write_csv(Path("may.csv"), read_tested("other"))
    assert record["metrics"] == record_of(run, "--data", "may.csv")["metrics"]
    assert record["absent_intents"] == ["card_lost"]


@pytest.mark.parametrize(
    ("text", "error", "expected"),
    [
        ("- a\n- b\n", ConfigError, "no list of renamed intents"),
        ("a: {b: c}\n", ConfigError, "line 1 does not rename one intent"),
        ("a: pin\na: card\n", ConfigError, 'line 2: "a" stands twice'),
        ("a: b\n  c: : d\n", ConfigError, "is not YAML"),
        ("a: pim\n", LabelError, 'names that are no intents of the model: "pim"'),
        ("pin: a\n", LabelError, "the names on the left are the model's"),
    ],
)
def test_a_wrong_file_of_names_is_refused(text: str, error: type[Exception], expected: str) -> None:
    path = Path("renamed.yaml")
    path.write_text(text)
    labels = LabelSchema(("card", "pin"))

    def read_and_rename() -> None:
        renames = label_names.read_renames(path)
        label_names.label_ids(["pin"], labels, renames, "may.csv", "the model")

    with pytest.raises(error, match=re.escape(expected)):
        read_and_rename()


def test_renamed_names_are_texts_as_they_are_written() -> None:
    Path("renamed.yaml").write_text("yes: no\n007: 1_0\n'#a': ~\n")
    renames = label_names.read_renames(Path("renamed.yaml"))
    assert renames == {"yes": "no", "007": "1_0", "#a": "~"}


def test_more_than_a_few_bad_rows_of_a_table_are_an_error(bundle: Path, run: Run) -> None:
    write_csv(Path("may.csv"), [*read_tested(), ("", "top_up")])
    words = ("--checkpoint_path", bundle, "--data", "may.csv", *NO_TRACKING)
    message = run(evaluate.main, *words).one_line_error()
    assert "1 of the 7 rows of may.csv cannot be used" in message
    assert "bad_rows: drop" in message

    result = run(evaluate.main, *words, "--set", "bad_rows=drop")
    assert result.code == 0, result.err
    assert "1 of 7 rows left out: 1 x empty text" in result.out
    assert "may.csv line 8" in result.out
    record = json.loads(Path("artifacts/evals/bundle-may/metrics.json").read_text())
    assert record["refused_rows"] == {"empty text": 1}

    # One of 31 is few, and none at all is asked for by `fail`.
    write_csv(Path("may.csv"), [*rows()[:30], ("", "top_up")])
    assert run(evaluate.main, *words).code == 0
    assert run(evaluate.main, *words, "--set", "bad_rows=fail").code == 2


def test_a_table_has_no_splits_and_a_folder_has_its_own(bundle: Path, run: Run) -> None:
    pairs = read_tested()
    write_csv(Path("may.csv"), pairs)
    words = ("--checkpoint_path", bundle, *NO_TRACKING, "--split", "val")
    message = run(evaluate.main, *words, "--data", "may.csv").one_line_error()
    assert "one table without parts" in message

    Path("parts").mkdir()
    for name, part in (("train", pairs[:1]), ("test", pairs[:2]), ("valid", pairs[:3])):
        write_csv(Path(f"parts/{name}.csv"), part)
    assert record_of(run, "--data", "parts", "--split", "val")["rows"] == 3
    assert record_of(run, "--data", "parts")["rows"] == 2
    message = run(evaluate.main, *words, "--data", "nowhere.csv").one_line_error()
    assert "nowhere.csv does not exist" in message


def test_rows_that_the_model_was_trained_on_are_counted(bundle: Path, run: Run) -> None:
    train = pq.read_table("data/train.parquet").to_pylist()
    seen = [(row["text"].upper(), row["label_text"]) for row in train[:4]]
    write_csv(Path("may.csv"), [*read_tested(), *seen])
    words = ("--checkpoint_path", bundle, "--data", "may.csv", *NO_TRACKING)
    result = run(evaluate.main, *words)
    assert result.code == 0, result.err
    assert "4 of 10 rows also stand in the training data" in " ".join(result.out.split())

    shutil.rmtree("data")
    assert record_of(run, "--data", "may.csv")["trained_on"] is None


def test_the_training_rows_of_a_few_shot_run_are_those_that_it_drew(bundle: Path) -> None:
    checkpoint = layout.open_checkpoint(bundle)
    assert checkpoint.manifest is not None
    identity = {"settings": {"few_shot": 2, "seed": 5}}
    few = replace(checkpoint, manifest=replace(checkpoint.manifest, identity=identity))
    table = labelled.LabelledRows(Path("may.csv"), "may.csv", "0", "test", [], [], [])

    everything = trained_on.trained_rows(checkpoint, table)
    drawn = trained_on.trained_rows(few, table)
    assert everything is not None
    assert drawn == everything.few_shot(2, 5)
    assert len(drawn) == 6
