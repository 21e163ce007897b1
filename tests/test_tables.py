"""One reader of tables: ETL, `score` and the Gradio page read the same file in the same way."""

import csv
import gzip
import json
import random
from datetime import date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATASETS, needs_datasets, write_csv
from pydantic import ValidationError
from score_fixtures import settings as score_settings
from tiny_models import rows

from bankintent.config import DataConfig, TableKeys
from bankintent.corpus import cleaning, sources, tables
from bankintent.corpus.columns import TEXT_COLUMNS
from bankintent.corpus.encoding import EncodingFault
from bankintent.corpus.rows import Reading, Source
from bankintent.errors import DataError
from bankintent.gradio_app import upload
from bankintent.gradio_app.client import Trouble
from bankintent.scoring import precheck


def etl_config(path: Path, **more: Any) -> DataConfig:
    return DataConfig(dataset_name=f"./{path}", **{"label_column": "id", **more})


def read_with_etl(path: Path, **more: Any) -> list[str]:
    """The texts that ETL keeps."""
    config = etl_config(path, **more)
    source = sources.read(config)
    examples, _ = cleaning.clean(source.rows["all"], config.max_chars)
    return [example.text for example in examples]


def read_for_scoring(path: Path, **more: Any) -> list[str]:
    """The texts that `score` hands to the model."""
    settings = score_settings(path, Path("out.csv"), **more)
    table = tables.open_table(path, settings)
    column = precheck.find_text_index(table, settings)
    texts: list[str] = []
    for chunk in table.chunks(2, column):
        texts += precheck.texts_of(chunk).to_pylist()
    return texts


def read_on_the_page(path: Path) -> list[str]:
    """The texts that the Gradio page sends to the API."""
    return upload.read_upload(path, max_rows=100).texts


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
    assert upload.read_upload(path, max_rows=2).rows["more"].to_pylist() == ["", ""]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_wide_row_stops_all_and_its_line_is_the_editors(end: str) -> None:
    lines = ["id,text", '1,"two', 'lines"', "", "2,no, quotes", "3,fine"]
    path = Path("in.csv")
    path.write_bytes(end.join(lines).encode())

    for read in READERS:
        with pytest.raises((DataError, Trouble)) as error:
            read(path)
        message = str(error.value)
        assert message.startswith("in.csv line 5 has 3 cells, the header 2. Put quotes"), read


def test_etl_leaves_wide_rows_out_where_it_is_told_to() -> None:
    path = Path("in.csv")
    path.write_text("id,text\n1,fine\n2,no, quotes\n3,good\n")
    config = DataConfig(dataset_name="./in.csv", label_column="id", bad_rows="drop")

    rows = sources.read(config).rows["all"]
    assert [(row.number, row.line, row.text) for row in rows] == [
        (1, 2, "fine"),
        (2, 3, None),
        (3, 4, "good"),
    ]


def test_empty_cells_beyond_the_header_are_no_surplus() -> None:
    path = Path("in.csv")
    path.write_text("id,text\n1,first,,\n2,second, \n")
    for read in READERS:
        assert read(path) == ["first", "second"], read


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


GERMAN = ["Ich hätte gern das Geld zurück", "Käufe – für 5 €"]


def german(ending: str, encoding: str) -> Path:
    """GERMAN as a table of the format in an encoding."""
    path = Path(f"in{ending}")
    match ending.removesuffix(".gz"):
        case ".csv":
            content = "\n".join(["id;text", *[f"1;{text}" for text in GERMAN]])
        case ".jsonl":
            records = [{"id": "1", "text": text} for text in GERMAN]
            content = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
        case _:
            records = [{"id": "1", "text": text} for text in GERMAN]
            content = json.dumps(records, ensure_ascii=False)

    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


