"""Tables without a header: found by their content or by `header: none`, and read by all in the same way."""

import csv
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from conftest import write_yaml
from score_fixtures import WordModel
from score_fixtures import settings as score_settings

from bankintent import configfile
from bankintent.config import DataConfig, EvalConfig, TableKeys
from bankintent.corpus import sources, tables
from bankintent.corpus.rows import Source
from bankintent.errors import ConfigError, DataError
from bankintent.gradio_app import upload
from bankintent.gradio_app.inspection import inspect
from bankintent.inference import labelled
from bankintent.scoring.score import score

PAIRS = [
    ("my card is gone", "card_lost"),
    ("where is my card", "card_lost"),
    ("what is a euro worth", "exchange"),
    ("add money", "top_up"),
    ("put money in, please", "top_up"),
]
"""Sentences and intents; the first intent stands twice."""

SWAPPED = [(label, text) for text, label in PAIRS]


def write(name: str, rows: list[tuple[Any, ...]], delimiter: str = ",") -> Path:
    path = Path(name)
    if path.suffix == ".xlsx":
        workbook = openpyxl.Workbook()
        for row in rows:
            workbook.active.append(row)
        workbook.save(path)
        return path

    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def read(path: Path, **more: Any) -> Source:
    return sources.read(DataConfig(dataset_name=f"./{path}", **more))


def pairs_of(source: Source) -> list[tuple[Any, Any]]:
    return [(row.text, row.label) for row in source.rows["all"]]


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")])
def test_a_file_that_begins_with_a_sentence_and_an_intent_has_no_header(
    name: str, delimiter: str
) -> None:
    source = read(write(name, PAIRS, delimiter))

    assert pairs_of(source) == PAIRS
    [reading] = source.reading
    assert (reading.text, reading.label, reading.rows) == ("1", "2", 5)
    assert reading.format == f"{name[2:].upper()} without a header"
    assert [(row.number, row.line) for row in source.rows["all"]][:2] == [(1, 1), (2, 2)]


@pytest.mark.parametrize("name", ["a.csv", "a.xlsx"])
def test_intents_may_stand_in_the_first_column(name: str) -> None:
    source = read(write(name, SWAPPED))

    assert pairs_of(source) == PAIRS
    assert (source.reading[0].text, source.reading[0].label) == ("2", "1")


def test_a_workbook_without_a_header_is_found_too() -> None:
    source = read(write("a.xlsx", PAIRS))
    assert pairs_of(source) == PAIRS
    assert source.reading[0].format == "Excel without a header"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("frage", "absicht"), *PAIRS], "names of columns"),
        ([("frage", "absicht"), *PAIRS, ("frage", "absicht"), *PAIRS], "two files put together"),
        ([("Email", "spam"), ("win", "spam"), ("hi", "ham"), ("ok", "ham")], "common names"),
        ([("0", "1"), ("hello", "1"), ("bye", "2"), ("hi", "1")], "numbers of columns"),
        ([("hello", "greet"), ("bye", "leave"), ("hi", "hey")], "no intent again"),
        ([("hello", "greet", "en"), ("hi", "greet", "en")], "three columns"),
        ([("hello",), ("hello",), ("bye",)], "one column"),
        ([("a", "b"), ("a", "c"), ("d", "b"), ("a", "b")], "either column may be the intents"),
    ],
)
def test_no_header_is_taken_away_where_it_may_be_one(
    rows: list[tuple[str, ...]], reason: str
) -> None:
    path = write("a.csv", rows)

    with pytest.raises(DataError) as error:
        read(path)
    listed = ", ".join(rows[0])
    assert str(error.value) == (
        "a.csv has none of the columns text, sentence, utterance, query, message; it has "
        f"{listed}. Name the column with --set text_column=NAME, or --set header=none where its "
        "first row is no header."
    ), reason


