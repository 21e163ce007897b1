"""Rows that have none of the intents, and columns that are kept beside rows: from the source to a reader."""

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATASETS, REPOSITORY, Run, needs_datasets, write_csv, write_yaml

import etl
from bankintent.config import DataConfig, EvalConfig
from bankintent.configfile import load
from bankintent.corpus import (
    cleaning,
    dataset,
    division,
    general,
    no_intent,
    out_of_scope,
    sources,
)
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.corpus.kept_columns import as_kept
from bankintent.errors import DataError
from bankintent.inference import labelled
from bankintent.texts import fold, normalise

WORDS = ("lost", "blocked", "expired", "stolen", "broken", "bent", "late", "new", "old", "second")

THINGS = ("kettle", "violin", "garden", "puzzle", "camel", "lighthouse", "noodle", "tractor")

INTENTS = {
    "card": "my card is",
    "fees": "why was I charged for a",
}


def pairs(*more: str) -> list[tuple[str, str]]:
    """(text, label) of two intents, and of each label of `more` eight rows."""
    made = []
    for label, start in INTENTS.items():
        made += [
            (f"{start} {word} {label} number {place}", label) for place, word in numbered(WORDS)
        ]
    for label in more:
        made += [(f"{thing} {label} {place} please", label) for place, thing in numbered(THINGS)]
    return made


def numbered(words: tuple[str, ...]) -> list[tuple[int, str]]:
    return list(enumerate(words, 3))


def config_file(source: object, **more: object) -> Path:
    return write_yaml(Path("data.yaml"), dataset_name=str(source), output_dir="out", **more)


def run_etl(run: Run, source: object, **more: object) -> Dataset:
    result = run(etl.main, "--config", config_file(source, **more))
    assert result.code == 0, result.err
    return dataset.load(Path("out"))


def run_error(run: Run, source: object, **more: object) -> str:
    line = run(etl.main, "--config", config_file(source, **more)).one_line_error()
    assert not Path("out").exists()
    return line


def run_error_beside(run: Run, source: object, **more: object) -> str:
    """The error line of a run that leaves a former output in place."""
    before = dataset.load(Path("out")).hash
    line = run(etl.main, "--config", config_file(source, **more)).one_line_error()
    assert dataset.load(Path("out")).hash == before
    return line


def read_report() -> dict[str, Any]:
    return dict(json.loads(Path("out/report.json").read_text()))


def write_table(name: str, labelled_texts: list[tuple[str, str]], **columns: list[object]) -> Path:
    """A Parquet table with more columns."""
    texts, labels = zip(*labelled_texts, strict=True)
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts, "label": labels, **columns}), path)
    return path


@pytest.mark.parametrize("split", ["stable", "stratified", "cross"])
def test_rows_of_such_labels_leave_the_intents_and_are_divided_like_them(
    run: Run, split: str
) -> None:
    source = write_csv(Path("a.csv"), pairs("oos", "other"))
    data = run_etl(run, source, split=split, out_of_scope_labels=["oos", "other"])
    assert data.labels.names == ("card", "fees")

    parts = data.read_out_of_scope()
    texts = [text for part in parts.values() for text in part]
    assert sorted(texts) == sorted(text for text, label in pairs("oos", "other") if label[0] == "o")

    expected = {"train": 16} if split == "cross" else {"train": 12, "val": 2, "test": 2}
    assert {name: len(part) for name, part in parts.items()} == expected
    assert read_report()["out_of_scope"]["rows"] == expected
    assert dataset.read_out_of_scope(Path("out")) == parts


def test_official_splits_keep_their_own_and_val_is_drawn_where_the_source_has_none(
    run: Run,
) -> None:
    Path("a").mkdir()
    write_csv(Path("a/train.csv"), pairs("oos"))
    write_csv(Path("a/test.csv"), [("a bent card", "card"), ("what fees", "fees"), ("hum", "oos")])
    parts = run_etl(run, "a", out_of_scope_labels=["oos"]).read_out_of_scope()
    assert parts["test"] == ["hum"]
    assert (len(parts["train"]), len(parts["val"])) == (7, 1)

    write_csv(Path("a/val.csv"), [("one card", "card"), ("one fee", "fees")])
    parts = run_etl(run, "a", out_of_scope_labels=["oos"]).read_out_of_scope()
    assert {split: len(part) for split, part in parts.items()} == {"train": 8, "test": 1}


