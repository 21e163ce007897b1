"""Files that are small and claim to be huge, and tables that are wide, in every format that is read.

Each is read in a child process whose memory is bounded, once as the page reads an upload and once
as ETL reads a source. What must hold: the rows, or one line that says what is wrong.
"""

import gzip
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from faults.tally import Tally

REPOSITORY = Path(__file__).parents[2]

MEMORY = 2 << 30
"""Bytes of address space of a child; an ordinary table needs less than half of them."""

SECONDS = 60
"""Longest wait for a child."""

CHILD = """
import sys
from pathlib import Path

how, path = sys.argv[1], Path(sys.argv[2])
from bankintent.errors import UserError
from bankintent.gradio_app.client import Trouble
try:
    if how == "page":
        from bankintent.gradio_app.inspection import find_sheets, inspect
        from bankintent.gradio_app.upload import read_upload
        find_sheets(path)
        inspect(path, 20_000)
        print("rows", len(read_upload(path, 20_000).texts))
    elif how == "score":
        from bankintent.corpus.tables import open_table
        table = open_table(path)
        print("rows", sum(chunk.num_rows for chunk in table.chunks(8192)))
    else:
        from bankintent.config import DataConfig
        from bankintent.corpus.sources import read
        source = read(DataConfig(dataset_name=str(path)))
        print("rows", sum(map(len, source.rows.values())))
except (UserError, Trouble) as error:
    print("refused", str(error)[:300])
"""

WAYS = ("page", "score", "etl")
"""Who reads a table."""

TEXT_ROWS = [("i lost my card", "card_lost"), ("how do i top up", "top_up")]


class Situation(NamedTuple):
    """A file, and how many rows it must give; None where it must be refused."""

    name: str
    make: Callable[[], bytes]
    rows: int | None


def run(count: int) -> Tally:
    """Read at most `count` files, each in every way."""
    tally = Tally("tables")
    situations = itertools.chain.from_iterable(map(try_file, SITUATIONS))
    for situation, fault in itertools.islice(situations, count):
        tally.add(situation, fault)
    return tally


def try_file(situation: Situation) -> Iterator[tuple[str, str | None]]:
    """Each way to read a file, and what came out where it did not hold."""
    ways = ("etl",) if situation.name.endswith(".zip") else WAYS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / situation.name.replace(" ", "-")
        path.write_bytes(situation.make())
        for way in ways:
            yield f"{situation.name} ({way})", judge(read_in_child(path, way), situation)


def read_in_child(path: Path, way: str) -> "subprocess.CompletedProcess[str] | None":
    """Read a file in a process of its own; None where it takes too long."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, way, str(path)]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            timeout=SECONDS,
            preexec_fn=bound_memory,
        )
    except subprocess.TimeoutExpired:
        return None


def bound_memory() -> None:
    """Bound the memory of this process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def judge(child: "subprocess.CompletedProcess[str] | None", situation: Situation) -> str | None:
    """What is wrong with the end of a child; None where nothing is."""
    if child is None:
        return f"took more than {SECONDS} s"
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines() or [""]
        return f"exit code {child.returncode}: {lines[-1][:200]}"

    found = child.stdout.strip()
    if len(found.splitlines()) != 1:
        return f"more than one line: {found[:200]}"
    if situation.rows is None:
        return None if found.startswith("refused") else f"was read: {found}"
    return None if found == f"rows {situation.rows}" else found


def csv_bytes(rows: int, extra_columns: int, *, filled: bool = False) -> bytes:
    """A CSV of sentences with further columns; without `filled` only the header has them."""
    names = ",".join(f"c{index}" for index in range(extra_columns))
    cells = "," + ",".join("1" for _ in range(extra_columns)) if filled and extra_columns else ""
    lines = [f"text,label,{names}" if extra_columns else "text,label"]
    for index in range(rows):
        text, label = TEXT_ROWS[index % 2]
        lines.append(f"{text} {index},{label}{cells}")
    return ("\n".join(lines) + "\n").encode()