@pytest.mark.parametrize(
    ("header", "keys"),
    [
        (("text", "label"), {}),
        (("TEXT", "card_lost"), {"label_column": "card_lost"}),
        (("card_lost", "card_lost_2"), {"text_column": "card_lost", "label_column": "card_lost_2"}),
        (("1", "2"), {"text_column": "1", "label_column": "2"}),
        (("say", "card_lost"), {"text_column": "say", "label_column": "card_lost"}),
    ],
)
def test_a_header_that_is_known_configured_or_asked_for_stays(
    header: tuple[str, str], keys: dict[str, Any]
) -> None:
    source = read(write("a.csv", [header, *PAIRS]), **keys)

    assert pairs_of(source) == PAIRS
    assert source.reading[0].format == "CSV"


def test_a_file_that_is_told_to_have_a_header_keeps_it() -> None:
    with pytest.raises(DataError, match="it has my card is gone, card_lost"):
        read(write("a.csv", PAIRS), header="first")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.xlsx"])
def test_columns_of_a_table_without_a_header_are_named_by_number(name: str) -> None:
    rows = [(str(index), text, "en", label) for index, (text, label) in enumerate(PAIRS)]
    path = write(name, rows, "\t" if name == "a.tsv" else ",")

    source = read(path, header="none", text_column="2", label_column="4")
    assert pairs_of(source) == PAIRS
    keys = TableKeys(header="none", text_column="2")
    assert tables.open_table(path, keys).columns == ["1", "2", "3", "4"]


def test_of_two_columns_the_first_holds_the_sentences() -> None:
    rows = [("hello", "greet"), ("bye", "leave")]
    assert pairs_of(read(write("a.csv", rows), header="none")) == rows

    swapped = read(write("a.csv", rows), header="none", label_column="1")
    assert pairs_of(swapped) == [("greet", "hello"), ("leave", "bye")]


def test_a_blank_column_is_none() -> None:
    path = write("a.xlsx", [(None, text, None, label) for text, label in PAIRS])
    source = read(path, header="none")
    assert pairs_of(source) == PAIRS
    assert (source.reading[0].text, source.reading[0].label) == ("2", "4")

    path = write("a.csv", [(text, label, "") for text, label in PAIRS])
    assert pairs_of(read(path, header="none")) == PAIRS
    assert pairs_of(read(path)) == PAIRS


@pytest.mark.parametrize(
    ("keys", "next_step"),
    [
        ({}, "--set text_column=NUMBER and --set label_column=NUMBER."),
        ({"text_column": "1"}, "--set label_column=NUMBER."),
    ],
)
def test_more_columns_must_be_named_and_the_first_row_is_shown(
    keys: dict[str, Any], next_step: str
) -> None:
    path = write("a.csv", [(text, "en", label) for text, label in PAIRS])

    with pytest.raises(DataError) as error:
        read(path, header="none", **keys)
    assert str(error.value) == (
        'a.csv has no header and 3 columns; its first row is 1: "my card is gone", 2: "en", '
        f'3: "card_lost". Name the columns by their numbers: {next_step}'
    )


def test_a_number_without_a_column_is_refused() -> None:
    with pytest.raises(DataError, match='has no column "3"; it has 1, 2'):
        read(write("a.csv", PAIRS), header="none", label_column="3")


def test_a_wide_row_is_no_reason_for_a_column_more() -> None:
    path = Path("a.csv")
    path.write_text("hello,greet\nwhat, now,greet\nbye,leave\n")

    with pytest.raises(DataError) as error:
        read(path, header="none")
    assert str(error.value).startswith("a.csv line 2 has 3 cells, most rows 2. Put quotes")
    assert len(read(path, header="none", bad_rows="drop").rows["all"]) == 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_format_with_names_takes_no_header_none(name: str) -> None:
    Path(name).write_text('{"text": "a", "label": "b"}\n')

    with pytest.raises(DataError, match="header: none is for CSV and workbooks"):
        tables.open_table(Path(name), TableKeys(header="none"))


