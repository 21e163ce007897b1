"""Sentences without labels: what ETL keeps of them, the intent that each is given, and training on them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DATASETS, Run, needs_datasets, train_config, write_csv, write_yaml
from scipy.special import softmax
from tiny_models import rows

import etl
import multiregime
from bankintent.config import PseudoLabelsSection, TrainConfig
from bankintent.corpus import dataset
from bankintent.corpus.dataset import UNKNOWN
from bankintent.errors import DataError
from bankintent.training.identity import identity
from bankintent.training.methods import probe
from bankintent.training.methods.pseudo_labels import guess, neighbour_graph


def arcs(points: int = 20) -> tuple[Any, Any]:
    """Two bands of points around a sphere, one above the other: (vectors, band), one band after the other."""
    around = np.linspace(0, np.pi / 2, points)
    bands = [
        np.stack([np.cos(around), np.sin(around), np.full(points, height)], axis=1)
        for height in (0.25, -0.25)
    ]
    return np.concatenate(bands), np.repeat([0, 1], points)


def test_an_intent_spreads_along_neighbours_where_a_line_between_the_labelled_ones_is_wrong() -> (
    None
):
    vectors, bands = arcs()
    given = np.full(len(bands), UNKNOWN)
    given[0], given[-1] = (
        0,
        1,
    )  # opposite ends: what lies between them is not what tells the bands apart
    weight, bias = probe.fit_probe(vectors[[0, -1]], [0, 1], num_labels=2)
    assert np.mean((vectors @ weight.T + bias).argmax(axis=1) == bands) < 0.8
    found = guess(vectors, given, 2, PseudoLabelsSection(neighbours=4, spread=0.99))
    assert (found.labels == bands).all()
    assert found.labels[0] == 0
    assert found.labels[-1] == 1
    assert ((found.shares >= 0.5) & (found.shares <= 1)).all()
    assert (
        found.shares[1] > found.shares[len(bands) // 4]
    )  # surer beside a labelled one than far from any


def test_what_is_labelled_keeps_its_label_against_all_its_neighbours() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8))
    vectors[:20] = vectors[0] + 0.01 * vectors[:20]
    given = np.full(30, UNKNOWN)
    given[:10], given[10], given[20:] = 0, 1, 2
    found = guess(vectors, given, 3, PseudoLabelsSection())
    assert found.labels[10] == 1
    assert (found.labels[:10] == 0).all()
    assert (found.labels[20:] == 2).all()


def test_the_graph_joins_each_row_with_its_nearest_by_cosine() -> None:
    vectors = np.random.default_rng(1).normal(size=(40, 6))
    graph = neighbour_graph(vectors, 3).toarray()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1)
    nearest = np.argsort(-cosines, axis=1)[:, :3]
    expected = np.zeros((40, 40), dtype=bool)
    np.put_along_axis(expected, nearest, True, axis=1)
    assert ((graph > 0) == (expected | expected.T)).all()
    assert np.allclose(graph, graph.T)
    assert np.abs(np.linalg.eigvalsh(graph)).max() == pytest.approx(
        1
    )  # so that spreading neither grows nor dies out
    assert neighbour_graph(vectors[:3], 7).toarray().shape == (
        3,
        3,
    )  # fewer rows than neighbours asked for


@pytest.mark.parametrize("spread", [0.5, 0.9, 0.99])
def test_spreading_ends_where_zhou_et_al_solve_it(spread: float) -> None:
    vectors = np.random.default_rng(2).normal(size=(60, 5))
    given = np.full(60, UNKNOWN)
    given[:9] = np.arange(9) % 3
    section = PseudoLabelsSection(neighbours=4, spread=spread)
    weight, bias = probe.fit_probe(vectors[:9], given[:9].tolist(), 3)
    start = softmax(vectors @ weight.T + bias, axis=1)
    start[:9] = np.eye(3)[given[:9]]
    solved = np.linalg.solve(
        np.eye(60) - spread * neighbour_graph(vectors, 4).toarray(), (1 - spread) * start
    )
    found = guess(vectors, given, 3, section)
    assert np.mean(found.labels[9:] == solved[9:].argmax(axis=1)) >= 0.95
    assert np.abs(found.shares - solved.max(axis=1) / solved.sum(axis=1)).max() < 0.05


@pytest.mark.proof
@needs_datasets
def test_neighbours_know_more_of_real_sentences_than_a_probe() -> None:
    from bankintent.labels import LabelSchema
    from bankintent.training import backbones, features

    with (DATASETS / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        pairs = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    labels = LabelSchema.from_names(sorted({label for _, label in pairs})[20:40])
    pairs = [(text, label) for text, label in pairs if label in labels.label2id]
    true = np.array([labels.label2id[label] for _, label in pairs])
    backbone = backbones.load_backbone(backbones.BUNDLED, labels, max_length=64, pooling="mean")
    vectors = (
        features.compute(backbone, labels, [text for text, _ in pairs], batch_size=128)
        .double()
        .numpy()
    )
    gained = []
    for seed in range(3):
        rng, given = np.random.default_rng(seed), np.full(len(true), UNKNOWN)
        for label in range(len(labels)):
            given[rng.choice(np.flatnonzero(true == label), 3, replace=False)] = label
        unknown = given == UNKNOWN
        weight, bias = probe.fit_probe(vectors[~unknown], given[~unknown].tolist(), len(labels))
        probed = (vectors @ weight.T + bias).argmax(axis=1)
        found = guess(vectors, given, len(labels), PseudoLabelsSection()).labels
        gained.append(np.mean((found == true)[unknown]) - np.mean((probed == true)[unknown]))
    assert min(gained) > 0.02


def few_shot_config(tmp_path: Path, model: Path, data_dir: Path, **more: Any) -> Path:
    settings = {"few_shot": 4, "label_names": True, "pseudo_labels": {"neighbours": 3}, "epochs": 1}
    return train_config(
        tmp_path / "t.yaml", model, data_dir, tmp_path / "bundle", **(settings | more)
    )


@pytest.mark.parametrize("regime", ["head-only", "lora", "full-ft"])
def test_every_regime_trains_on_names_and_on_what_few_shot_left_out(
    regime: str, tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    data = dataset.load(data_dir)
    result = run(
        multiregime.main,
        "--config",
        few_shot_config(tmp_path, tiny_bert, data_dir),
        "--regime",
        regime,
    )
    assert result.code == 0, result.err
    train, drawn = data.read("train"), data.read("train").few_shot(4, seed=6)
    left = len(train) - len(drawn)
    assert f"{left} sentences were given the intents of their neighbours" in result.out
    assert f"{len(train) + len(data.labels)} sentences, " in result.out

    assert "bundle.pseudo-labels.csv" in result.out.replace("\n", "")
    with (tmp_path / "bundle.pseudo-labels.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert sorted(row["text"] for row in written) == sorted(set(train.texts) - set(drawn.texts))
    assert {row["label"] for row in written} <= set(data.labels.names)
    shares = [float(row["share"]) for row in written]
    assert shares == sorted(shares)
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert (
        f"12 sentences (at most 4 of each intent) for training and 6 for validation, and {left} sentences"
        in card
    )


def test_the_sentences_of_etl_are_used_beside_a_whole_training_split(
    tiny_bert: Path, tmp_path: Path, run: Run
) -> None:
    source = write_csv(tmp_path / "a.csv", rows())
    messages = write_csv(
        tmp_path / "messages.csv",
        [
            ("my card is lost", "?"),
            ("My card is LOST!", "?"),
            ("", "?"),
            (rows()[0][0], "?"),
            ("top up please", ""),
        ],
        header="message,from",
    )
    config = write_yaml(
        tmp_path / "d.yaml",
        dataset_name=str(source),
        output_dir="data",
        unlabelled=str(messages),
        bad_rows="drop",
    )
    result = run(etl.main, "--config", config)
    assert result.code == 0, result.err
    printed = " ".join(result.out.split())
    assert (
        "2 sentences without labels stand beside them, for pseudo_labels; 2 more are known"
        in printed
    )
    assert "1 row was left out: 1 x empty text (messages.csv" in printed
    data = dataset.load(Path("data"))
    found = data.read_unlabelled()
    assert found.texts == ["my card is lost", "top up please"]
    assert found.ids == ["messages.csv:1", "messages.csv:5"]
    assert found.labels == [UNKNOWN] * 2

    known = run(
        etl.main, "--config", config, "--set", f"unlabelled={source}", "--set", "output_dir=known"
    )
    assert (
        f"0 sentences without labels stand beside them, for pseudo_labels; {len(rows())} more are known"
        in " ".join(known.out.split())
    )
    assert not len(dataset.load(Path("known")).read_unlabelled())

    plain = run(
        etl.main, "--config", config, "--set", "unlabelled=null", "--set", "output_dir=plain"
    )
    assert plain.code == 0, plain.err
    without = dataset.load(Path("plain"))
    assert not len(without.read_unlabelled())
    assert without.read("train") == data.read("train")
    assert without.hash == data.hash  # who leaves the sentences aside is not told of other data
    off, on = (
        TrainConfig(model_name="a/b", regime="lora", output_dir=Path("x"), pseudo_labels=p)
        for p in (None, PseudoLabelsSection())
    )
    assert identity(off, data) == identity(off, without)
    assert identity(on, data) != identity(on, without)

    config = few_shot_config(tmp_path, tiny_bert, Path("data"), few_shot=None)
    result = run(multiregime.main, "--config", config, "--regime", "head-only")
    assert result.code == 0, result.err
    assert "2 sentences were given the intents of their neighbours" in result.out

    Path("data/unlabelled.parquet").write_bytes(b"changed")
    with pytest.raises(DataError, match="not the file that ETL wrote"):
        data.read_unlabelled()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("none.csv", None, "none.csv is no file"),
        ("odd.xls", "text\nhello", "unknown ending"),
        (
            "odd.csv",
            "body,from\nhello,web",
            "it has body, from. Rename its column of sentences to text",
        ),
    ],
)
def test_an_unusable_table_of_sentences_gets_one_line(
    name: str, content: str | None, expected: str, tmp_path: Path, run: Run
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    source = write_csv(tmp_path / "a.csv", rows())
    config = write_yaml(
        tmp_path / "d.yaml", dataset_name=str(source), output_dir="data", unlabelled=name
    )
    assert expected in run(etl.main, "--config", config).one_line_error()
    assert not Path("data").exists()


def test_a_row_without_text_counts_as_a_bad_row(tmp_path: Path, run: Run) -> None:
    source = write_csv(tmp_path / "a.csv", rows())
    (tmp_path / "messages.csv").write_text("text,from\nhello there,web\n,web\n")
    config = write_yaml(
        tmp_path / "d.yaml",
        dataset_name=str(source),
        output_dir="data",
        unlabelled="messages.csv",
        bad_rows="fail",
    )
    message = run(etl.main, "--config", config).one_line_error()
    assert "1 unusable rows (1 x empty text, the first at messages.csv" in message


def test_pseudo_labels_without_sentences_are_refused(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    config = few_shot_config(tmp_path, tiny_bert, data_dir, few_shot=None)
    message = run(multiregime.main, "--config", config, "--regime", "head-only").one_line_error()
    assert "holds no sentences without labels" in message
    assert "unlabelled: in data.yaml" in message
    assert not list(tmp_path.glob("bundle*"))


def test_sentences_like_those_of_evaluation_or_out_of_scope_are_left_out(
    tmp_path: Path, run: Run
) -> None:
    asked = {
        "a": "how do i close my savings account",
        "b": "please raise the limit of my card",
        "c": "where is my order",
    }
    splits = {
        split: [
            [f"{text} {word} {split}", label]
            for label, text in asked.items()
            for word in ("now", "today", "soon")
        ]
        for split in ("train", "val", "test")
    }
    (tmp_path / "data_full.json").write_text(
        json.dumps(splits | {"oos_test": [["what is a dinosaur", "oos"]]})
    )
    sentences = [f"{splits[split][0][0]}!!" for split in splits]  # the same after normalisation
    sentences += [f"{splits[split][3][0]} s" for split in splits]  # nearly the same
    (tmp_path / "log.csv").write_text(
        "\n".join(["body", *sentences, "what is a dinosaur", "hello there"])
    )
    config = write_yaml(
        tmp_path / "d.yaml",
        dataset_name=str(tmp_path / "data_full.json"),
        output_dir="data",
        split="official",
        unlabelled=str(tmp_path / "log.csv"),
    )
    result = run(etl.main, "--config", config)
    assert result.code == 0, result.err
    assert dataset.load(Path("data")).read_unlabelled().texts == [sentences[3], "hello there"]
    printed = " ".join(result.out.split())
    assert "2 sentences without labels" in printed
    assert "6 more are known, or nearly the same as one of val or test" in printed


def test_a_bundle_answers_for_the_log_only_where_it_learned_from_it(
    tiny_bert: Path, tmp_path: Path, run: Run
) -> None:
    source = write_csv(tmp_path / "a.csv", rows())
    (tmp_path / "log.csv").write_text("body\nmy card is lost\ntop up please\n")
    config = write_yaml(
        tmp_path / "d.yaml", dataset_name=str(source), output_dir="data", unlabelled="log.csv"
    )
    assert run(etl.main, "--config", config).code == 0
    config = few_shot_config(tmp_path, tiny_bert, Path("data"), few_shot=None)
    result = run(multiregime.main, "--config", config, "--regime", "head-only")
    assert result.code == 0, result.err
    assert "log.csv" in (tmp_path / "bundle" / "README.md").read_text()
    assert (tmp_path / "bundle.pseudo-labels.csv").is_file()
    again = "--regime", "head-only", "--set", "pseudo_labels=null", "--overwrite"
    assert run(multiregime.main, "--config", config, *again).code == 0
    assert "log.csv" not in (tmp_path / "bundle" / "README.md").read_text()
    assert not (tmp_path / "bundle.pseudo-labels.csv").exists()


@pytest.mark.parametrize(
    ("names", "expected"), [(("1", "b"), '"1" has no letter'), (("a b", "A_b"), 'reads like "a b"')]
)
def test_names_that_are_no_sentences_are_refused(
    names: tuple[str, str], expected: str, tiny_bert: Path, tmp_path: Path, run: Run
) -> None:
    source = write_csv(
        tmp_path / "a.csv", [(f"sentence {i} of {name}", name) for name in names for i in range(10)]
    )
    config = write_yaml(tmp_path / "d.yaml", dataset_name=str(source), output_dir="data")
    assert run(etl.main, "--config", config).code == 0
    config = few_shot_config(tmp_path, tiny_bert, Path("data"), few_shot=None, pseudo_labels=None)
    assert (
        expected
        in run(multiregime.main, "--config", config, "--regime", "head-only").one_line_error()
    )
    assert not list(tmp_path.glob("bundle*"))


def test_a_student_has_a_teacher_for_its_labels(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    config = few_shot_config(tmp_path, tiny_bert, data_dir, distill={"layers": 1})
    message = run(multiregime.main, "--config", config, "--regime", "full-ft").one_line_error()
    assert "remove pseudo_labels" in message


def test_what_is_off_leaves_the_identity_of_earlier_runs_as_it_was(data_dir: Path) -> None:
    data = dataset.load(data_dir)
    plain = TrainConfig(model_name="a/b", regime="lora", output_dir=Path("x"))
    assert not {"label_names", "pseudo_labels"} & identity(plain, data)["settings"].keys()
    both = plain.model_copy(update={"label_names": True, "pseudo_labels": PseudoLabelsSection()})
    assert {"label_names", "pseudo_labels"} <= identity(both, data)["settings"].keys()