TEXT_FORMATS = [".csv", ".csv.gz", ".json", ".jsonl"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", TEXT_FORMATS)
def test_all_read_unicode_as_it_is(ending: str, encoding: str) -> None:
    path = german(ending, encoding)
    for read in READERS:
        assert read(path) == GERMAN, read


@pytest.mark.parametrize("ending", TEXT_FORMATS)
def test_another_encoding_is_named_and_read_with_its_key(ending: str) -> None:
    path = german(ending, "cp1252")
    for read in READERS:
        with pytest.raises((DataError, Trouble)) as error:
            read(path)
        message = str(error.value)
        assert f"{path} is not UTF-8 text (line " in message, read
        assert "it looks like cp1252. " in message, read

        is_command = read is not read_on_the_page
        assert ("Set encoding: cp1252 (--set encoding=cp1252)" in message) == is_command

    for read in (read_with_etl, read_for_scoring):
        assert read(path, encoding="cp1252") == GERMAN
        assert read(path, encoding="Windows-1252") == GERMAN


def test_the_line_of_the_first_bytes_that_are_no_text_is_named() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        lines = [b"id;text", *[b"1;fine"] * 20_000, b"1;gr\xfc\xdfe"]
        Path("in.csv").write_bytes(end.join(lines))
        with pytest.raises(DataError, match=r"UTF-8 text \(line 20002\); it looks like cp1252"):
            read_with_etl(Path("in.csv"))


def test_a_broken_line_in_utf8_is_no_other_encoding() -> None:
    lines = [f"1;{text}".encode() for text in GERMAN]
    Path("in.csv").write_bytes(b"\n".join([b"id;text", *lines, b"1;br\xffken"]))
    for read in READERS:
        with pytest.raises((DataError, Trouble), match=r"\(line 4\)\. The other lines are UTF-8"):
            read(Path("in.csv"))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1250", "Zgubiłem ją wczoraj w sklepie, proszę o pomoc, źle działa"),
        ("cp1251", "Почему мой перевод не пришёл? Где моя карта?"),
        ("koi8_r", "Почему мой перевод не пришёл? Где моя карта?"),
        ("cp932", "私のカードはどこですか？昨日なくしました"),
        ("gb18030", "我的卡在哪里？为什么我的退款还没有到账"),
        ("cp850", "Ich hätte gern das Geld zurück, Rückerstattung für Käufe"),
        ("cp1252", "it costs £5"),
        ("cp1252", "I don’t know"),
        ("cp1252", "Überweisung"),
        ("cp1252", "Où est ma carte ? Je l’ai déjà demandée à l’été"),
        ("cp1252", "¿Dónde está mi tarjeta? Mañana la necesito"),
    ],
)
def test_the_encoding_that_a_text_looks_like(encoding: str, text: str) -> None:
    for repeats in (1, 50):
        path = Path("in.csv")
        path.write_bytes("\n".join(["id;text", *[f"1;{text}"] * repeats]).encode(encoding))
        with pytest.raises(EncodingFault) as error:
            read_with_etl(path)
        assert error.value.looks_like == encoding


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_its_mark_is_named(encoding: str) -> None:
    path = german(".csv", encoding)
    for read in READERS:
        with pytest.raises((DataError, Trouble), match=f"it looks like {encoding} without a byte"):
            read(path)
    for key in (encoding, "utf-16"):
        assert read_with_etl(path, encoding=key) == GERMAN


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_is_read_as_such_whatever_the_key_says(encoding: str) -> None:
    path = german(".csv", encoding)
    assert read_with_etl(path, encoding="cp1252") == GERMAN
    [reading] = sources.read(etl_config(path, encoding="cp1252")).reading
    assert reading.encoding == encoding.removesuffix("-sig")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("ascii", r"is not ascii text \(line 2\); it looks like cp1252"),
        ("utf-16", "is not UTF-16 text"),
        ("utf-8", r"is not UTF-8 text \(line 2\); it looks like cp1252"),
        ("latin-1", "line 3 holds control characters when read as iso8859-1; it looks like cp1252"),
    ],
)
def test_a_wrong_key_names_what_the_file_looks_like(key: str, message: str) -> None:
    path = german(".csv", "cp1252")
    for read in (read_with_etl, read_for_scoring):
        with pytest.raises(DataError, match=message):
            read(path, encoding=key)


