"""One reader of tables: ETL, `score` and the Gradio page read the same file in the same way."""

import re
from pathlib import Path

import pytest
from conftest import write_csv
from score_fixtures import settings as score_settings
from tiny_models import rows

from bankintent.config import DataConfig
from bankintent.corpus import cleaning, sources, tables
from bankintent.corpus.columns import TEXT_COLUMNS
from bankintent.errors import DataError
from bankintent.gradio_app import upload
from bankintent.gradio_app.client import Trouble
from bankintent.scoring import precheck


def read_with_etl(path: Path) -> list[str]:
    """The texts that ETL keeps."""
    config = DataConfig(dataset_name=str(path.absolute()), label_column="id")
    source = sources.read(config)
    examples, _ = cleaning.clean(source.rows["all"], config.max_chars)
    return [example.text for example in examples]


def read_for_scoring(path: Path) -> list[str]:
    """The texts that `score` hands to the model."""
    table = tables.open_table(path)
    column = precheck.find_text(table, score_settings(path, Path("out.csv")))
    texts: list[str] = []
    for chunk in table.chunks(2, column):
        texts += precheck.texts_of(chunk).to_pylist()
    return texts


def read_on_the_page(path: Path) -> list[str]:
    """The texts that the Gradio page sends to the API."""
    table = upload.read_upload(path, max_rows=100)
    return [row[table.column] for row in table.rows]


READERS = (read_with_etl, read_for_scoring, read_on_the_page)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_find_the_same_delimiter_and_lines(delimiter: str, end: str) -> None:
    lines = [("id", "text"), ("1", '"one; two, three\tfour"'), ("", ""), ("2", "plain")]
    content = end.join(delimiter.join(line) if any(line) else "" for line in lines)
    Path("in.csv").write_bytes(b"\xef\xbb\xbf" + content.encode())

    for read in READERS:
        texts = [text.replace("\t", " ") for text in read(Path("in.csv"))]
        assert texts == ["one; two, three four", "plain"], read


@pytest.mark.parametrize("name", TEXT_COLUMNS)
def test_all_know_the_same_columns(name: str) -> None:
    header = f"id,other,{name.upper()}"
    path = write_csv(Path("in.csv"), [("1", "no", "yes")], header)  # type: ignore[list-item]

    for read in READERS:
        assert read(path) == ["yes"], read


def test_all_refuse_a_table_without_a_known_column() -> None:
    path = write_csv(Path("in.csv"), [("1", "x")], "id,words")

    for read in READERS:
        with pytest.raises((DataError, Trouble), match="has none of the columns text, sentence"):
            read(path)


def test_a_short_row_has_empty_cells_for_all() -> None:
    path = Path("in.csv")
    path.write_text("id,text,more\n1,first\n2,second,\n")

    for read in READERS:
        assert read(path) == ["first", "second"], read
    assert upload.read_upload(path, max_rows=2).rows == [["1", "first", ""], ["2", "second", ""]]


def test_a_wide_row_is_refused_by_etl_and_stops_who_must_give_back_every_row() -> None:
    path = Path("in.csv")
    path.write_text('id,text\n1,"two\nlines"\n2,no, quotes\n3,fine\n')

    config = DataConfig(dataset_name="./in.csv", label_column="id")
    examples, refusals = cleaning.clean(sources.read(config).rows["all"], config.max_chars)
    assert [example.text for example in examples] == ["two lines", "fine"]
    assert [refusal.id for refusal in refusals] == ["in.csv:2"]
    assert "too many cells" in refusals[0].reason

    message = "in.csv line 4 has 3 cells, the header 2."
    message += " Put quotes around a text that holds the delimiter."
    with pytest.raises(DataError, match=re.escape(message)):
        read_for_scoring(path)
    with pytest.raises(Trouble) as trouble:
        upload.read_upload(path.absolute(), max_rows=100)
    assert str(trouble.value) == message  # without the server's folder


@pytest.mark.parametrize("header", [",text,label", "text,label,"])
def test_a_column_without_a_name_is_no_surplus(header: str) -> None:
    """As pandas writes its index, and as spreadsheets write notes at the side."""
    pairs = rows(16)
    lines = [header]
    for number, (text, label) in enumerate(pairs):
        note = str(number) if number % 2 else ""
        lines.append(
            f"{note},{text},{label}" if header.startswith(",") else f"{text},{label},{note}"
        )
    path = Path("in.csv")
    path.write_text("\n".join(lines))

    config = DataConfig(dataset_name="./in.csv")
    examples, refusals = cleaning.clean(sources.read(config).rows["all"], config.max_chars)
    assert not refusals
    assert [(example.text, example.label_text) for example in examples] == pairs
    for read in (read_for_scoring, read_on_the_page):
        assert read(path) == [text for text, _ in pairs]


def test_only_etl_reads_on_past_bytes_that_are_no_text() -> None:
    path = Path("in.csv")
    path.write_bytes(b"id,text\n1,fine\n2,br\xffken\n3,good\n")

    assert read_with_etl(path) == ["fine", "good"]
    for read in (read_for_scoring, read_on_the_page):
        with pytest.raises((DataError, Trouble), match=r"in\.csv is not UTF-8 text"):
            read(path)


def test_a_parquet_file_has_no_columns_of_its_folders() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path("text=oops/in.parquet")
    path.parent.mkdir()
    pq.write_table(pa.table({"id": ["1"], "sentence": ["hello"]}), path)
    for read in (read_with_etl, read_for_scoring):
        assert read(path) == ["hello"]
