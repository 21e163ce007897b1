"""Two models on one test: figures, the exact test, what changes, and what is refused."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from conftest import Run, write_csv
from scipy import stats
from tiny_models import rows

from bankintent import __main__ as verbs
from bankintent import files
from bankintent.inference import model_comparison_report
from bankintent.inference.model_comparison import Difference
from bankintent.inference.predictor import Predictor


class MakePlain(Protocol):
    def __call__(
        self, name: str, names: dict[str, str], order: tuple[int, ...] = (0, 1, 2)
    ) -> Path: ...


@pytest.fixture
def plain(bundle: Path) -> MakePlain:
    """Makes plain checkpoints of the bundle: intents renamed by `names`, ids in another order."""

    def make(name: str, names: dict[str, str], order: tuple[int, ...] = (0, 1, 2)) -> Path:
        folder = Path(name)
        shutil.copytree(bundle / "merged", folder)
        (folder / "labels.json").unlink(missing_ok=True)

        config = json.loads((folder / "config.json").read_text())
        old = [config["id2label"][str(label)] for label in order]
        labels = [names.get(label, label) for label in old]
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
        config["label2id"] = {label: number for number, label in enumerate(labels)}
        (folder / "config.json").write_text(json.dumps(config))

        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        head = [key for key, values in weights.items() if values.shape[0] == len(order)]
        assert sorted(head) == ["classifier.bias", "classifier.weight"]
        for key in head:
            weights[key] = weights[key][list(order)].copy()
        metadata = {"format": "pt"}
        safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata)
        return folder

    return make


def compare(run: Run, *words: object) -> tuple[str, dict[str, Any], list[dict[str, str]]]:
    """What the command prints, in one line, its metrics.json and the rows of changed.csv."""
    result = run(verbs.compare_models, *words, "--output-dir", "r")
    assert result.code == 0, result.err
    with Path("r/changed.csv").open(encoding="utf-8", newline="") as file:
        changed = list(csv.DictReader(file))
    return " ".join(result.out.split()), json.loads(Path("r/metrics.json").read_text()), changed


def write_table(name: str) -> list[tuple[str, str]]:
    """A table of sentences like those of the small dataset, with two of its three intents."""
    pairs = [(f"{text} please", label) for text, label in rows(8) if label != "Exchange"]
    write_csv(Path(name), pairs)
    return pairs


def test_a_worse_model_is_told_with_what_it_loses(bundle: Path, plain: MakePlain, run: Run) -> None:
    names = {"card_lost": "top_up", "top_up": "card_lost"}
    swapped = plain("swapped", names)
    # Labelled by A itself, so that A is right; but for one row, which B wins.
    predictor = Predictor.load(bundle)
    texts = [text for text, _ in write_table("may.csv")]
    answers = predictor.logits(texts).argmax(axis=1)
    intents = [predictor.labels.names[label] for label in answers]
    exchanged = [row for row, intent in enumerate(intents) if intent in names]
    assert len(exchanged) > 4
    intents[exchanged[0]] = names[intents[exchanged[0]]]
    pairs = list(zip(texts, intents, strict=True))
    write_csv(Path("may.csv"), pairs)

    printed, record, changed = compare(run, bundle, swapped, "--data", "may.csv")
    assert set(files.list_files(Path("r"))) == {"changed.csv", "metrics.json", "report.md"}
    only_a = len(exchanged) - 1
    difference = record["difference"]
    assert (difference["only_a"], difference["only_b"]) == (only_a, 1)
    assert difference["rows"] == 16
    assert difference["a_accuracy"] == record["a"]["metrics"]["accuracy"] == 15 / 16
    assert difference["difference"] == pytest.approx((1 - only_a) / 16)
    assert difference["p"] == pytest.approx(stats.binomtest(only_a, only_a + 1).pvalue)
    low, high = difference["interval"]
    assert low <= difference["difference"] <= high

    assert sum(row["rows"] for row in record["intents"]) == 16
    assert sum(row["a_right"] for row in record["intents"]) == 15
    assert sum(row["b_right"] for row in record["intents"]) == 16 - only_a
    assert set(record["absent_intents"]) == set(predictor.labels.names) - set(intents)
    assert record["changed"] == len(changed) == len(exchanged)
    assert ("B is worse than A by" in printed) == (difference["p"] < 0.05)
    assert "Intents that B loses" in printed

    # Lost first, the answers that B is surest of before the others.
    kinds = [row["change"] for row in changed]
    assert kinds == sorted(kinds, key=model_comparison_report.CHANGES.index)
    lost = [float(row["b_score"]) for row in changed if row["change"] == "lost"]
    assert lost == sorted(lost, reverse=True)
    labels = dict(pairs)
    for row in changed:
        assert row["label"] == labels[row["text"]]
        assert (row["a"] == row["label"]) == (row["change"] == "lost")
        assert (row["b"] == row["label"]) == (row["change"] == "won")
    assert kinds.count("lost") == only_a


def test_models_are_matched_by_the_names_of_their_intents(
    bundle: Path, plain: MakePlain, run: Run
) -> None:
    reordered = plain("reordered", {}, order=(2, 0, 1))
    write_table("may.csv")
    printed, record, changed = compare(run, bundle, reordered, "--data", "may.csv")
    assert changed == []
    assert record["difference"]["difference"] == 0
    assert record["difference"]["p"] == 1
    assert record["a"]["metrics"] == record["b"]["metrics"]
    assert "No difference is shown: A and B are level" in printed


def test_a_file_of_names_serves_the_table_and_both_models(
    bundle: Path, plain: MakePlain, run: Run
) -> None:
    renamed = plain("renamed", {"card_lost": "lost", "top_up": "money"}, order=(1, 2, 0))
    pairs = [(text, label.replace("card_lost", "lost")) for text, label in write_table("may.csv")]
    write_csv(Path("may.csv"), pairs)
    Path("names.yaml").write_text("lost: card_lost\nmoney: top_up\n")
    for pair in ((bundle, renamed), (renamed, bundle)):
        _, record, changed = compare(run, *pair, "--data", "may.csv", "--map", "names.yaml")
        assert changed == []
        assert record["a"]["metrics"] == record["b"]["metrics"]


def test_other_label_sets_are_refused_with_the_names_of_both(
    bundle: Path, plain: MakePlain, run: Run
) -> None:
    other = plain("other", {"card_lost": "card_lost_abroad"})
    write_table("may.csv")
    words = (bundle, other, "--data", "may.csv")
    message = run(verbs.compare_models, *words).one_line_error()
    assert '"card_lost" (similar to "card_lost_abroad")' in message
    assert '"card_lost_abroad" (similar to "card_lost")' in message
    assert "--map" in message


def test_the_data_of_both_is_the_default(bundle: Path, run: Run) -> None:
    shutil.copytree(bundle, "old")
    printed, record, _ = compare(run, "old", bundle)
    assert "6 test rows" in printed
    assert record["difference"]["rows"] == 6
    result = run(verbs.compare_models, "old", bundle)
    assert result.code == 0, result.err
    assert Path("artifacts/comparisons/old-vs-bundle/report.md").is_file()

    manifest = json.loads(Path("old/manifest.json").read_text())
    manifest["data_hash"] = "0" * 64
    Path("old/manifest.json").write_text(json.dumps(manifest))
    message = run(verbs.compare_models, "old", bundle).one_line_error()
    assert "were trained on different data" in message
    assert "--data" in message


def test_rows_that_a_model_was_trained_on_are_told_and_left_out_beside(
    bundle: Path, plain: MakePlain, run: Run
) -> None:
    shutil.copytree(bundle, "old")
    train = pq.read_table("data/train.parquet").to_pylist()
    seen = [(row["text"], row["label_text"]) for row in train[:5]]
    write_csv(Path("may.csv"), [*write_table("new.csv"), *seen])
    printed, record, _ = compare(run, "old", bundle, "--data", "may.csv")
    assert record["a"]["trained_on"] == 5
    assert record["unseen"]["rows"] == 16
    assert "5 of 21 rows also stand in the training data of A" in printed
    assert "On the 16 rows that neither was trained on: No difference" in printed

    # A plain folder records no data.
    unknown = plain("unknown", {})
    printed, record, _ = compare(run, bundle, unknown, "--data", "may.csv")
    assert record["b"]["trained_on"] is None
    assert record["unseen"] is None
    assert "The training data of B is not at hand" in printed


@pytest.mark.parametrize(
    ("a", "b", "p", "expected"),
    [
        (0.9, 0.95, 0.01, "B is better than A by 5.00 points"),
        (0.95, 0.9, 0.0001, "B is worse than A by 5.00 points"),
        (0.9, 0.95, 0.2, "No difference is shown: B is 5.00 points above A"),
        (0.9, 0.85, 0.05, "No difference is shown: B is 5.00 points below A"),
        (0.9, 0.9, 1.0, "No difference is shown: A and B are level"),
    ],
)
def test_the_verdict_says_no_more_than_the_test(
    a: float, b: float, p: float, expected: str
) -> None:
    difference = Difference(100, a, b, b - a, [-0.1, 0.1], 3, 4, p)
    verdict = model_comparison_report.exact_verdict(difference)
    assert verdict.startswith(expected)
    assert ("p < 0.001" in verdict) == (p < 0.001)


def test_a_missing_model_is_a_missing_key(run: Run) -> None:
    message = run(verbs.compare_models, "one").one_line_error()
    assert 'the key "model_b" is missing' in message


def test_models_without_a_mistake_have_no_interval_of_macro_f1() -> None:
    values = {"accuracy": 1.0, "macro_f1": 1.0}
    figures = SimpleNamespace(metrics=values, intervals={"accuracy": [0.9749, 1.0]})
    result: Any = SimpleNamespace(a=figures, b=figures)
    _, table = model_comparison_report._overview(result)
    assert table[0][1:3] == ["100.00", "97.49 to 100.00"]
    assert table[1][1:3] == ["100.00", ""]