def test_they_are_joined_with_those_that_the_source_has_itself(run: Run) -> None:
    rows = [list(pair) for pair in pairs("other")]
    clinc = {"train": rows, "val": rows[:12], "test": rows[:12], "oos_test": [["hum", "oos"]]}
    Path("a.json").write_text(json.dumps(clinc))
    plain = run_etl(run, "a.json", split="official", leakage="report")
    assert plain.read_out_of_scope() == {"test": ["hum"]}
    assert len(plain.labels) == 3

    both = run_etl(run, "a.json", split="official", out_of_scope_labels=["other"])
    counts = {split: len(part) for split, part in both.read_out_of_scope().items()}
    assert counts == {"train": 8, "test": 1}
    assert both.out_of_scope_hash != plain.out_of_scope_hash


def test_a_label_that_the_source_lacks_is_an_error_with_the_near_names(run: Run) -> None:
    source = write_csv(Path("a.csv"), pairs("Out_of_scope"))
    line = run_error(run, source, out_of_scope_labels=["out of scop"])
    assert '"out of scop" (similar: "Out_of_scope")' in line

    two = write_csv(Path("b.csv"), pairs("Other / unclear"))
    line = run_error(run, two, out_of_scope_labels=["other"])
    assert '"other" (similar: "Other / unclear")' in line

    line = run_error(run, source, out_of_scope_labels=["zzz"])
    assert '"zzz" (its labels: card, fees, Out_of_scope)' in line

    line = run_error(run, source, out_of_scope_labels=["card", "Out_of_scope"])
    assert "fewer than two intents" in line


def test_an_order_of_classes_loses_the_label(run: Run) -> None:
    order = ("fees", "oos", "card")
    corpus_order = write_csv(Path("a.csv"), pairs("oos"))
    config = DataConfig(dataset_name=str(corpus_order), out_of_scope_labels=["oos"])
    rows = out_of_scope.set_apart(cleaning.clean_all(sources.read_all(config), config), config)

    corpus = division.divide(rows, config)
    assert corpus.label_schema(order).names == ("fees", "card")


@pytest.mark.parametrize("name", ["oos", "Out-of-Scope", "NONE", "fallback", "Other / unclear"])
def test_a_label_that_means_no_intent_is_pointed_out_unless_the_key_is_given(
    run: Run, name: str
) -> None:
    source = write_csv(Path("a.csv"), pairs(name))
    printed = run(etl.main, "--config", config_file(source)).out
    assert f'"{name}" (8 rows) is trained as an intent' in " ".join(printed.split())
    assert f'--set "out_of_scope_labels=[{name}]"' in " ".join(printed.split())

    printed = run(etl.main, "--config", config_file(source, out_of_scope_labels=[name])).out
    assert "is trained as an intent" not in printed


@pytest.mark.parametrize(
    ("name", "is_likely"),
    [
        ("Other / unclear", True),
        ("MISC", True),
        ("Miscellaneous questions", True),
        ("n/a", True),
        ("Out of scope", True),
        ("no intent", True),
        ("None of the above", True),
        ("unknown or unclear", True),
        ("unknown charge", False),
        ("mother", False),
        ("another card", False),
        ("intent", False),
        ("card_not_other", False),
        ("/", False),
    ],
)
def test_names_that_say_that_no_intent_fits_are_told_from_intents(
    name: str, is_likely: bool
) -> None:
    assert no_intent.means_no_intent(name) is is_likely


@pytest.mark.parametrize("name", ["Other / unclear", "other, misc", 'the "other" & $x'])
def test_the_option_for_such_labels_can_be_copied(name: str) -> None:
    _, option = shlex.split(no_intent.override_of([name, "oos"]))
    settings = load(DataConfig, None, ["dataset_name=x", option])
    assert settings.out_of_scope_labels == [name, "oos"]


def test_plain_names_stand_in_the_option_as_they_are() -> None:
    option = no_intent.override_of(["Other / unclear"])
    assert option == '--set "out_of_scope_labels=[Other / unclear]"'


def test_extra_rows_with_such_a_label_are_out_of_scope_in_train(run: Run) -> None:
    source = write_csv(Path("a.csv"), pairs("oos"))
    extra = write_csv(Path("b.csv"), [("a cardigan", "card"), ("a zebra", "oos"), *pairs("oos")])
    more = {"extra_train": str(extra), "split": "cross", "out_of_scope_labels": ["oos"]}
    data = run_etl(run, source, **more)
    assert "a cardigan" in data.read("train").texts
    assert data.read_out_of_scope()["train"].count("a zebra") == 1
    assert len(data.read_out_of_scope()["train"]) == 9


