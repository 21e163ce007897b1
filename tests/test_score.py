"""Batch scoring: every row once and in order, for all formats, lengths and moments of a kill."""

import contextlib
import csv
import errno
import gzip
import io
import itertools
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import score_fixtures
from conftest import REPOSITORY, Run, write_csv, write_yaml
from rich.console import Console
from safetensors.numpy import save_file
from score_fixtures import CHUNK_ROWS, MAX_WORDS, WordModel, expected, expected_rest, settings

from bankintent import __main__ as verbs
from bankintent import console, progress
from bankintent.corpus import csv_tables
from bankintent.errors import DataError, ModelError, OutputError
from bankintent.scoring import answers, parts
from bankintent.scoring import output as outputs
from bankintent.scoring import score as scoring

VOCABULARY = "my card is lost what rate today euros, top up add money now please"


def sentences(count: int, seed: int = 0) -> list[str]:
    """Texts of two to fifteen words, some with commas, all different."""
    vocabulary = VOCABULARY.split()
    draw = random.Random(seed)
    texts = []
    for number in range(count):
        words = draw.choices(vocabulary, k=draw.randint(1, 14))
        texts.append(f"{' '.join(words)} {number}")
    return texts


def text_csv(path: Path, texts: list[str]) -> Path:
    return write_csv(path, [(str(i), text) for i, text in enumerate(texts)], header="id,text")


def score(
    source: Path, output: Path, model: WordModel | None = None, overwrite: bool = False, **more: Any
) -> Any:
    """Score with the model of words."""
    loaded = model or WordModel()
    return scoring.score(settings(source, output, **more), overwrite, load=lambda: loaded)


def test_text_formats_have_the_names_of_classes() -> None:
    feature = {"label": {"_type": "ClassLabel", "names": ["top_up", "lost"]}}
    metadata = {b"huggingface": json.dumps({"info": {"features": feature}}).encode()}
    table = pa.table({"text": ["now", "card", "please"], "label": [1, 0, None]})
    pq.write_table(table.replace_schema_metadata(metadata), "in.parquet")

    for name in ("out.csv", "out.jsonl"):
        score(Path("in.parquet"), Path(name), prefix="p_")
    assert [row[1] for row in read_csv(Path("out.csv"))] == ["label", "lost", "top_up", ""]
    lines = Path("out.jsonl").read_text().splitlines()
    assert [json.loads(line)["label"] for line in lines] == ["lost", "top_up", None]


def test_a_label_in_a_list_of_one_is_written_as_the_label() -> None:
    lines = [json.dumps({"text": text, "label": ["lost"]}) for text in ("card", "my card")]
    Path("in.jsonl").write_text("\n".join(lines))
    score(Path("in.jsonl"), Path("out.csv"), prefix="p_")
    assert {row[1] for row in read_csv(Path("out.csv"))[1:]} == {"lost"}


def open_text(path: Path, mode: str) -> Any:
    """A CSV or TSV file, zipped where its name ends so."""
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, mode, encoding="utf-8", newline="")


def read_csv(path: Path, delimiter: str = ",") -> list[list[str]]:
    with open_text(path, "rt") as file:
        return list(csv.reader(file, delimiter=delimiter, strict=True))


def write_table(path: Path, texts: list[str]) -> Path:
    """A table of `id` and `text` in the format of the ending."""
    ids = [str(number) for number in range(len(texts))]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": ids, "text": texts}), path)
        return path
    if path.suffix == ".xlsx":
        write_workbook(path, [("id", "text"), *zip(ids, texts, strict=True)])
        return path

    records = [{"id": id_, "text": text} for id_, text in zip(ids, texts, strict=True)]
    if ".json" in path.name:
        with open_text(path, "wt") as file:
            file.write(as_json(records, is_lines=".jsonl" in path.name))
        return path

    with open_text(path, "wt") as file:
        writer = csv.writer(file, delimiter="\t" if ".tsv" in path.name else ",")
        writer.writerow(("id", "text"))
        writer.writerows(zip(ids, texts, strict=True))
    return path


def write_workbook(path: Path, table: list[tuple[str, ...]]) -> None:
    workbook = openpyxl.Workbook()
    for row in table:
        workbook.worksheets[0].append(row)
    workbook.save(path)


def as_json(records: list[dict[str, str]], is_lines: bool) -> str:
    if is_lines:
        return "\n".join(map(json.dumps, records))
    return json.dumps({"messages": records})