def test_ascii_under_the_key_of_utf16_is_told_to_be_utf8() -> None:
    path = Path("in.csv")
    path.write_text("id,text\n1,plain\n")
    with pytest.raises(DataError, match=r"it is UTF-8\. Leave the key encoding out"):
        read_with_etl(path, encoding="utf-16")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoding", "cp125", "'cp125' is no encoding"),
        ("encoding", "base64", "'base64' is no encoding of text"),
        ("delimiter", "ab", "a delimiter is one character"),
        ("delimiter", '"', "a delimiter is one character"),
    ],
)
def test_keys_that_mean_nothing_are_refused(key: str, value: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TableKeys(**{key: value})


def test_a_parquet_file_has_no_columns_of_its_folders() -> None:
    path = Path("text=oops/in.parquet")
    path.parent.mkdir()
    pq.write_table(pa.table({"id": ["1"], "sentence": ["hello"]}), path)
    for read in (read_with_etl, read_for_scoring):
        assert read(path) == ["hello"]


def write_workbook(path: Path, sheets: dict[str, list[list[Any]]]) -> Path:
    workbook = openpyxl.Workbook()
    for name, table in sheets.items():
        sheet = workbook.create_sheet(name)
        for row in table:
            sheet.append(row)
    # The one that every new workbook has.
    workbook.remove(workbook.worksheets[0])
    workbook.save(path)
    return path


MAILS = [["id", "text"], [1, "my card is lost"], [2, "two\nlines"]]


def test_all_read_a_workbook() -> None:
    path = write_workbook(Path("in.xlsx"), {"Mails": MAILS})
    assert read_with_etl(path) == ["my card is lost", "two lines"]
    for read in (read_for_scoring, read_on_the_page):
        assert read(path) == ["my card is lost", "two\nlines"], read


def test_a_sheet_is_chosen_by_name_and_the_others_are_told() -> None:
    path = write_workbook(Path("in.xlsx"), {"Notes": [["about"]], "Mails": MAILS, "Blank": []})
    for read in (read_with_etl, read_for_scoring):
        assert len(read(path, sheet="Mails")) == 2
        with pytest.raises(DataError, match='no sheet "Mail"; it has Notes, Mails, Blank'):
            read(path, sheet="Mail")
        with pytest.raises(
            DataError, match=r'the sheet "Blank" of in\.xlsx is empty\. Name another'
        ):
            read(path, sheet="Blank")

    source = sources.read(etl_config(path, sheet="Mails"))
    assert [reading.sheet for reading in source.reading] == ["Mails"]
    assert source.unread == ['the sheet "Notes" of in.xlsx']


def test_cells_of_a_workbook_are_the_values_that_people_see() -> None:
    when = datetime(2024, 1, 2, 3, 4)
    table = [
        [],
        ["text", 2024, "share", "yes", "when", "day", None],
        ["hello", 3, 0.5, True, when, date(2024, 1, 2), None],
        [],
        ["again", 4.0, None, False, None, None, "a note"],
    ]
    opened = tables.open_table(write_workbook(Path("in.xlsx"), {"a": table}))

    assert opened.columns == ["text", "2024", "share", "yes", "when", "day", ""]
    first, second = opened.records()
    assert first.cells == ["hello", 3, 0.5, True, when, date(2024, 1, 2), None]
    assert type(first.cells[1]) is int
    assert (first.number, first.line) == (1, 3)
    assert second.cells[:4] == ["again", 4, None, False]
    assert (second.number, second.line) == (2, 5)

    kinds = [str(kind) for kind in opened.schema.types]
    assert kinds[:4] == ["string", "int64", "double", "bool"]
    [chunk] = opened.chunks(10)
    assert chunk.column(1).to_pylist() == [3, 4]


@pytest.mark.parametrize("content", [b"", b"text,label\n", b"PK\x03\x04no"])
def test_a_workbook_that_is_none_gets_one_line(content: bytes) -> None:
    Path("in.xlsx").write_bytes(content)
    for read in READERS:
        with pytest.raises((DataError, Trouble), match=r"not a readable \.xlsx workbook"):
            read(Path("in.xlsx"))


OBJECTS = [{"id": "1", "text": "first"}, {"id": "2", "text": "second", "more": [1]}]


@pytest.mark.parametrize("content", [OBJECTS, {"tickets": OBJECTS, "next": None, "old": []}])
def test_all_read_a_list_of_objects_at_the_top_or_one_level_down(content: Any) -> None:
    for name in ("in.json", "in.json.gz"):
        data = json.dumps(content).encode()
        Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        for read in READERS:
            assert read(Path(name)) == ["first", "second"], read


def test_several_lists_in_a_json_file_are_named() -> None:
    Path("in.json").write_text(json.dumps({"open": OBJECTS, "closed": OBJECTS, "total": 4}))
    for read in READERS:
        with pytest.raises((DataError, Trouble), match="2 lists of objects: open, closed"):
            read(Path("in.json"))


@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
def test_a_key_that_stands_twice_in_an_object_is_refused(name: str) -> None:
    record = '{"text": "a", "id": "x", "id": "y"}'
    Path(name).write_text(f"[{record}]" if name == "in.json" else record)
    for read in READERS:
        with pytest.raises((DataError, Trouble), match='names "id" twice'):
            read(Path(name))


def test_json_deeper_than_any_is_refused() -> None:
    Path("in.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="is not JSON"):
        read_with_etl(Path("in.json"))


def test_values_of_json_keep_their_types_and_mixed_ones_are_text() -> None:
    records = [
        {"text": "a", "n": 1, "mixed": 1, "nested": {"k": 1}, "big": 2**70},
        {"text": "b", "n": None, "mixed": "x", "nested": [2], "yes": True},
    ]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, records)))
    table = tables.open_table(Path("in.jsonl"))

    assert [record.cells[3] for record in table.records()] == [{"k": 1}, [2]]
    [chunk] = table.chunks(10)
    assert chunk.to_pydict() == {
        "text": ["a", "b"],
        "n": [1, None],
        "mixed": ["1", "x"],
        "nested": ['{"k": 1}', "2"],
        "big": [str(2**70), None],
        "yes": [None, True],
    }
    assert chunk.schema == table.schema