def test_the_data_hash_is_that_of_the_intents_alone(run: Run) -> None:
    without = run_etl(run, write_csv(Path("a.csv"), pairs()), split="stable")
    assert without.read_out_of_scope() == {}
    assert without.out_of_scope_hash is None

    table = write_table("a.parquet", pairs("oos"), channel=["app"] * 28)
    more = {"out_of_scope_labels": ["oos"], "keep_columns": ["channel"]}
    with_both = run_etl(run, table, split="stable", **more)
    assert with_both.labels.hash == without.labels.hash

    # A row's id names its file, so that the same file is read for the comparison of columns.
    plain = run_etl(run, table, split="stable", out_of_scope_labels=["oos"])
    assert plain.hash == with_both.hash
    assert plain.out_of_scope_hash == with_both.out_of_scope_hash


def test_a_changed_file_of_such_rows_is_refused(run: Run) -> None:
    source = write_csv(Path("a.csv"), pairs("oos"))
    data = run_etl(run, source, out_of_scope_labels=["oos"])
    with Path("out/out_of_scope.parquet").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(DataError, match="sha256 differs"):
        data.read_out_of_scope()


@pytest.mark.parametrize("split", ["stable", "stratified", "cross"])
def test_kept_columns_stay_with_their_rows(run: Run, split: str) -> None:
    rows = pairs()
    channel: list[object] = [text.upper() for text, _ in rows]
    age: list[object] = [None, *[float(number) for number in range(1, len(rows))]]
    source = write_table("a.parquet", rows, channel=channel, age=age, unused=channel)
    few = {} if split == "cross" else {"few_shot": 3}
    data = run_etl(run, source, split=split, keep_columns=["channel", "age"], **few)

    found = {}
    for name in ("train",) if split == "cross" else ("train", "val", "test"):
        part = data.read(name)
        assert list(part.columns) == ["channel", "age"]
        assert part.columns["channel"] == [text.upper() for text in part.texts]
        found.update(zip(part.texts, part.columns["age"], strict=True))
        names = pq.read_schema(f"out/{name}.parquet").names
        assert names == [*dataset.SCHEMA.names, "channel", "age"]

    for place, (text, _) in enumerate(rows):
        assert text not in found or found[text] == (str(place) if place else None)
    figures = read_report()["columns"]
    assert figures["channel"]["missing"] == 0
    assert "| age |" in Path("out/report.md").read_text()


def test_kept_columns_of_csv_and_json_lines_in_a_folder_and_of_merged_rare_intents(
    run: Run,
) -> None:
    Path("a").mkdir()
    lines = [f"{text},{label},web" for text, label in pairs()]
    lines += ["so odd,rare,", "so rare,rarer,phone"]
    Path("a/train.csv").write_text("\n".join(["text,label,via", *lines]))
    test = [
        {"text": "a card", "label": "card", "via": "app"},
        {"text": "a fee", "label": "fees", "via": ["x", 1]},
    ]
    Path("a/test.jsonl").write_text("\n".join(map(json.dumps, test)))

    data = run_etl(run, "a", keep_columns=["via"], rare="merge:other", val_split=0.2)
    assert data.read("test").columns == {"via": ["app", '["x", 1]']}
    train = data.read("train") + data.read("val")
    via = dict(zip(train.texts, train.columns["via"], strict=True))
    assert via["so odd"] is None
    assert via["so rare"] == "phone"
    most = read_report()["columns"]["via"]["most_frequent"]
    assert most == {"web": 20, '["x", 1]': 1, "app": 1, "phone": 1}


def test_columns_of_a_saved_dataset_are_kept_and_its_class_order_loses_a_label(run: Run) -> None:
    import datasets

    rows = pairs("oos")
    names = ["oos", "fees", "card"]
    features = {
        "text": datasets.Value("string"),
        "label": datasets.ClassLabel(names=names),
        "via": datasets.ClassLabel(names=["app", "web"]),
    }
    table = {
        "text": [text for text, _ in rows],
        "label": [names.index(label) for _, label in rows],
        "via": [1, *[0] * (len(rows) - 1)],
    }
    datasets.Dataset.from_dict(table, features=datasets.Features(features)).save_to_disk("saved")

    more = {"split": "cross", "out_of_scope_labels": ["oos"], "keep_columns": ["via"]}
    data = run_etl(run, "saved", **more)
    assert data.labels.names == ("fees", "card")
    assert data.read("train").columns["via"] == ["web", *["app"] * 19]
    line = run_error_beside(run, "saved", keep_columns=["gone"])
    assert 'saved has no column "gone"; it has text, label, via' in line


