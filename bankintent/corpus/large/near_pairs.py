"""Pairs of nearly the same texts among those that MinHash proposes, each compared exactly."""

from collections.abc import Iterator

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bankintent.corpus.large import minhash
from bankintent.corpus.large.spool import Spool, iterate_texts
from bankintent.corpus.near import NEAR, Nearest, NearPairs, similarities

PAIRS = "pairs.parquet"

PROPOSED = "proposed.parquet"

BLOCK = 1 << 14
"""Pairs that are compared at a time."""

SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("similarity", pa.float32())])


def find(spool: Spool, database: duckdb.DuckDBPyConnection) -> None:
    """Write the near pairs of the texts to a file of the spool."""
    minhash.write_signatures(iterate_texts(spool), spool.folder)
    _propose(spool)

    database.read_parquet(str(spool.folder / PROPOSED)).create_view("proposed")
    found = database.sql(
        "SELECT p.a, p.b, x.normalised AS first, y.normalised AS second"
        " FROM (SELECT DISTINCT a, b FROM proposed) p"
        " JOIN texts x ON x.file_row_number = p.a"
        " JOIN texts y ON y.file_row_number = p.b"
    )
    with pq.ParquetWriter(spool.folder / PAIRS, SCHEMA) as writer:
        for batch in found.to_arrow_reader(BLOCK):
            near = similarities(batch["first"].to_pylist(), batch["second"].to_pylist())
            table = pa.table([batch["a"], batch["b"], pa.array(near, pa.float32())], schema=SCHEMA)
            writer.write_table(table.filter(pa.array(near >= NEAR)))


def _propose(spool: Spool) -> None:
    schema = pa.schema([SCHEMA.field("a"), SCHEMA.field("b")])
    with pq.ParquetWriter(spool.folder / PROPOSED, schema) as writer:
        for first, second in minhash.candidates(spool.folder):
            writer.write_table(pa.table({"a": first, "b": second}, schema=schema))


def _read(spool: Spool) -> Iterator[NearPairs]:
    with pq.ParquetFile(spool.folder / PAIRS) as file:
        for batch in file.iter_batches(1 << 22):
            yield NearPairs(*[column.to_numpy() for column in batch.columns])


def families(spool: Spool, is_used: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Of each text the number of the first one of its family, as `near.families` has it.

    Texts that are not used connect nothing.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = spool.texts
    component = np.arange(size, dtype=np.int32)
    for pairs in _read(spool):
        pairs = pairs.take(is_used[pairs.first] & is_used[pairs.second])
        ends = (component[pairs.first], component[pairs.second])
        edges = coo_array((np.ones(len(pairs.first), dtype=np.int8), ends), shape=(size, size))
        _, merged = connected_components(edges, directed=False)
        component = merged[component].astype(np.int32)

    # Backwards, so that the first text of each component is the last to be written.
    first = np.empty(size, dtype=np.int32)
    first[component[::-1]] = np.arange(size - 1, -1, -1, dtype=np.int32)
    return np.asarray(first[component])


def find_nearest(spool: Spool, among: list[NDArray[np.bool_]]) -> list[Nearest]:
    """As `near.find_nearest`, of the pairs of the file."""
    found = []
    for _ in among:
        none = np.full(spool.texts, -1, dtype=np.int64)
        found.append(Nearest(none, np.zeros(spool.texts, dtype=np.float32)))
    for pairs in _read(spool):
        for nearest, marked in zip(found, among, strict=True):
            nearest.take_in(pairs, marked)
    return found