def read_columns(path: Path) -> dict[str, list[Any]]:
    """The columns of a table in the format of the ending, scores as numbers."""
    if path.suffix == ".parquet":
        return dict(pq.read_table(path).to_pydict())
    if ".jsonl" in path.name:
        with open_text(path, "rt") as file:
            records = list(map(json.loads, file))
        return {name: [record[name] for record in records] for name in records[0]}

    header, *rows = read_csv(path, "\t" if ".tsv" in path.name else ",")
    columns: dict[str, list[Any]] = {}
    for index, name in enumerate(header):
        columns[name] = [row[index] for row in rows]
    columns["score"] = [float(score) for score in columns["score"]]
    return columns


ADDED = ["label", "score", "decision", "reason", "margin", "second"]


def added_cells(text: str) -> list[str]:
    """What a CSV gains behind the row of a text."""
    label, value = expected(text)
    rest = expected_rest(text)
    assert label is not None
    return [label, f"{value:.6g}", "answer", "", f"{rest['margin']:.6g}", rest["second"]]


def answers_in(columns: dict[str, list[Any]]) -> list[tuple[Any, Any]]:
    """Label and score of each row."""
    return list(zip(columns["label"], columns["score"], strict=True))


SOURCES = ["in.csv", "in.TSV", "in.csv.gz", "in.parquet", "in.json.gz", "in.jsonl", "in.xlsx"]
TARGETS = ["out.csv", "out.tsv", "out.csv.gz", "out.parquet", "out.jsonl", "out.jsonl.gz"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_format_becomes_every_other(source: str, target: str) -> None:
    texts = sentences(40)
    table = write_table(Path(source.lower()), texts).rename(source)

    summary = score(table, Path(target))

    assert (summary.rows, summary.scored, summary.without_text) == (40, 40, 0)
    columns = read_columns(Path(target))
    assert list(columns) == ["id", "text", *ADDED]
    assert columns["id"] == [str(number) for number in range(40)]
    assert columns["text"] == texts
    assert answers_in(columns) == [expected(text) for text in texts]
    assert sorted(os.listdir()) == sorted([source, target])


def test_parquet_keeps_types_metadata_and_rows_across_row_groups() -> None:
    count = 50
    columns = {
        "id": pa.array(range(count), pa.int16()),
        "when": pa.array(
            [datetime(2024, 1, 1, 0, 0, i) for i in range(count)],
            pa.timestamp("us", "Europe/Paris"),
        ),
        "amount": pa.array([Decimal(i) for i in range(count)], pa.decimal128(10, 2)),
        "tags": pa.array([["a"] * (i % 3) for i in range(count)], pa.list_(pa.string())),
        "kind": pa.array([f"kind {i % 4}" for i in range(count)]).dictionary_encode(),
        "utterance": pa.array(sentences(count)).dictionary_encode(),
        "utterance.raw": pa.array([b"\xff"] * count, pa.binary()),
    }
    table = pa.table(columns).replace_schema_metadata({"owner": "us"})
    pq.write_table(table, "in.parquet", row_group_size=11)

    score(Path("in.parquet"), Path("day=1/out.parquet"))

    output = pq.ParquetFile("day=1/out.parquet").read()
    assert output.drop_columns(ADDED).equals(pq.read_table("in.parquet"))
    assert output.schema.metadata[b"owner"] == b"us"
    kinds = [pa.string(), pa.float64(), pa.string(), pa.string(), pa.float64(), pa.string()]
    assert output.schema.types[-6:] == kinds
    added = output.select(["label", "score"]).to_pydict()
    assert answers_in(added) == [expected(text) for text in sentences(count)]


def test_row_groups_are_of_a_useful_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "ROW_GROUP", 20)
    score(write_table(Path("in.csv"), sentences(50)), Path("out.parquet"))
    metadata = pq.read_metadata("out.parquet")
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sizes == [21, 21, 8]  # three chunks of seven rows are the first 20 or more


