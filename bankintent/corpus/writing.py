"""Writes ETL's output: Parquet splits, the label schema, the report, and a manifest of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bankintent import files
from bankintent.config import DataConfig
from bankintent.corpus.cleaning import Example
from bankintent.corpus.dataset import (
    FOLDS,
    FOLDS_SCHEMA,
    MANIFEST,
    OUT_OF_SCOPE,
    OUT_OF_SCOPE_SCHEMA,
    SCHEMA,
    UNLABELLED,
    UNLABELLED_SCHEMA,
)
from bankintent.corpus.figures import DataReport
from bankintent.corpus.folds import Folds
from bankintent.corpus.kept_columns import by_name
from bankintent.corpus.moves import AGAINST_FORMER, Moves
from bankintent.corpus.report import markdown
from bankintent.corpus.rows_hash import RowsHash
from bankintent.corpus.splits import Corpus, Splits
from bankintent.labels import LabelSchema

SPOOL = "spool"
"""Folder of what ETL keeps on disk while it runs; it is gone before the output appears."""

LAYOUT = files.ResultFolder(
    "ETL output",
    (
        "train.parquet",
        "val.parquet",
        "test.parquet",
        f"{OUT_OF_SCOPE}.parquet",
        f"{UNLABELLED}.parquet",
        f"{FOLDS}.parquet",
        "labels.json",
        "report.json",
        "report.md",
        MANIFEST,
        # While ETL runs.
        f"{SPOOL}/*",
    ),
)

ROW_GROUP = 50_000
"""Rows of a row group of a Parquet file: what a reader of a part of it takes at a time."""

Records = list[files.JsonObject]
"""Rows of a Parquet file, by the names of its columns."""


def write(
    corpus: Corpus,
    labels: LabelSchema,
    report: DataReport,
    moves: Moves | None,
    config: DataConfig,
) -> None:
    """Write `output_dir` as a whole: a reader sees the old data or the new.

    `moves` compares it with the former output, where there is one.
    Raises OutputError where the folder holds a file that ETL does not write.
    """
    with files.replacing(config.output_dir, LAYOUT) as staging:
        _write_rows(staging, corpus, labels, config.keep_columns)
        _write_report(staging, labels, report)

        # Last, because it lists the other files with their hashes.
        manifest = _describe_files(staging, labels, report, _data_hash(corpus, labels), config)
        _describe_beside(manifest, corpus, labels)
        comparison = moves.record(manifest["data_hash"]) if moves is not None else None
        if comparison is not None:
            manifest[AGAINST_FORMER] = comparison
        files.write_text(staging / MANIFEST, files.json_text(manifest))


def write_notes(
    folder: Path, labels: LabelSchema, report: DataReport, data_hash: str, config: DataConfig
) -> None:
    """Write what stands beside the rows in a folder: the labels, the report and the manifest."""
    _write_report(folder, labels, report)
    manifest = _describe_files(folder, labels, report, data_hash, config)
    files.write_text(folder / MANIFEST, files.json_text(manifest))


def _write_report(folder: Path, labels: LabelSchema, report: DataReport) -> None:
    labels.save(folder / "labels.json")
    files.write_text(folder / "report.json", files.json_text(report.to_json()))
    files.write_text(folder / "report.md", markdown(report))


def _write_rows(folder: Path, corpus: Corpus, labels: LabelSchema, columns: Sequence[str]) -> None:
    for name, rows in corpus.splits.items():
        table = _labelled_table(rows, labels, columns)
        pq.write_table(
            table, folder / f"{name}.parquet", compression="zstd", row_group_size=ROW_GROUP
        )

    if corpus.folds is not None:
        records = _fold_records(corpus.splits["train"], corpus.folds)
        _write_parquet(folder, FOLDS, records, FOLDS_SCHEMA)

    if corpus.out_of_scope:
        records = _out_of_scope_records(corpus.out_of_scope)
        _write_parquet(folder, OUT_OF_SCOPE, records, OUT_OF_SCOPE_SCHEMA)

    if corpus.unlabelled:
        records = _unlabelled_records(corpus.unlabelled)
        _write_parquet(folder, UNLABELLED, records, UNLABELLED_SCHEMA)


def _labelled_table(rows: list[Example], labels: LabelSchema, columns: Sequence[str]) -> pa.Table:
    """ETL's own columns of labelled rows, and the kept ones after them."""
    table = pa.Table.from_pylist(_labelled_records(rows, labels), schema=SCHEMA)
    kept = [row.kept for row in rows]
    for name, values in zip(columns, by_name(columns, kept), strict=True):
        field = pa.field(name, pa.string())
        table = table.append_column(field, pa.array(values, pa.string()))
    return table


