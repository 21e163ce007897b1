"""The benchmark of small data: its project, its draws, the shape of its records; nothing here is timed."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, BuildOnce, Run, train_config, write_csv, write_yaml
from tiny_models import rows

import etl
from bankintent.corpus import dataset
from bankintent.errors import UserError
from benchmarks import servers, small_data, small_project, small_spread, tables
from benchmarks.small_spread import OTHERS, RECIPE, REGRESSION, TFIDF, WITH_NAMES, Sentences
from benchmarks.tables import Record

FEW = [("block my card", "block"), ("card is blocked", "block"), ("hello", "greet")]
"""Two intents that are trained on and never judged."""

METHODS = {RECIPE, *OTHERS}


@pytest.fixture
def source() -> Path:
    return write_csv(Path("small.csv"), rows(10) + FEW)


@pytest.fixture
def sentences(source: Path) -> Sentences:
    return small_spread.read("small", source)


# The project


def test_the_project_has_300_sentences_of_40_uneven_intents() -> None:
    pairs = small_project.draw_pairs()
    sizes = Counter(name for _, name in pairs)
    assert (len(pairs), len(sizes)) == (300, 40)
    assert (min(sizes.values()), max(sizes.values())) == (2, 14)
    assert pairs == small_project.draw_pairs()


def test_etl_reads_the_project_back_as_it_was_drawn() -> None:
    pairs = small_project.draw_pairs()
    folder = small_project.write_project(Path("project"), pairs)
    read = small_spread.read("project", folder)
    names = [read.labels.names[label] for label in read.rows.labels]
    assert sorted(zip(read.rows.texts, names, strict=True)) == sorted(pairs)


def test_the_project_is_whole() -> None:
    folder = small_project.write_project(Path("project"), rows(3))
    parts = {}
    for name in ("domain.yml", "data/nlu.yml", "data/stories.yml"):
        parts[name] = yaml.safe_load((folder / name).read_text(encoding="utf-8"))
        assert parts[name]["version"] == "3.1"

    intents = parts["domain.yml"]["intents"]
    assert sorted(intents) == ["Exchange", "card_lost", "top_up"]
    assert [
        story["steps"][0]["intent"] for story in parts["data/stories.yml"]["stories"]
    ] == intents
    assert {f"utter_{name}" for name in intents} == set(parts["domain.yml"]["responses"])


def test_entities_are_marked_in_both_forms() -> None:
    marked = small_project.mark_entities("pay 20 with my card, the card of 2024")
    assert (
        marked == 'pay [20](number) with my [card]{"entity": "product"}, the card of [2024](number)'
    )


def test_a_command_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"python -m etl failed: .*none\.yaml"):
        small_project.run_command("etl", ["--config", "none.yaml"], tmp_path)


def test_the_api_is_asked_as_a_rasa_server(served_bundle: Path) -> None:
    labels = json.loads((served_bundle / "labels.json").read_text(encoding="utf-8"))
    with servers.running(small_project.rasa_server(served_bundle)) as server:
        assert server.endpoint.path == "/model/parse"
        assert server.label("where is my card") in str(labels)


# Draws


def etl_output(run: Run, source: Path, split: str, seed: int) -> dataset.Dataset:
    config = write_yaml(
        Path("data.yaml"),
        dataset_name=str(source),
        split=split,
        seed=seed,
        rare="train_only",
        output_dir="data",
    )
    assert run(etl.main, "--config", config).code == 0
    return dataset.load(Path("data"))


@pytest.mark.parametrize("seed", [1, 2])
def test_splits_are_those_of_etl(run: Run, source: Path, sentences: Sentences, seed: int) -> None:
    data = etl_output(run, source, "stable", seed)
    drawn = sentences.draw_split(seed)
    assert sentences.rows.take(drawn.train.tolist()) == data.read("train")
    assert sentences.rows.take(drawn.held_out.tolist()) == data.read("test")


@pytest.mark.parametrize("seed", [1, 2])
def test_folds_are_those_of_etl(run: Run, source: Path, sentences: Sentences, seed: int) -> None:
    data = etl_output(run, source, "cross", seed)
    assert sentences.rows == data.read("train")
    assert np.array_equal(sentences.draw_folds(seed).assignment, data.read_folds().assignment)


# Figures


def test_the_strength_is_chosen_where_every_intent_has_enough_rows() -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(12, 4))
    labels = np.repeat([0, 1, 2], 4)
    chosen = small_spread.choose_strength(train, labels, seed=1)
    assert chosen in small_spread.STRENGTHS

    labels[:3] = 3
    assert small_spread.choose_strength(train, labels, seed=1) == small_spread.MIDDLE_STRENGTH


def test_the_interval_is_that_of_resampled_rows() -> None:
    assert small_spread.interval(np.full(50, 0.25)) == [0.25, 0.25]
    low, high = small_spread.interval(np.repeat([1.0, 0.0], 50))
    # The mean of 100 fair coins: 0.5, and a standard error of 0.05.
    assert low == pytest.approx(0.40, abs=0.02)
    assert high == pytest.approx(0.60, abs=0.02)


@pytest.fixture
def tiny_recipe(monkeypatch: pytest.MonkeyPatch, tiny_bert: Path) -> None:
    """The recipe on a tiny encoder; it asks for tracking, which the benchmark leaves out."""
    recipe = train_config(
        Path("train.yaml"),
        tiny_bert,
        Path("unused"),
        Path("unused"),
        regime="head-only",
        pooling="mean",
        label_names=True,
        keep="last",
        tracking={"enabled": True},
    )
    monkeypatch.setattr(small_project, "RECIPE", recipe.absolute())


@pytest.fixture
def measured(
    run: Run,
    tiny_recipe: None,
    source: Path,
    build_once: BuildOnce,
    monkeypatch: pytest.MonkeyPatch,
) -> Record:
    """The record that the command writes of a small table with two seeds, a copy of its folder."""
    own_folder = Path.cwd()
    table = source.absolute()

    def build(folder: Path) -> None:
        monkeypatch.chdir(folder)
        words: list[Any] = ["--only", "spread", "--seeds", 2, "--output-dir", "out"]
        result = run(small_data.main, *words, f"owner/small={table}")
        assert result.code == 0, result.err
        assert not Path("artifacts").exists()

    shared = build_once("small-data-benchmark", build)
    monkeypatch.chdir(own_folder)
    shutil.copytree(shared, own_folder, dirs_exist_ok=True)
    return dict(json.loads(Path("out/owner-small.json").read_text(encoding="utf-8")))


def test_the_record_has_every_method_and_seed_and_no_sentence(measured: Record) -> None:
    record = measured
    assert (record["source"], record["sentences"], record["intents"]) == ("owner/small", 33, 5)
    assert record["language"] == "English"
    assert record["sentences_per_intent"] == {"least": 1, "median": 10.0, "most": 10}
    assert record["recipe"]["label_names"] is True
    assert [draw["seed"] for draw in record["draws"]] == [1, 2]

    for draw in record["draws"]:
        assert (draw["judged_rows"], draw["test_rows"], draw["folds"]) == (30, 3, 5)
        for way in ("split", "cross"):
            assert set(draw[way]) == METHODS
            assert all(0 <= accuracy <= 1 for accuracy in draw[way].values())

    text = json.dumps(record)
    assert not any(sentence in text for sentence, _ in rows(10) + FEW)


def test_differences_are_those_of_the_means(measured: Record) -> None:
    record = measured
    assert set(record["recipe_minus"]) == {TFIDF, REGRESSION, WITH_NAMES}
    for other, difference in record["recipe_minus"].items():
        expected = [draw["cross"][RECIPE] - draw["cross"][other] for draw in record["draws"]]
        assert difference["accuracy"] == pytest.approx(np.mean(expected))
        low, high = difference["interval"]
        assert low <= difference["accuracy"] <= high


@pytest.mark.usefixtures("measured")
def test_the_report_is_made_again_of_the_records(run: Run) -> None:
    report = Path("out/report.md")
    first = report.read_text(encoding="utf-8")
    assert "owner/small" in first and "deviation" in first
    report.unlink()
    assert run(small_data.main, "--report-only", "--output-dir", "out").code == 0
    assert report.read_text(encoding="utf-8") == first


def test_the_published_report_is_that_of_its_records() -> None:
    folder = REPOSITORY / "docs" / "results" / "small"
    report = small_data.render(folder)
    assert (folder / "report.md").read_text(encoding="utf-8") == report
    for record in small_data.read_records(folder):
        assert set(record["recipe_minus"]) == set(OTHERS)


@pytest.mark.usefixtures("tiny_recipe")
def test_intents_that_are_codes_are_no_sentences(run: Run) -> None:
    codes = {"card_lost": "11", "top_up": "12", "Exchange": "13"}
    source = write_csv(Path("codes.csv"), [(text, codes[name]) for text, name in rows(6)])
    words: list[Any] = ["--only", "spread", "--seeds", 1, "--output-dir", "codes", source]
    result = run(small_data.main, *words)
    assert result.code == 0, result.err

    record = json.loads(Path("codes/codes.csv.json").read_text(encoding="utf-8"))
    assert record["recipe"]["label_names"] is False
    draw = record["draws"][0]
    assert draw["cross"][WITH_NAMES] == draw["cross"][REGRESSION]


def test_the_table_of_the_way_says_whether_the_goal_is_reached() -> None:
    steps = [
        {"name": "python -m etl", "seconds": 4.0, "processor_seconds": 3.0},
        {"name": "the first answer", "seconds": 200.0, "processor_seconds": 0.0},
    ]
    record = {
        "machine": {"date": "2026-01-02", "processor": "A CPU", "cores": 2},
        "omp_num_threads": None,
        "load_before": [0.5, 0, 0],
        "load_after": [1.5, 0, 0],
        "sentences": 300,
        "intents": 40,
        "steps": steps,
        "seconds": 204.0,
        "answered_intent": "top_up",
    }
    text = tables.markdown(small_project.make_table(record))
    assert "| all              | 204.0 |             |" in text
    assert "OMP_NUM_THREADS not set; load average of the minute 0.5 before and 1.5 after" in text
    assert ": not reached." in text
    assert ": reached." in tables.markdown(small_project.make_table(record | {"seconds": 90.0}))


def test_wrong_words_are_told_in_one_line(run: Run) -> None:
    missing = run(small_data.main, "--only", "spread", "a/b=none.yml").one_line_error()
    assert "none.yml does not exist" in missing
    assert (
        '--only all is neither "path" nor "spread"'
        in run(small_data.main, "--only", "all").one_line_error()
    )