def test_a_plain_csv_only_grows_at_the_end_of_its_lines() -> None:
    Path("in.csv").write_bytes(b'no,text\n007,lost card\n"1,5","a ""b"" c"\nNA,null\n')

    score(Path("in.csv"), Path("out.csv"))

    before = Path("in.csv").read_text().splitlines()
    after = Path("out.csv").read_text().splitlines()
    assert after[0] == "no,text,label,score,decision,reason,margin,second"
    for old, new, text in zip(before[1:], after[1:], ["lost card", 'a "b" c', "null"], strict=True):
        assert new == ",".join([old, *added_cells(text)])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_csv_is_read_whatever_its_line_ends_delimiter_and_first_bytes(
    start: str, delimiter: str, end: str
) -> None:
    rows = [
        ["x", "text"],
        ["1", "two\nlines"],
        ["2", "carriage\rreturn"],
        ["3", f'a "quote"{delimiter} b'],
        ["", "é"],
    ]
    content = io.StringIO()
    writer = csv.writer(content, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows(rows)
    blank_line = end
    Path("in.csv").write_bytes((start + content.getvalue() + blank_line).encode())

    assert score(Path("in.csv"), Path("out.csv")).rows == 4

    header, *scored = read_csv(Path("out.csv"), delimiter)
    assert header == ["x", "text", *ADDED]
    assert [row[:2] for row in scored] == rows[1:]
    assert [row[2] for row in scored] == [expected(text)[0] for _, text in rows[1:]]


def test_a_csv_keeps_short_rows_repeated_and_nameless_columns() -> None:
    Path("in.csv").write_text(",a,text,a\n1,2,card,4\n5,6,rate\n")

    score(Path("in.csv"), Path("out.csv"))
    rows = read_csv(Path("out.csv"))
    assert [row[:4] for row in rows] == [
        ["", "a", "text", "a"],
        ["1", "2", "card", "4"],
        ["5", "6", "rate", ""],
    ]

    score(Path("in.csv"), Path("out.parquet"))
    assert pq.read_schema("out.parquet").names == ["", "a", "text", "a", *ADDED]


def test_json_lines_hold_the_values_of_every_type() -> None:
    columns = {
        "text": ["card", None],
        "n": [1, None],
        "share": [0.5, float("nan")],
        "yes": [True, None],
        "when": pa.array([datetime(2024, 1, 2, 3, 4), None], pa.timestamp("ms")),
        "text.raw": ["grüße", "x\ny"],
    }
    pq.write_table(pa.table(columns), "in.parquet")
    score(Path("in.parquet"), Path("out.jsonl"))

    first, second = map(json.loads, Path("out.jsonl").read_text().splitlines())
    label, value = expected("card")
    assert first == {
        "text": "card",
        "n": 1,
        "share": 0.5,
        "yes": True,
        "when": "2024-01-02 03:04:00.000",
        "text.raw": "grüße",
        "label": label,
        "score": value,
        **expected_rest("card"),
    }
    assert list(second.values()) == [None] * 5 + ["x\ny"] + [None] * len(ADDED)


def test_json_lines_refuse_two_columns_of_one_name(run: Run) -> None:
    Path("in.csv").write_text("a,text,a\n1,2,3\n")
    error = run(verbs.score, "in.csv", "out.jsonl", "--model-dir", write_model_stub())
    assert 'JSON lines cannot hold 2 columns "a"' in error.one_line_error()


def test_what_a_table_does_not_say_of_itself_is_told_by_keys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("in.csv").write_bytes("Nr:Mail\n1:Käufe; für\n".encode("cp1252"))
    keys = {"encoding": "cp1252", "delimiter": ":", "text_column": "Mail"}
    score(Path("in.csv"), Path("out.csv"), **keys)

    line = capsys.readouterr().out.splitlines()[0]
    assert line == 'Reading the texts in "Mail" of in.csv (CSV, delimiter :, cp1252).'
    assert Path("out.csv").read_text() == (
        f"Nr:Mail:{':'.join(ADDED)}\n1:Käufe; für:{':'.join(added_cells('Käufe; für'))}\n"
    )


def test_no_rows_are_no_rows() -> None:
    Path("in.csv").write_text("text\n")
    assert score(Path("in.csv"), Path("out.csv")).rows == 0
    assert Path("out.csv").read_text() == f"{','.join(['text', *ADDED])}\n"
    score(Path("in.csv"), Path("out.parquet"))
    assert pq.read_table("out.parquet").num_rows == 0


def test_rows_without_a_text_are_kept_without_an_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    no_texts = [None] * 6
    texts = ["my card", None, "", " \t\n", "rate", *no_texts, "\u00a0", "top up " * MAX_WORDS]
    pq.write_table(pa.table({"text": texts}), "in.parquet")
    model = WordModel()

    summary = score(Path("in.parquet"), Path("out.parquet"), model)

    assert capsys.readouterr().out.startswith('Reading the texts in "text" of in.parquet (Parquet)')
    assert (summary.rows, summary.without_text, summary.truncated) == (13, 10, 1)
    columns = read_columns(Path("out.parquet"))
    assert columns["text"] == texts
    assert answers_in(columns) == [expected(text) for text in texts]
    assert model.tokenized == [text for text in texts if expected(text)[0]]

    scoring.show(summary)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("13 rows, ")
    assert lines[1] == "10 rows have no text, and so no answer."
    assert lines[2] == "1 text was longer than the model reads; its end was cut off."
    assert lines[3] == "Written to out.parquet."


def test_rows_without_a_text_may_be_refused_before_a_model_is_loaded() -> None:
    texts = ["my card", None, "", " ", "rate", None, None, None]
    pq.write_table(pa.table({"text": texts}), "in.parquet")
    strict = settings(Path("in.parquet"), Path("out.csv"), bad_rows="fail")
    message = r"6 of the 8 rows of in\.parquet have no text, the first: row 2, 3, 4, 6, 7\."

    with pytest.raises(DataError, match=message):
        scoring.score(strict, load=lambda: pytest.fail("loaded"))
    assert os.listdir() == ["in.parquet"]


def test_the_summary_names_what_could_not_be_scored(capsys: pytest.CaptureFixture[str]) -> None:
    scoring.show(scoring.ScoreSummary(Path("out.csv"), 1000, 12, 3, scored=500, seconds=2.0))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1,000 rows, 250 rows/s."
    assert lines[1] == "12 rows have no text, and so no answer."
    assert lines[2] == "3 texts were longer than the model reads; their ends were cut off."
    assert lines[3] == "Written to out.csv."


def test_batches_hold_texts_of_like_length_within_their_budget() -> None:
    lengths = [random.Random(1).randint(1, 30) for _ in range(500)] + [90]

    batches = list(answers.batches(lengths, 64))

    indices = list(itertools.chain.from_iterable(batches))
    assert sorted(indices) == list(range(501))
    assert [lengths[index] for index in indices] == sorted(lengths)
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) == 1 or len(batch) * longest <= 64
    assert [lengths[index] for index in batches[-1]] == [90]
    assert len(batches) < 1.2 * sum(lengths) / 64 + 30  # no batch is cut off early
    assert list(answers.batches([], 64)) == []