def _labelled_records(rows: list[Example], labels: LabelSchema) -> Records:
    records: Records = []
    for row in rows:
        label = labels.label2id[row.label_text]
        # The name of the label is for people; readers take the id.
        record = {"id": row.id, "text": row.text, "label": label, "label_text": row.label_text}
        records.append(record)
    return records


def _fold_records(rows: list[Example], folds: Folds) -> Records:
    records: Records = []
    for row, assigned in zip(rows, folds.assignment.T.tolist(), strict=True):
        records.append({"id": row.id, "folds": assigned})
    return records


def _out_of_scope_records(parts: Splits) -> Records:
    records: Records = []
    for split, rows in parts.items():
        for row in rows:
            records.append({"id": row.id, "text": row.text, "split": split})
    return records


def _unlabelled_records(rows: list[Example]) -> Records:
    records: Records = []
    for row in rows:
        records.append({"id": row.id, "text": row.text})
    return records


def _write_parquet(folder: Path, name: str, records: Records, schema: pa.Schema) -> None:
    table = pa.Table.from_pylist(records, schema=schema)
    pq.write_table(table, folder / f"{name}.parquet", compression="zstd", row_group_size=ROW_GROUP)


def _describe_files(
    folder: Path,
    labels: LabelSchema,
    report: DataReport,
    data_hash: str,
    config: DataConfig,
) -> files.JsonObject:
    """The manifest: the source, the config, and the hashes that readers check."""
    entries = {}
    for name in files.list_files(folder):
        path = folder / name
        entries[name] = {"sha256": files.sha256(path), "size": path.stat().st_size}

    return {
        "source": report.source,
        "languages": report.languages,
        "config": config.model_dump(mode="json"),
        "split": report.split,
        "labels_hash": labels.hash,
        "data_hash": data_hash,
        "files": entries,
    }


def _describe_beside(manifest: files.JsonObject, corpus: Corpus, labels: LabelSchema) -> None:
    """Add to the manifest what stands beside the rows of intents."""
    if corpus.out_of_scope:
        manifest["out_of_scope_hash"] = _out_of_scope_hash(corpus.out_of_scope)
    if corpus.patches:
        manifest["patches"] = [asdict(patch) for patch in corpus.patches]
    if corpus.unlabelled:
        manifest["unlabelled_hash"] = _rows_hash({UNLABELLED: corpus.unlabelled}, labels)


def _data_hash(corpus: Corpus, labels: LabelSchema) -> str:
    """sha256 of rows and label names, and of the folds where there are any.

    Rows out of scope have a hash of their own and kept columns have none: no model learns a label
    from them, and a model may be judged by a column that was kept after its training.
    """
    rows_hash = _rows_hash(corpus.splits, labels)
    if corpus.folds is None:
        return rows_hash
    # Other folds judge otherwise: a model's figures belong to its own.
    return files.sha256_text(json.dumps([rows_hash, corpus.folds.assignment.tolist()]))


def _out_of_scope_hash(parts: Splits) -> str:
    """sha256 of the rows that have none of the intents, by split."""
    rows = {}
    for name, part in parts.items():
        rows[name] = [[row.id, row.text] for row in part]
    return files.sha256_text(json.dumps(rows, ensure_ascii=False))


def _rows_hash(splits: Splits, labels: LabelSchema) -> str:
    """sha256 of rows and label names, independent of the format of the files."""
    digest = RowsHash(labels.names)
    for name, part in splits.items():
        digest.begin(name)
        for start in range(0, len(part), ROW_GROUP):
            rows = part[start : start + ROW_GROUP]
            digest.add([row.id, row.text, row.label_text] for row in rows)
    return digest.hexdigest()