def wide_row_csv() -> bytes:
    """A header of many names over many short rows."""
    return csv_bytes(8_000, 25_000)


def wide_columns_csv() -> bytes:
    """A header that is only commas over many rows that are nearly empty."""
    return b"text,label" + b"," * 100_000 + b"\n" + b"a,b\n" * 19_000


def sparse_csv() -> bytes:
    """As many columns as are allowed, over short rows."""
    return csv_bytes(19_000, 16_000)


def zeros_gz() -> bytes:
    """A GiB of one letter."""
    return gzip_repeated(b"a" * (1 << 20), 1 << 10)


def rows_json_gz() -> bytes:
    """A list of empty objects, of 300 MB."""
    return gzip_repeated(b"{}," * (1 << 18), 400, b'[{"text": "a", "label": "b"},', b"{}]")


def rows_jsonl_gz() -> bytes:
    """Lines of empty objects, of 300 MB."""
    return gzip_repeated(b"{}\n" * (1 << 18), 400)


def cells_csv_gz() -> bytes:
    """A row of 500 million empty cells."""
    return gzip_repeated(b"," * (1 << 20), 1 << 9, b"text,label\n")


def lines_csv_gz() -> bytes:
    """A billion blank lines."""
    return gzip_repeated(b"\n" * (1 << 20), 1 << 10, b"text,label\na,b\n")


