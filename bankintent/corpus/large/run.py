"""ETL with the rows on disk: read, clean, divide, report and write."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bankintent import files, progress
from bankintent.config import DataConfig
from bankintent.corpus import cleaning, rare, writing
from bankintent.corpus.dataset import SCHEMA
from bankintent.corpus.division import choose_division
from bankintent.corpus.figures import DataReport
from bankintent.corpus.large import describing, dividing, leaking, near_pairs, reading, spool
from bankintent.corpus.large.describing import Divided
from bankintent.corpus.large.spool import Spool
from bankintent.corpus.records import regroup
from bankintent.corpus.rows_hash import RowsHash
from bankintent.corpus.splits import order_labels, require_usable_counts
from bankintent.errors import DataError
from bankintent.labels import LabelSchema


class FewRows(DataError):
    """The source has so few rows that they are cross-validated, which is done in memory."""


def run(config: DataConfig) -> DataReport:
    """Write the splits of a source, their labels and their report; returns the report.

    Everything in between is in a folder of the work folder beside `output_dir`. Raises FewRows for
    a source that belongs into memory after all.
    """
    with files.replacing(config.output_dir, writing.LAYOUT) as staging:
        folder = staging / writing.SPOOL
        folder.mkdir()
        with contextlib.closing(spool.connect(folder)) as database:
            stream = reading.open_stream(config)
            with progress.waiting("Reading and cleaning"):
                rows = spool.fill(stream, folder, config)
            divided = _divide(rows, config, database)

            report = describing.describe(divided, stream, config, database)
            schema = order_labels(
                set(rows.count_labels(np.concatenate(list(divided.places.values())))),
                stream.label_order,
                divided.rare,
            )
            with progress.waiting("Writing"):
                data_hash = _write_rows(staging, divided, schema)
        files.discard(folder)
        writing.write_notes(staging, schema, report, data_hash, config)
    return report


def _divide(rows: Spool, config: DataConfig, database: duckdb.DuckDBPyConnection) -> Divided:
    counts = rows.counts()
    every = spool.count_all(rows)
    cleaning.require_usable_counts(every, rows.refused, config, rows.reading)

    sizes = {part: sum(labels.values()) for part, labels in counts.items()}
    division = choose_division(sizes, config)
    if division.name == "cross":
        raise FewRows(
            "engine: duckdb does not cross-validate, and the data is small", "Set engine: memory"
        )
    rare_intents = rare.decide(counts, (), division.name, config)
    dividing.apply_rare(rows, rare_intents)
    if len(spool.count_all(rows)) < 2:
        raise DataError(
            f"rare: {config.rare} leaves {config.dataset_name} fewer than two intents",
            "Add sentences of the rare ones",
        )

    with progress.waiting("Sorting the texts"):
        spool.number_texts(rows, database)
    with progress.waiting("Looking for nearly the same texts"):
        near_pairs.find(rows, database)
    with progress.waiting("Dividing"):
        places = dividing.divide(rows, division.name, rare_intents, config, database)
        leaks = leaking.find(rows, places, database)
    places = leaking.apply_policy(places, leaks, config.leakage)
    require_usable_counts(dividing.count_splits(rows, places))
    return Divided(rows, places, division, rare_intents, leaks)


def _write_rows(folder: Path, divided: Divided, schema: LabelSchema) -> str:
    """Write the Parquet file of each split; the hash of the rows."""
    rows = divided.spool
    names = np.array([*rows.names, ""], dtype=object)
    ids = np.array([schema.label2id.get(name, -1) for name in names])
    digest = RowsHash(schema.names)
    for name, numbers in divided.places.items():
        digest.begin(name)
        with pq.ParquetWriter(folder / f"{name}.parquet", SCHEMA, compression="zstd") as writer:
            for table in _groups(rows, numbers):
                number = table.column("label").to_numpy()
                label_text = names[number].tolist()
                columns = [table["id"], table["text"], pa.array(ids[number]), label_text]
                made = pa.table(columns, schema=SCHEMA)
                writer.write_table(made)
                digest.add(
                    zip(made["id"].to_pylist(), made["text"].to_pylist(), label_text, strict=True)
                )
    return digest.hexdigest()


def _groups(rows: Spool, numbers: NDArray[np.int64]) -> Iterator[pa.Table]:
    """The rows of these numbers in tables of `writing.ROW_GROUP` rows: id, text, label number."""
    chosen = np.zeros(len(rows.label), dtype=np.bool_)
    chosen[numbers] = True
    with pq.ParquetFile(rows.folder / spool.ROWS) as file:
        tables = _chosen(file, rows, chosen)
        yield from regroup(tables, writing.ROW_GROUP)


def _chosen(file: pq.ParquetFile, rows: Spool, chosen: NDArray[np.bool_]) -> Iterator[pa.Table]:
    start = 0
    for batch in file.iter_batches(spool.CHUNK, columns=["id", "text"]):
        place = slice(start, start + batch.num_rows)
        start += batch.num_rows
        table = pa.Table.from_batches([batch])
        table = table.append_column("label", pa.array(rows.label[place]))
        yield table.filter(pa.array(chosen[place]))