def test_a_column_that_one_split_lacks_is_an_error_that_says_where(run: Run) -> None:
    write_table("a/train.parquet", pairs(), channel=["app"] * 20)
    write_table("a/test.parquet", pairs(), device=["app"] * 20)
    line = run_error(run, "a", keep_columns=["channel"])
    assert 'test.parquet has no column "channel"; it has text, label, device' in line
    assert "keep_columns" in line


def test_columns_of_ours_and_sources_without_columns_are_refused(run: Run) -> None:
    source = write_table("a.parquet", pairs(), Label_Text=["x"] * 20)
    line = run_error(run, source, keep_columns=["Label_Text"])
    assert "Label_Text is a name of ETL's own columns" in line
    assert "stands twice" in run_error(run, source, keep_columns=["a", "a"])

    rows = [list(pair) for pair in pairs()]
    Path("a.json").write_text(json.dumps({"train": rows, "val": rows, "test": rows}))
    assert "Remove keep_columns" in run_error(run, "a.json", keep_columns=["channel"])

    Path("nlu.yml").write_text("nlu:\n- intent: a\n  examples: |\n    - hello\n    - hi there\n")
    line = run_error(run, "nlu.yml", keep_columns=["channel"])
    assert "without columns to keep (channel)" in line


def test_a_cell_of_any_type_is_kept_as_a_string() -> None:
    values = [None, "", " ", "a  b", 3, 3.0, 2.5, float("nan"), True, {"a": 1}, "\ud800", "\udcff"]
    expected = [None, None, None, "a b", "3", "3", "2.5", None, "true", '{"a": 1}', "?", "?"]
    assert list(map(as_kept, values)) == expected
    assert as_kept(1e300) == str(int(1e300))
    assert as_kept(float("inf")) == "inf"


def test_split_data_carries_its_columns() -> None:
    part = SplitData(["a", "b"], ["x", "y"], [0, 1], {"via": ["app", None]})
    assert part.take([1, 0, 1]).columns == {"via": [None, "app", None]}
    assert part.without_labels().columns == part.columns

    other = SplitData(["c"], ["z"], [0], {"age": ["7"]})
    assert (part + other).columns == {"via": ["app", None, None], "age": [None, None, "7"]}
    assert (part + SplitData.empty()).columns == part.columns


def test_an_evaluation_reads_columns_of_a_table_and_those_that_etl_kept(run: Run) -> None:
    channels: list[object] = ["app", "web"] * 10
    source = write_table("a.parquet", pairs(), channel=channels, age=list(range(20)))
    settings = EvalConfig(checkpoint_path=Path("model"), data_dir=source, by=["age"])
    rows = labelled.read_table(source, settings)
    assert rows.columns == {"channel": channels, "age": list(map(str, range(20)))}

    data = run_etl(run, source, split="cross", repeats=2, keep_columns=["channel"])
    held_out = labelled.read_held_out(data)
    assert len(held_out.columns["channel"]) == len(held_out.ids) == 40
    assert held_out.of_first_repeat().columns == labelled.read_dataset(data, "train").columns


def test_the_general_set_is_varied_clean_and_of_no_bank() -> None:
    texts = general.read_general()
    assert len(texts) >= 600
    assert all(texts)
    assert texts == list(map(fold, texts))
    assert len({normalise(text) for text in texts}) == len(texts)
    assert general.general_hash()

    bundled = (REPOSITORY / "data/bundled/sentences.csv").read_text(encoding="utf-8")
    assert not [text for text in texts if f"\n{text}," in bundled]
    # A template would give many sentences one beginning.
    beginnings = [" ".join(normalise(text).split()[:4]) for text in texts]
    assert max(map(beginnings.count, beginnings)) < 0.01 * len(texts)


@needs_datasets
def test_no_general_sentence_is_one_of_banking77_or_clinc150() -> None:
    known = set()
    for split in ("train", "test"):
        with (DATASETS / "banking77" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            known |= {normalise(row["text"]) for row in csv.DictReader(file)}

    parts = json.loads((DATASETS / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    for part in parts.values():
        known |= {normalise(text) for text, _ in part}
    assert not known & set(map(normalise, general.read_general()))