def gzip_repeated(block: bytes, times: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A gzip file of a block that is repeated."""
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
        file.write(before)
        for _ in range(times):
            file.write(block)
        file.write(after)
    return buffer.getvalue()


def wide_json() -> bytes:
    """An object with 100,000 keys among many with two."""
    wide = {f"k{index}": 1 for index in range(100_000)}
    rows = [{"text": "a", "label": "b"} for _ in range(10_000)]
    return json.dumps([wide, *rows]).encode()


def sparse_jsonl() -> bytes:
    """Each object has a key of its own."""
    lines = []
    for index in range(15_000):
        record = {"text": f"t{index}", "label": "b", f"k{index}": 1}
        lines.append(json.dumps(record))
    return "\n".join(lines).encode()


def wide_jsonl() -> bytes:
    """Objects of 3,000 keys."""
    keys = {f"k{index}": 1 for index in range(3_000)}
    lines = [json.dumps({"text": f"t{index}", "label": "b"} | keys) for index in range(200)]
    return "\n".join(lines).encode()


def table_json(rows: int) -> bytes:
    """A list of objects with sentences."""
    content = [
        {"text": f"{text} {i}", "label": label}
        for i in range(rows)
        for text, label in TEXT_ROWS[:1]
    ]
    return json.dumps(content).encode()


SHEET = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    "<sheetData>{rows}</sheetData></worksheet>"
)

BOOK = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">'
    "<sheets>{sheets}</sheets></workbook>"
)

RELATIONS = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    "{relations}</Relationships>"
)

RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def workbook(sheets: list[bytes], strings: bytes | None = None) -> bytes:
    """A workbook of sheets as XML, with shared strings."""
    names = []
    relations = []
    for number in range(1, len(sheets) + 1):
        names.append(f'<sheet name="S{number}" sheetId="{number}" r:id="rId{number}"/>')
        target = f"worksheets/sheet{number}.xml"
        relations.append(
            f'<Relationship Id="rId{number}" Type="{RELATION}/worksheet" Target="{target}"/>'
        )
    if strings is not None:
        relations.append(
            f'<Relationship Id="rId99" Type="{RELATION}/sharedStrings" Target="sharedStrings.xml"/>'
        )

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        main = (
            f'<Relationship Id="rId1" Type="{RELATION}/officeDocument" Target="xl/workbook.xml"/>'
        )
        archive.writestr("_rels/.rels", RELATIONS.format(relations=main))
        archive.writestr("xl/workbook.xml", BOOK.format(sheets="".join(names)))
        archive.writestr(
            "xl/_rels/workbook.xml.rels", RELATIONS.format(relations="".join(relations))
        )
        for number, sheet in enumerate(sheets, 1):
            archive.writestr(f"xl/worksheets/sheet{number}.xml", sheet)
        if strings is not None:
            archive.writestr("xl/sharedStrings.xml", strings)
    return buffer.getvalue()


def cell(place: str, text: str) -> str:
    """A cell of text."""
    return f'<c r="{place}" t="inlineStr"><is><t>{text}</t></is></c>'


def sheet_rows(rows: int) -> str:
    """Rows of sentences under a header."""
    lines = [f'<row r="1">{cell("A1", "text")}{cell("B1", "label")}</row>']
    for index in range(rows):
        text, label = TEXT_ROWS[index % 2]
        number = index + 2
        lines.append(
            f'<row r="{number}">{cell(f"A{number}", f"{text} {index}")}'
            f"{cell(f'B{number}', label)}</row>"
        )
    return "".join(lines)


def far_cell() -> bytes:
    """A cell in the last corner of a sheet."""
    rows = sheet_rows(10) + f'<row r="1048576">{cell("XFD1048576", "x")}</row>'
    return workbook([SHEET.format(rows=rows).encode()])


def far_cell_elsewhere() -> bytes:
    """The same on a sheet that is not read."""
    rows = sheet_rows(10)
    far = f'<row r="1">{cell("A1", "x")}</row><row r="1048576">{cell("XFD1048576", "x")}</row>'
    return workbook([SHEET.format(rows=rows).encode(), SHEET.format(rows=far).encode()])


def far_row() -> bytes:
    """A cell that stands in the last row of a sheet of two columns."""
    rows = sheet_rows(10) + f'<row r="1048576">{cell("A1048576", "last")}</row>'
    return workbook([SHEET.format(rows=rows).encode()])


def zip_bomb_xlsx() -> bytes:
    """A sheet of 800 MB of blanks."""
    head, tail = SHEET.format(rows=sheet_rows(2) + "|").encode().split(b"|")
    return workbook([head + b" " * (3 << 28) + tail])


def lying_xlsx() -> bytes:
    """The same, in an archive that names a small size for it."""
    content = bytearray(zip_bomb_xlsx())
    true_size = (3 << 28).to_bytes(4, "little")[3:]
    position = content.find(b"PK\x01\x02")
    while position >= 0:
        size = content[position + 24 : position + 28]
        if size[3:] == true_size:
            content[position + 24 : position + 28] = (4000).to_bytes(4, "little")
        position = content.find(b"PK\x01\x02", position + 4)
    return bytes(content)


def shared_string_bomb() -> bytes:
    """A string of 1 MB that 20,000 cells share."""
    head = '<?xml version="1.0"?><sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    strings = f"{head}<si><t>{'a' * (1 << 20)}</t></si><si><t>text</t></si></sst>"
    lines = ['<row r="1"><c r="A1" t="s"><v>1</v></c></row>']
    for number in range(2, 20_002):
        lines.append(f'<row r="{number}"><c r="A{number}" t="s"><v>0</v></c></row>')
    return workbook([SHEET.format(rows="".join(lines)).encode()], strings.encode())


def plain_xlsx() -> bytes:
    """A workbook of 5,000 sentences."""
    return workbook([SHEET.format(rows=sheet_rows(5_000)).encode()])


def wide_xlsx() -> bytes:
    """A workbook of 3,000 columns."""
    lines = []
    for number in range(1, 101):
        cells = [cell(f"A{number}", f"t{number}" if number > 1 else "text")]
        cells.append(cell(f"B{number}", "top_up" if number > 1 else "label"))
        for index in range(3, 3_001):
            cells.append(f'<c r="{column_letters(index)}{number}"><v>{index}</v></c>')
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    return workbook([SHEET.format(rows="".join(lines)).encode()])


def column_letters(number: int) -> str:
    """The name of a column in a sheet, counted from 1."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def parquet(columns: dict[str, object], **options: object) -> bytes:
    """A Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


def wide_parquet(width: int, rows: int) -> bytes:
    """Many columns of which most are empty."""
    import pyarrow as pa

    columns: dict[str, object] = {"text": [f"t{i}" for i in range(rows)], "label": ["b"] * rows}
    for index in range(width):
        columns[f"c{index}"] = pa.nulls(rows, pa.string())
    return parquet(columns)


def repeated_text_parquet() -> bytes:
    """A text of 1 MB in each of 100,000 rows, stored once."""
    import pyarrow as pa

    dictionary = pa.array(["a" * (1 << 20)])
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), dictionary)
    labels = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["b"]))
    return parquet({"text": texts, "label": labels}, store_schema=False)


def repeated_rows_parquet() -> bytes:
    """The same row 60 million times."""
    import pyarrow as pa

    index = pa.array([0] * 60_000_000, pa.int32())
    texts = pa.DictionaryArray.from_arrays(index, pa.array(["a"]))
    labels = pa.DictionaryArray.from_arrays(index, pa.array(["b"]))
    return parquet({"text": texts, "label": labels}, store_schema=False)


def zip_of(names: dict[str, bytes]) -> bytes:
    """A zip of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def bomb_zip() -> bytes:
    """An export whose one file is 1,000 MB of blanks."""
    return zip_of({"export.json": b'{"luis_schema_version": "7.0.0"' + b" " * 1_000_000_000 + b"}"})


def aliases_zip() -> bytes:
    """YAML whose aliases stand for a billion nodes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 10):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    text = "version: '3.1'\nnlu:\n- intent: a\n  examples: |\n    - x\n" + "\n".join(lines)
    return zip_of({"nlu.yml": text.encode()})


def situations() -> Iterator[Situation]:
    """All files; those that must be refused first."""
    yield Situation("wide header.csv", wide_row_csv, None)
    yield Situation("far cell.xlsx", far_cell, None)
    yield Situation("wide object.json", wide_json, None)
    yield Situation("letters.csv.gz", zeros_gz, None)
    yield Situation("repeated text.parquet", repeated_text_parquet, None)
    yield Situation("only commas.csv", wide_columns_csv, None)
    yield Situation("sparse.csv", sparse_csv, None)
    yield Situation("sparse.tsv", lambda: sparse_csv().replace(b",", b"\t"), None)
    yield Situation("sparse.jsonl", sparse_jsonl, None)
    yield Situation("letters.jsonl.gz", zeros_gz, None)
    yield Situation("letters.json.gz", zeros_gz, None)
    yield Situation("objects.json.gz", rows_json_gz, None)
    yield Situation("objects.jsonl.gz", rows_jsonl_gz, None)
    yield Situation("one row.csv.gz", cells_csv_gz, None)
    yield Situation("blank lines.csv.gz", lines_csv_gz, None)
    yield Situation("far cell elsewhere.xlsx", far_cell_elsewhere, None)
    yield Situation("zip bomb.xlsx", zip_bomb_xlsx, None)
    yield Situation("lying zip bomb.xlsx", lying_xlsx, None)
    yield Situation("shared string.xlsx", shared_string_bomb, None)
    yield Situation("wide.parquet", lambda: wide_parquet(40_000, 10), None)
    yield Situation("repeated rows.parquet", repeated_rows_parquet, None)
    yield Situation("bomb.zip", bomb_zip, None)
    yield Situation("aliases.zip", aliases_zip, 1)
    yield Situation("plain.csv", lambda: csv_bytes(19_000, 0), 19_000)
    yield Situation("wide.csv", lambda: csv_bytes(300, 5_000, filled=True), 300)
    yield Situation("sparse wide.csv", lambda: csv_bytes(1_000, 5_000), 1_000)
    yield Situation("plain.json", lambda: table_json(5_000), 5_000)
    yield Situation("plain.json.gz", lambda: gzip.compress(table_json(15_000)), 15_000)
    yield Situation("wide.jsonl", wide_jsonl, 200)
    yield Situation("plain.xlsx", plain_xlsx, 5_000)
    yield Situation("far row.xlsx", far_row, 11)
    yield Situation("wide.xlsx", wide_xlsx, 99)
    yield Situation("wide enough.parquet", lambda: wide_parquet(4_000, 200), 200)


SITUATIONS = tuple(situations())
