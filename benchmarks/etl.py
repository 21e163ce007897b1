"""Time and memory of ETL on generated sentences, and the recall of nearly the same texts.

python -m benchmarks.etl run 1000000 5000000 10000000 --folder etl-rows
python -m benchmarks.etl recall 20000 --folder etl-rows

Each ETL is a process of its own; its memory is the most that it has had resident (wait4). The
generated sentences and the outputs are removed again.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from benchmarks import etl_data

CODE = """
import sys
from pathlib import Path
from bankintent.commands.etl import run
from bankintent.config import DataConfig
source, output, engine, split = sys.argv[1:]
run(DataConfig(dataset_name=source, output_dir=Path(output), engine=engine, split=split))
"""

MIB = 1024
"""KiB, in which Linux gives the memory of a process."""


def measure(rows: int, folder: Path, engine: str, split: str) -> tuple[float, float]:
    """(seconds, MiB) of an ETL of so many rows; raises RuntimeError where it fails."""
    source = folder / f"rows-{rows}"
    output = folder / f"output-{rows}"
    etl_data.make(rows, source)
    try:
        started = time.monotonic()
        command = [sys.executable, "-c", CODE, str(source), str(output), engine, split]
        process = os.posix_spawn(sys.executable, command, os.environ)
        _, status, usage = os.wait4(process, 0)
        if status:
            raise RuntimeError(f"ETL of {rows} rows failed ({status})")
        return time.monotonic() - started, usage.ru_maxrss / MIB
    finally:
        shutil.rmtree(source)
        shutil.rmtree(output, ignore_errors=True)


def recall(texts: list[str], folder: Path) -> tuple[int, int, int]:
    """(near pairs, those of them that MinHash proposes, all pairs that it proposes)."""
    from bankintent.corpus.large import minhash
    from bankintent.corpus.near import near_pairs

    different = sorted(set(texts))
    exact: set[tuple[int, int]] = set()
    for pairs in near_pairs(different):
        exact.update(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))

    folder.mkdir(parents=True, exist_ok=True)
    minhash.write_signatures([different], folder)
    proposed: set[tuple[int, int]] = set()
    for first, second in minhash.candidates(folder):
        proposed.update(zip(first.tolist(), second.tolist(), strict=True))
    return len(exact), len(exact & proposed), len(proposed)


def _read_texts(source: Path) -> list[str]:
    """The normalised sentences of a folder of Parquet files with a column `text`."""
    import pyarrow.parquet as pq

    from bankintent.texts import normalise

    texts: list[str] = []
    for path in sorted(source.glob("t*.parquet")):
        texts += map(normalise, pq.read_table(path, columns=["text"])["text"].to_pylist())
    return texts


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "recall"))
    parser.add_argument("sizes", nargs="+", help="rows to generate; for recall, or a data folder")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--engine", default="duckdb", choices=("duckdb", "memory"))
    parser.add_argument("--split", default="official")
    given = parser.parse_args()

    for size in given.sizes:
        if given.what == "run":
            seconds, memory = measure(int(size), given.folder, given.engine, given.split)
            load = os.getloadavg()[0]
            print(f"{size} rows: {seconds:.0f} s, {memory:.0f} MiB, load {load:.1f}", flush=True)
            continue

        source = Path(size)
        if size.isdigit():
            source = given.folder / f"rows-{size}"
            etl_data.make(int(size), source)
        near, found, proposed = recall(_read_texts(source), given.folder / "signatures")
        share = found / max(1, near)
        print(f"{size}: {near} near pairs, recall {share:.4f}, {proposed} proposed", flush=True)
        shutil.rmtree(given.folder / "signatures")
        if size.isdigit():
            shutil.rmtree(source)


if __name__ == "__main__":
    main()