@pytest.mark.parametrize("number", ["2", 2])
def test_a_config_names_a_column_by_number_with_or_without_quotes(number: object) -> None:
    path = write_yaml(Path("data.yaml"), dataset_name="bundled", header="none", text_column=number)
    config = configfile.load(DataConfig, path, ["label_column=1"])
    assert (config.text_column, config.label_column, config.header) == ("2", "1", "none")


def test_another_header_is_refused() -> None:
    path = write_yaml(Path("data.yaml"), dataset_name="bundled", header="second")
    with pytest.raises(ConfigError, match="header"):
        configfile.load(DataConfig, path, [])


@pytest.mark.parametrize(
    ("rows", "keys", "column"),
    [
        (PAIRS, {}, 0),
        (SWAPPED, {}, 1),
        ([("hello", "en", "x")], {"header": "none", "text_column": "1"}, 0),
        ([("hello",), ("bye",)], {"header": "none"}, 0),
    ],
)
def test_score_reads_every_row_and_writes_a_header(
    rows: list[tuple[str, ...]], keys: dict[str, Any], column: int
) -> None:
    source = write("in.csv", rows)
    settings = score_settings(source, Path("out.csv"), **keys)
    model: Any = WordModel()

    summary = score(settings, load=lambda: model)
    assert summary.rows == len(rows)
    assert sorted(model.tokenized) == sorted(row[column] for row in rows)

    with Path("out.csv").open(encoding="utf-8", newline="") as file:
        header, *written = csv.reader(file)
    numbers = [str(number + 1) for number in range(len(rows[0]))]
    assert header == [*numbers, "label", "score", "decision", "reason", "margin", "second"]
    assert [tuple(row[: len(numbers)]) for row in written] == rows


def test_score_asks_for_the_column_of_more_columns() -> None:
    source = write("in.csv", [("hello", "en")] * 2 + [("hello", "en", "x")] * 3)
    settings = score_settings(source, Path("out.csv"), header="none")
    with pytest.raises(DataError, match='first row is 1: "hello", 2: "en"'):
        score(settings)


def test_the_page_shows_the_numbers_and_reads_every_row() -> None:
    path = write("a.csv", SWAPPED)
    table = inspect(path, max_rows=100)
    assert (table.rows, table.columns) == (5, ["1", "2"])
    assert (table.text_column, table.label_column) == ("2", "1")

    # As the page asks for what was chosen.
    keys = upload.AS_FOUND.model_copy(update={"text_column": "2", "label_column": "1"})
    assert upload.read_upload(path, max_rows=100, keys=keys).texts == [text for text, _ in PAIRS]


def test_an_evaluation_reads_such_a_table_too() -> None:
    path = write("test.csv", PAIRS)
    rows = labelled.read_table(path, EvalConfig(checkpoint_path=Path("model"), data_dir=path))
    assert list(zip(rows.texts, rows.intents, strict=True)) == PAIRS

    path = write("two.csv", [("hello", "greet"), ("bye", "leave")])
    settings = EvalConfig(checkpoint_path=Path("model"), data_dir=path, header="none")
    assert labelled.read_table(path, settings).texts == ["hello", "bye"]


def test_extra_train_and_unlabelled_have_headers_of_their_own() -> None:
    write("main.csv", [(*pair, "en") for pair in PAIRS])
    write("extra.csv", [("text", "label"), *PAIRS])
    write("more.csv", [("text",), ("one",), ("two",)])
    config = DataConfig(
        dataset_name="./main.csv",
        header="none",
        text_column="1",
        label_column="2",
        extra_train="./extra.csv",
        unlabelled=Path("more.csv"),
    )

    read_all = sources.read_all(config)
    assert read_all.extra_train is not None and read_all.unlabelled is not None
    assert pairs_of(read_all.extra_train) == PAIRS
    assert [row.text for row in read_all.unlabelled.rows["all"]] == ["one", "two"]