def test_batches_that_are_computed_at_once_find_their_rows() -> None:
    texts = sentences(60)
    model = WordModel()
    model.workers = 3
    barrier = threading.Barrier(3, timeout=60)
    model.before = lambda: barrier.wait() and None  # three batches are always in work together
    pq.write_table(pa.table({"text": texts}), "in.parquet")
    sizes = {"chunk_rows": 60, "batch_tokens": even_budget(texts, 3)}

    score(Path("in.parquet"), Path("out.parquet"), model, **sizes)

    assert len(model.batches) % 3 == 0
    columns = read_columns(Path("out.parquet"))
    assert answers_in(columns) == [expected(text) for text in texts]


def even_budget(texts: list[str], times: int) -> int:
    """Tokens to a batch such that the number of batches is a multiple."""
    lengths = [min(len(text.split()), MAX_WORDS) for text in texts]
    for budget in range(20, 200):
        count = len(list(answers.batches(lengths, budget)))
        if count % times == 0:
            return budget
    raise AssertionError("no such budget")


def test_the_model_gets_sorted_batches_and_rows_stay_in_order() -> None:
    model = WordModel()
    source = text_csv(Path("in.csv"), sentences(60))
    score(source, Path("out.csv"), model, chunk_rows=30, batch_tokens=24)
    assert len(model.batches) > 10
    assert all(batch == sorted(batch) for batch in model.batches)
    assert all(len(batch) * max(batch) <= 24 for batch in model.batches)