def test_a_lone_surrogate_of_json_stops_who_must_give_it_back() -> None:
    lines = ['{"id": "1", "text": "fine"}', "", '{"id": "2", "text": "bad \\ud800"}']
    Path("in.jsonl").write_text("\n".join(lines))
    assert read_with_etl(Path("in.jsonl")) == ["fine"]
    with pytest.raises(DataError, match=r"in\.jsonl line 3 holds a lone surrogate"):
        read_for_scoring(Path("in.jsonl"))


@pytest.mark.parametrize("header", ["id,text,text", "id,Text,text", "id,text, text"])
def test_a_column_in_question_that_stands_twice_is_refused_by_all(header: str) -> None:
    path = Path("in.csv")
    path.write_text(f"{header}\n1,a,b\n")
    for read in READERS:
        with pytest.raises(
            (DataError, Trouble), match=r"in\.csv has (2|the) columns .?\""
        ) as error:
            read(path)
        assert "text" in str(error.value)


@pytest.mark.parametrize("column", [None, "label"])
def test_a_label_column_that_stands_twice_is_refused(column: str | None) -> None:
    path = Path("in.csv")
    path.write_text("text,label,label\na,x,y\n")
    with pytest.raises(DataError, match=r'2 columns "label"\. Rename all but one'):
        read_with_etl(path, label_column=column)


def test_columns_that_nobody_reads_may_stand_twice() -> None:
    path = Path("in.csv")
    path.write_text("note,id,text,note,\nx,1,first,y,z\n")
    for read in READERS:
        assert read(path) == ["first"], read


def test_one_column_is_not_both_text_and_label() -> None:
    path = write_csv(Path("in.csv"), [("1", "x")], "id,text")
    with pytest.raises(DataError, match="cannot be both text and label"):
        read_with_etl(path, label_column="text")


def test_a_table_of_sentences_may_have_an_index() -> None:
    path = Path("more.csv")
    path.write_text(",my words\n0,first\n1,second\n")
    config = DataConfig(dataset_name="bundled", unlabelled=path)

    assert [row.text for row in sources.read_unlabelled(path, config).rows["all"]] == [
        "first",
        "second",
    ]
    for read in (read_for_scoring, read_on_the_page):
        assert read(path) == ["first", "second"], read


DELIMITED = [
    ("in.tsv", "id, raw\ttext\n1\ta, b\n", ["a, b"]),
    ("in.csv", "id, raw\ttext\n1\ta, b\n2\tc\n", ["a, b", "c"]),
    ("in.csv", "id, raw;text\n1,50;first, second\n2;third\n", ["first, second", "third"]),
    ("in.csv", "id,text;raw,text\n1,x,a; b\n2,y,c\n", ["a; b", "c"]),
    ("in.csv", '\n\n"id;x",text\n1,a;b\n', ["a;b"]),
    ("in.csv", "id|text\n1|a, b\n", ["a, b"]),
    ("in.tsv", "id,text\n1,a\tb\n", ["a\tb"]),
]


@pytest.mark.parametrize(("name", "content", "texts"), DELIMITED)
def test_all_find_the_delimiter_of_an_awkward_header(
    name: str, content: str, texts: list[str]
) -> None:
    path = Path(name)
    path.write_text(content)
    label = next(column for column in tables.open_table(path).columns if column != "text")
    assert read_with_etl(path, label_column=label) == [" ".join(text.split()) for text in texts]
    for read in (read_for_scoring, read_on_the_page):
        assert read(path) == texts, read


@pytest.mark.parametrize(("key", "character"), [("tab", "\t"), ("|", "|"), (":", ":")])
def test_a_delimiter_can_be_set(key: str, character: str) -> None:
    path = Path("in.csv")
    path.write_text(f"id{character}text\n1{character}a,b;c\n")
    for read in (read_with_etl, read_for_scoring):
        assert read(path, delimiter=key) == ["a,b;c"]
    [reading] = sources.read(etl_config(path, delimiter=key)).reading
    assert reading.delimiter == character


def with_stray_quotes(order: tuple[str, ...], first: int, last: int, end: str) -> str:
    """A CSV in which a quote opens the text of one row, and closes that of another."""
    lines = [",".join(order)]
    for number, (text, label) in enumerate(rows(16)):
        opened = '"' if number == first else ""
        closed = '"' if number == last else ""
        cells = {"text": f"{opened}{text}{closed}", "label": label, "id": f"a-{number}"}
        lines.append(",".join(cells[column] for column in order))
    return end.join(lines)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("order", [("text", "label"), ("label", "text"), ("id", "text", "label")])
@pytest.mark.parametrize(("first", "last"), [(0, 1), (3, 8), (0, 47)])
def test_rows_between_two_stray_quotes_are_refused_with_their_lines(
    first: int, last: int, order: tuple[str, ...], end: str
) -> None:
    content = with_stray_quotes(order, first, last, end)
    path = Path("in.csv")
    path.write_bytes(content.encode())

    message = f"in.csv lines {first + 2} to {last + 2} are read as one text"
    for read in READERS:
        arguments = {"label_column": "label"} if read is read_with_etl else {}
        with pytest.raises((DataError, Trouble), match=message):
            read(path, **arguments)


def test_stray_quotes_are_seen_by_numbers_and_dates_where_no_cell_repeats() -> None:
    path = Path("in.csv")
    lines = ["id,text,when"]
    for number in range(10, 20):
        text = {13: '"open', 16: 'close"'}.get(number, f"text {number}")
        lines.append(f"{number},{text},2024-01-{number}")
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match="lines 5 to 8 are read as one text"):
        read_for_scoring(path)