REFUSED = {
    "unclosed.csv": (
        b'text\nfine\n"open\nanother\n',
        "unclosed.csv line 3 (to line 4): unexpected end of data. Correct the quotes",
    ),
    "quote.csv": (b'text\n"a"b\n', "quote.csv line 2: ',' expected after '\"'"),
    "wide.csv": (
        b"id,text\n1,fine\n2,no, quotes\n",
        "wide.csv line 3 has 3 cells, the header 2. Put quotes around",
    ),
    "latin.csv": (
        b"text\n" + b"fine\n" * 9000 + b"\xe9t\xe9\n",
        "latin.csv is not UTF-8 text (line 9002); it looks like cp1252",
    ),
    "utf16.csv": (
        "text\na\n".encode("utf-16-le"),
        "utf16.csv is not UTF-8 text; it looks like utf-16-le",
    ),
    "empty.csv": (b"", "empty.csv is empty. Expected a header line"),
    "cut.csv.gz": (gzip.compress(b"text\na\n")[:-9], "cut.csv.gz cannot be read"),
    "plain.csv.gz": (b"text\na\n", "plain.csv.gz cannot be read (Not a gzipped file"),
    "no.parquet": (b"text\na\n", "no.parquet is not a readable Parquet file"),
    "cut.parquet": (b"PAR1" + b"\0" * 50, "cut.parquet is not a readable Parquet file"),
    "rows.xlsx": (b"", "rows.xlsx is not a readable .xlsx workbook"),
    "rows.xls": (b"", "rows.xls has an unknown ending. Expected .csv, .tsv, .jsonl, .json"),
    "other.csv": (b"a,b\n1,2\n", "other.csv has none of the columns text, sentence, utterance"),
    "twice.csv": (b"text,text\n1,2\n", 'twice.csv has 2 columns "text". Rename all but one.'),
    "label.csv": (
        b"text,label\n1,2\n",
        'label.csv has a column "label" already. Write the answers under other names',
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_table_is_refused_before_a_model_is_looked_for(name: str, run: Run) -> None:
    content, message = REFUSED[name]
    Path(name).write_bytes(content)
    error = run(verbs.score, name, "out.csv", "--model-dir", write_model_stub()).one_line_error()
    assert message in error
    assert sorted(os.listdir()) == sorted([name, "model"])


def write_model_stub() -> Path:
    """A folder that passes for a checkpoint until it is loaded."""
    folder = Path("model")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b"}}))
    save_file({"weight": np.zeros(1, np.float32)}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_wrong_columns_of_parquet_are_refused(run: Run) -> None:
    table = pa.table({"text": [1, 2], "message": ["a", "b"], "tags": [["a"], []]})
    pq.write_table(table, "in.parquet")
    model = ("--model-dir", write_model_stub())

    def error(output: str, *options: str) -> str:
        return run(verbs.score, "in.parquet", output, *options, *model).one_line_error()

    assert 'the column "text" of in.parquet holds int64, not texts' in error("out.parquet")
    assert (
        'the column "tags" (list<element: string>) does not fit into CSV. Write a .parquet file.'
    ) in error("out.csv", "--text-column", "message")
    assert 'has no column "messages"; it has text, message, tags' in error(
        "out.csv", "--text-column", "messages"
    )


def test_a_place_that_cannot_be_written_is_refused_first(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_csv(Path("in.csv"), ["a"])
    Path("folder.csv").mkdir()
    Path("old.csv").write_text("old")
    model = ("--model-dir", write_model_stub())
    before = sorted(os.listdir())
    for words, message in [
        (
            ("in.csv", "old.csv"),
            "old.csv exists. Name another OUT, or replace it with --overwrite.",
        ),
        (("in.csv", "folder.csv"), "folder.csv is a folder. Name a file."),
        (("in.csv", "in.csv", "--overwrite"), "in.csv is the input. Name another OUT."),
        (
            ("in.csv", "old.csv/out.csv"),
            "old.csv is no folder, and nothing can be written below it",
        ),
        (
            ("in.csv", "out.json"),
            "out.json has an ending that is not written. Expected one of .parquet",
        ),
        (("folder.csv", "out.csv"), "folder.csv is a folder, not a file"),
        (("none.csv", "out.csv"), "none.csv does not exist"),
    ]:
        assert message in run(verbs.score, *words, *model).one_line_error()
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert "cannot be written" in run(verbs.score, "in.csv", "new/out.csv", *model).one_line_error()
    assert sorted(os.listdir()) == before
    assert Path("old.csv").read_text() == "old"


def test_a_table_with_a_label_is_scored_under_other_names() -> None:
    write_csv(Path("in.csv"), [("my card", "top_up")])
    score(Path("in.csv"), Path("out.csv"), prefix="predicted_")
    names = [f"predicted_{name}" for name in ADDED]
    assert read_csv(Path("out.csv"))[0] == ["text", "label", *names]


def killed(source: Path, output: Path, stage: str) -> None:
    """Score in a process of its own, which is killed in mid-work."""
    script = Path(score_fixtures.__file__)
    command = [sys.executable, str(script), str(source), str(output), stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "waiting\n" in iter(process.stdout.readline, "")
        process.kill()
    assert process.returncode == -9
    assert not output.exists()


def count_parts(output: Path) -> int:
    """Parts of an unfinished run."""
    return len(list(Path(f"{output}.work").glob("part-*")))


@pytest.mark.parametrize("target", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("stage", ["scoring", "writing"])
def test_a_killed_run_goes_on_and_has_every_row_once(
    stage: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = sentences(45)
    texts[::10] = [""] * len(texts[::10])
    source = text_csv(Path("in.csv"), texts)
    output = Path(target)

    killed(source, output, stage)
    kept = count_parts(output)
    assert kept in range(1, 7) if stage == "scoring" else kept == 7

    model = WordModel()
    summary = score(source, output, model)
    rest = texts[kept * CHUNK_ROWS :]
    assert model.tokenized == [text for text in rest if text]  # what was scored is not scored again
    assert (summary.rows, summary.scored) == (45, len(rest))
    assert f"{45 - len(rest)} of 45 rows are scored already" in capsys.readouterr().out

    whole = Path(f"whole{output.suffix}")
    score(source, whole)
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(os.listdir()) == sorted(["in.csv", target, whole.name])


@pytest.fixture
def unfinished() -> tuple[Path, Path]:
    """A run that broke off after three parts."""
    source = text_csv(Path("in.csv"), sentences(40))
    output = Path("out.csv")
    with pytest.raises(RuntimeError, match="broke off"):
        score(source, output, failing_after(3, RuntimeError("broke off")))
    assert count_parts(Path("out.csv")) == 3
    return source, output


def failing_after(count: int, error: Exception) -> WordModel:
    """A model that raises once it has answered for some chunks."""
    model = WordModel()

    def before() -> None:
        if sum(map(len, model.batches)) >= count * CHUNK_ROWS:
            raise error

    model.before = before
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: ({}, WordModel(version="two")), "another model"),
        (lambda: ({"chunk_rows": 5}, WordModel()), "another settings"),
        (lambda: ({"text_column": "id"}, WordModel()), "another settings"),
        (lambda: ({"encoding": "cp1252"}, WordModel()), "another reading"),
        (
            lambda: (text_csv(Path("in.csv"), sentences(40, seed=1)) and {}, WordModel()),
            "another input",
        ),
    ],
)
def test_parts_of_another_run_are_refused_and_overwrite_begins_anew(
    change: Callable[[], tuple[dict[str, Any], WordModel]],
    message: str,
    unfinished: tuple[Path, Path],
) -> None:
    source, output = unfinished
    more, model = change()

    with pytest.raises(OutputError, match=message) as refusal:
        score(source, output, model, **more)
    assert "--overwrite" in str(refusal.value)
    assert count_parts(output) == 3

    summary = score(source, output, model, overwrite=True, **more)
    assert summary.scored == 40
    column = 0 if "text_column" in more else 1
    rows = read_csv(output)[1:]
    assert [row[2] for row in rows] == [expected(row[column])[0] for row in rows]


def test_parts_with_other_columns_are_refused_and_overwrite_begins_anew(
    unfinished: tuple[Path, Path],
) -> None:
    """As a version of this program left them that wrote a label and a score alone."""
    source, output = unfinished
    record = output.with_name("out.csv.work") / parts.IDENTITY
    identity = json.loads(record.read_text())
    assert identity["columns"] == ADDED
    record.write_text(json.dumps(identity | {"columns": ["label", "score"]}))

    with pytest.raises(OutputError, match="an unfinished run with another columns"):
        score(source, output)
    assert count_parts(output) == 3
    assert score(source, output, overwrite=True).scored == 40
    assert read_csv(output)[0] == ["id", "text", *ADDED]


def test_overwriting_goes_on_with_a_run_of_its_own(unfinished: tuple[Path, Path]) -> None:
    source, output = unfinished
    output.write_text("old")
    assert score(source, output, overwrite=True).scored == 40 - 3 * CHUNK_ROWS
    assert len(read_csv(output)) == 41


def test_threads_and_batches_do_not_make_another_run(unfinished: tuple[Path, Path]) -> None:
    model = WordModel()
    model.facts.runtime = model.facts.runtime.replace("2 threads", "1 thread")
    assert score(*unfinished, model, batch_tokens=100).scored == 40 - 3 * CHUNK_ROWS


def test_a_damaged_part_and_one_of_another_run_are_scored_again(
    unfinished: tuple[Path, Path],
) -> None:
    source, output = unfinished
    folder = Path("out.csv.work")
    damaged = folder / "part-000000.parquet"
    content = bytearray(damaged.read_bytes())
    content[20] ^= 0xFF  # in the first page of values
    damaged.write_bytes(content)
    (folder / "part-000001.parquet").write_bytes((folder / "part-000002.parquet").read_bytes())
    (folder / ".part-000003.parquet.1.tmp").write_bytes(b"half")
    assert score(source, output).scored == 40 - CHUNK_ROWS
    score(source, Path("whole.csv"))
    assert output.read_bytes() == Path("whole.csv").read_bytes()


def test_a_folder_in_the_way_is_left_alone() -> None:
    source = text_csv(Path("in.csv"), ["a"])
    Path("out.csv.work").mkdir()
    Path("out.csv.work/mine").write_text("mine")
    with pytest.raises(OutputError, match="is in the way"):
        score(source, Path("out.csv"), overwrite=True)
    assert Path("out.csv.work/mine").read_text() == "mine"


@pytest.mark.parametrize("stage", ["part", "whole"])
def test_a_full_disk_is_one_line_and_costs_nothing_that_was_scored(
    stage: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_csv(Path("in.csv"), sentences(40))
    model = WordModel()
    monkeypatch.setattr(
        scoring.choice, "find", lambda *_, **__: SimpleNamespace(load=lambda: model)
    )
    words = ("in.csv", "out.csv", "--model-dir", "m", "--set", f"chunk_rows={CHUNK_ROWS}")
    sync = os.fsync
    calls = []

    def fsync(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        calls.append(name)
        if stage in Path(name).name and len(calls) >= 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        error = run(verbs.score, *words).one_line_error()
    assert "out.csv cannot be written (No space left on device)" in error
    assert "run the same command again: what is scored is kept in out.csv.work" in error
    assert not Path("out.csv").exists()
    assert not list(Path("out.csv.work").glob(".*.tmp"))

    kept = count_parts(Path("out.csv"))
    model.tokenized.clear()
    result = run(verbs.score, *words)
    assert result.code == 0, result.err
    assert model.tokenized == sentences(40)[kept * CHUNK_ROWS :]
    assert len(read_csv(Path("out.csv"))) == 41


def test_an_interrupted_run_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text_csv(Path("in.csv"), sentences(40))
    model = WordModel()
    monkeypatch.setattr(
        scoring.choice, "find", lambda *_, **__: SimpleNamespace(load=lambda: model)
    )
    words = ("in.csv", "out.csv", "--model-dir", "m", "--set", f"chunk_rows={CHUNK_ROWS}")

    @contextlib.contextmanager
    def row_progress(title: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        counted = 0

        def advance(rows: int) -> None:
            nonlocal counted
            counted += rows
            if counted > 20:
                raise KeyboardInterrupt

        yield advance

    with monkeypatch.context() as patch:
        patch.setattr(scoring.progress, "row_progress", row_progress)
        result = run(verbs.score, *words)
    assert result.code == 130
    assert "Run the same command again to go on." in result.err
    assert not Path("out.csv").exists()

    kept = count_parts(Path("out.csv"))
    assert kept == 2
    model.tokenized.clear()
    assert run(verbs.score, *words).code == 0
    assert model.tokenized == sentences(40)[kept * CHUNK_ROWS :]
    assert [row[1] for row in read_csv(Path("out.csv"))[1:]] == sentences(40)


def test_an_input_that_changes_meanwhile_is_an_error() -> None:
    source = text_csv(Path("in.csv"), sentences(40))
    model = WordModel(before=lambda: text_csv(source, sentences(60)) and None)
    with pytest.raises(DataError, match=r"in\.csv changed while it was scored"):
        score(source, Path("out.csv"), model)
    assert not Path("out.csv").exists()


def test_a_score_that_is_no_number_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_fixtures, "logits", lambda words: [0.0, float("nan"), 0.0])
    with pytest.raises(ModelError, match="not finite"):
        score(text_csv(Path("in.csv"), ["a"]), Path("out.csv"))


def test_two_processes_do_not_write_one_place() -> None:
    source = text_csv(Path("in.csv"), sentences(10))
    with (
        scoring.files.exclusive(Path("out.csv").absolute()),
        pytest.raises(OutputError, match="another process"),
    ):
        score(source, Path("out.csv").absolute())


class Holdings:
    """The most that is held while a model works: Arrow's memory, and work not yet answered."""

    def __init__(self) -> None:
        self.start = pa.total_allocated_bytes()
        self.bytes = 0
        self.rows = 0
        self.texts = 0
        self.read = 0

    def records(self, *words: Any) -> Iterator[tuple[int, list[str]]]:
        """In the place of the reader of CSV records."""
        self.read = -1  # the header
        for record in RECORDS(*words):
            self.read += 1
            yield record

    def look(self, model: WordModel) -> None:
        answered = sum(map(len, model.batches))
        self.bytes = max(self.bytes, pa.total_allocated_bytes() - self.start)
        self.texts = max(self.texts, len(model.tokenized) - answered)
        self.rows = max(self.rows, self.read - answered)


RECORDS = csv_tables.read_csv_records


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_long_table_needs_no_more_memory_than_a_short_one(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "ROW_GROUP", 400)
    write = outputs.writing

    def need(rows: int) -> Holdings:
        source = Path(f"in{rows}{ending}")
        # Random, so that nothing of it can be compressed.
        texts = [f"{random.Random(number).getrandbits(128):x} {number}" for number in range(rows)]
        if ending == ".csv":
            text_csv(source, texts)
        else:
            # One row group, as a file may have however long it is.
            table = pa.table({"text": texts})
            pq.write_table(table, source, data_page_size=1 << 10, use_dictionary=False)

        holdings = Holdings()
        model = WordModel()
        model.before = lambda: holdings.look(model)

        @contextlib.contextmanager
        def writing(*words: Any) -> Iterator[Callable[[pa.Table], None]]:
            with write(*words) as append:

                def append_and_look(table: pa.Table) -> None:
                    append(table)
                    holdings.look(model)

                yield append_and_look

        monkeypatch.setattr(scoring, "writing", writing)
        monkeypatch.setattr(csv_tables, "read_csv_records", holdings.records)
        score(source, Path(f"out{rows}{ending}"), model, chunk_rows=200, batch_tokens=400)
        return holdings

    short = need(1000)
    long = need(8000)
    assert long.texts <= 2 * 200  # one chunk with the model, one tokenized
    assert long.rows <= 3 * 200  # and one that is read
    assert 0 < long.bytes < 2 * short.bytes


def test_progress_is_a_line_now_and_then_or_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0)
    with progress.row_progress("scoring", 4000, done=1000) as advance:
        advance(500)
        advance(2500)
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("scoring: 1,500 of 4,000 rows, ")
    assert " rows/s, 0:" in first
    assert first.endswith(" left")
    assert last.startswith("scoring: 4,000 of 4,000 rows")
    assert last.endswith("0:00:00 left")

    screen = io.StringIO()
    monkeypatch.setattr(console, "stdout", Console(file=screen, force_terminal=True, width=100))
    with progress.row_progress("scoring", 4000) as advance:
        advance(1500)
    assert "1,500 of 4,000 rows" in screen.getvalue()


def test_the_command_gives_the_models_own_answers(bundle: Path, run: Run) -> None:
    from bankintent.inference.predictor import Predictor
    from bankintent.measures.metrics import softmax

    table = pq.read_table("data/train.parquet")
    config = write_yaml(
        Path("score.yaml"), input="data/train.parquet", output="no.csv", batch_tokens=64
    )
    options = ["--model-dir", bundle, "--config", config]
    for override in ("prefix=predicted_", "runtime=torch", "threads=1", "chunk_rows=16"):
        options += ["--set", override]

    result = run(verbs.score, "data/train.parquet", "out.parquet", *options)

    assert result.code == 0, result.err
    assert f"{table.num_rows} rows" in result.out
    assert "Written to out.parquet" in result.out
    output = pq.read_table("out.parquet")
    assert output.drop_columns([f"predicted_{name}" for name in ADDED]).equals(table)

    predictor = Predictor.load(bundle)
    probabilities = softmax(predictor.logits(table["text"].to_pylist()))
    best = [predictor.labels.names[index] for index in probabilities.argmax(axis=1)]
    assert output["predicted_label"].to_pylist() == best
    scores = output["predicted_score"].to_numpy()
    np.testing.assert_allclose(scores, probabilities.max(axis=1), atol=1e-4)


def test_help_and_mistakes_import_no_heavy_library(run: Run) -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['bankintent', 'score', 'in.csv', '--set', 'chunk_rows=0']\n"
        "try: runpy.run_module('bankintent', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop: print(stop.code)\n"
        "print(sorted({'torch', 'transformers', 'pyarrow', 'numpy', 'mlflow'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert result.stdout.splitlines()[:2] == ["2", "[]"], result.stdout + result.stderr
    assert 'the key "output" is missing' in result.stderr
    assert "chunk_rows: input should be greater than or equal to 1" in result.stderr
    assert "IN" in run(verbs.score, "--help").out