def test_texts_of_several_lines_are_no_stray_quotes() -> None:
    texts = [
        "Hello,\nmy card is lost",
        "Dear team,\nI have a card, please help,\nthank you, Ann",
        "one, two\nthree, four",
        "costs:\n1,000\n2,500",
        "a,b\nc,d",
        'he said "no"\nand left, really',
    ]
    pairs = [(text, label) for text, (_, label) in zip(texts, rows(16), strict=False)]
    path = write_csv(Path("in.csv"), [*pairs, *rows(16)])

    table = tables.open_table(path)
    assert [record.cells[0] for record in table.records()][: len(texts)] == texts


def test_texts_of_any_lines_come_back_as_they_were_written() -> None:
    draw = random.Random(5)
    signs = ["card", "a", ",", '"', "\n", " ", ";", "\r\n", "\t", "é"]
    pairs = []
    for _ in range(300):
        pairs.append(("x" + "".join(draw.choices(signs, k=12)), draw.choice("uvw")))

    path = write_csv(Path("in.csv"), [*pairs, ("plain", "u")], "text,kind")
    cells = [record.cells for record in tables.open_table(path).records()]
    assert cells == [list(pair) for pair in [*pairs, ("plain", "u")]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('id,text\n1,a\n2,"open\nb\n3,c\n', "line 3 .to line 5.: unexpected end of data"),
        ('id,text\n1,a\n2,"b" c\n', "line 3: ',' expected after"),
        ('id,text\n"1\n",a\n2,"x\ny" c\n', "line 4 .to line 5.: ',' expected after"),
    ],
)
def test_a_quote_that_does_not_close_is_named_by_its_line(content: str, message: str) -> None:
    path = Path("in.csv")
    path.write_text(content)
    for read in READERS:
        with pytest.raises((DataError, Trouble), match=f"in.csv {message}"):
            read(path)


@needs_datasets
def test_the_longer_texts_of_banking77_are_whole() -> None:
    path = DATASETS / "banking77" / "train.csv"
    table = tables.open_table(path)
    with path.open(encoding="utf-8", newline="") as file:
        expected = list(csv.reader(file))
    assert [record.cells for record in table.records()] == expected[1:]


FEATURES = {"text": {"dtype": "string", "_type": "Value"}}
NAMES = ["zebra", "apple", "mango"]


def write_classes(path: Path, labels: list[Any], names: list[str] = NAMES) -> Path:
    """A Parquet file as the library `datasets` writes it."""
    feature: Any = {"names": names, "_type": "ClassLabel"}
    if labels and isinstance(labels[0], list):
        feature = {"feature": feature, "_type": "List"}
    info = {"info": {"features": {**FEATURES, "label": feature}}}

    texts = [f"text {number}" for number in range(len(labels))]
    table = pa.table({"text": texts, "label": labels})
    table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return path


def labels_of(source: Source, split: str = "all") -> list[Any]:
    return [row.label for row in source.rows[split]]


def test_classes_of_a_parquet_file_have_their_names_and_order() -> None:
    write_classes(Path("in.parquet"), [2, 0, 1, -1, None])
    source = sources.read(DataConfig(dataset_name="./in.parquet"))
    assert labels_of(source) == ["mango", "zebra", "apple", None, None]
    assert source.label_order == tuple(NAMES)


def test_lists_of_classes_have_their_names() -> None:
    write_classes(Path("in.parquet"), [[2], [0, 1]])
    source = sources.read(DataConfig(dataset_name="./in.parquet"))
    assert labels_of(source) == [["mango"], ["zebra", "apple"]]


def test_a_class_without_a_name_is_refused() -> None:
    write_classes(Path("in.parquet"), [0, 3])
    with pytest.raises(DataError, match="holds the class 3, but has 3 names"):
        sources.read(DataConfig(dataset_name="./in.parquet"))


def test_a_folder_of_parquet_splits_has_the_order_that_its_files_share() -> None:
    folder = Path("data")
    write_classes(folder / "train-00000-of-00002.parquet", [2, 0])
    write_classes(folder / "train-00001-of-00002.parquet", [1])
    write_classes(folder / "test-00000-of-00001.parquet", [0])
    source = sources.read(DataConfig(dataset_name="./data"))
    assert labels_of(source, "train") == ["mango", "zebra", "apple"]
    assert source.label_order == tuple(NAMES)

    write_classes(folder / "test-00000-of-00001.parquet", [0], ["apple", "zebra"])
    source = sources.read(DataConfig(dataset_name="./data"))
    assert labels_of(source, "test") == ["apple"]
    assert source.label_order is None


@pytest.mark.parametrize("metadata", [b"not json", b"[]", b'{"info": {"features": [1]}}', b"{}"])
def test_metadata_of_others_is_passed_over(metadata: bytes) -> None:
    table = pa.table({"text": ["a"], "label": ["b"]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": metadata}), "in.parquet")
    assert read_with_etl(Path("in.parquet"), label_column="label") == ["a"]


@pytest.mark.parametrize(
    "names",
    [
        ("train.csv", "test.csv.gz", "val.tsv"),
        ("TRAIN.CSV", "Test.jsonl", "Validation.json"),
        ("train.xlsx", "test.parquet", "dev.jsonl.gz"),
        ("train.json.gz", "test.tsv.gz", "valid.xlsx"),
    ],
)
def test_a_folder_has_its_splits_in_files_of_any_ending(names: tuple[str, ...]) -> None:
    folder = Path("data")
    folder.mkdir()
    splits = ("train", "test", "val")
    for split, name in zip(splits, names, strict=True):
        write_any(folder / name, [(f"{split} one", "x"), (f"{split} two", "y")])

    source = sources.read(DataConfig(dataset_name="./data"))
    assert set(source.rows) == set(splits)
    for split in splits:
        texts = [row.text for row in source.rows[split]]
        assert texts == [f"{split} one", f"{split} two"]
    assert sorted(reading.file for reading in source.reading) == sorted(names)
    assert source.unread == []


def write_any(path: Path, pairs: list[tuple[str, str]]) -> None:
    """A labelled table in the format of the ending, in capitals or not."""
    records = [{"text": text, "label": label} for text, label in pairs]
    name = path.name.lower()
    match name.removesuffix(".gz").rpartition(".")[2]:
        case "parquet":
            pq.write_table(pa.Table.from_pylist(records), path)
            return
        case "xlsx":
            write_workbook(path, {"a": [["text", "label"], *map(list, pairs)]})
            return
        case "json":
            content = json.dumps(records)
        case "jsonl":
            content = "\n".join(map(json.dumps, records))
        case kind:
            delimiter = "\t" if kind == "tsv" else ","
            lines = [delimiter.join(pair) for pair in [("text", "label"), *pairs]]
            content = "\n".join(lines)

    data = content.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def test_files_of_a_folder_that_are_not_read_are_told() -> None:
    folder = Path("data")
    (folder / "old").mkdir(parents=True)
    for name in ("train.csv", "notes.csv", "test.txt", "README.md", "LICENSE", ".hidden"):
        write_csv(folder / name, [("a", "x")])
    source = sources.read(DataConfig(dataset_name="./data"))
    assert list(source.rows) == ["train"]
    assert source.unread == ["notes.csv", "old", "test.txt"]


def test_a_folder_with_a_split_twice_is_refused() -> None:
    folder = Path("data")
    folder.mkdir()
    for name in ("train.csv", "val.csv", "dev.csv"):
        write_csv(folder / name, [("a", "x")])
    with pytest.raises(DataError, match=r"two val files, dev\.csv and val\.csv\. Keep one"):
        sources.read(DataConfig(dataset_name="./data"))


def test_a_source_says_what_it_took() -> None:
    path = Path("in.csv")
    path.write_bytes("\n".join(["Query;Kind;x", "a;b;", "ä;c;"]).encode("cp1252"))
    config = DataConfig(dataset_name="./in.csv", label_column="Kind", encoding="cp1252")
    assert sources.read(config).reading == [
        Reading("in.csv", "CSV", 2, "Query", "Kind", ";", "cp1252")
    ]
