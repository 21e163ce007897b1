"""Rows a second of batch scoring, compared with the bulk rate of its own runtime on the same texts.

python -m benchmarks.scoring --model-dir artifacts/models/quickstart

The bulk rate is that of the encoder alone: texts tokenized before the clock starts, sorted by
length, in the same batches on the same threads. `score` is the whole way from a file to a file:
reading, tokenizing, scoring, keeping parts and putting them together, with the model loaded. Both
are measured in turn on one loaded model, and compared with the floor (benchmarks/machine.py).
Writes a table and a JSON file.
"""

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import typer

from bankintent import cli, console, files
from bankintent.bundle.layout import open_checkpoint
from bankintent.config import ScoreConfig
from bankintent.configfile import load
from bankintent.inference import choice
from bankintent.inference.batches import batches as divide_into_batches
from bankintent.inference.runtime import Runtime
from bankintent.scoring import score as scoring
from benchmarks import machine, tables
from benchmarks.tables import Record, Table, share

FORMATS = (".parquet", ".csv")

WARM_UP_TEXTS = 512


@dataclass(frozen=True)
class Measurement:
    """One pass over all rows."""

    way: str
    """`bulk`, or the ending of the files that were scored."""
    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds


def main(
    model_dir: Annotated[Path, typer.Option("--model-dir", help="A bundle.")],
    rows: Annotated[int, typer.Option(help="Rows of each pass.")] = 8192,
    rounds: Annotated[
        int,
        typer.Option(help="Passes of each kind, in turn; the median is shown."),
    ] = 3,
    runtime: Annotated[str, typer.Option(help="auto, torch, onnx, ...")] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of the model.", show_default="one a core"),
    ] = None,
    batch_tokens: Annotated[int, typer.Option(help="Tokens in one forward pass.")] = 512,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/scoring.json"
    ),
) -> None:
    """Measure both ways in one run, print a table and write the figures."""
    values = {
        "model_dir": model_dir,
        "runtime": runtime,
        "threads": threads,
        "batch_tokens": batch_tokens,
    }
    settings = load(ScoreConfig, None, (), input=Path("in"), output=Path("out"), **values)
    model = choice.find(settings.model_dir, settings.runtime, settings.threads).load()
    texts = read_texts(rows)

    measurements = measure(model, texts, settings, rounds)
    mean_tokens = statistics.fmean(map(len, model.tokenize(texts)))
    flops_per_token = machine.flops_per_token(open_checkpoint(model_dir).model)
    record = {
        "model": model.facts.name,
        "runtime": model.facts.runtime,
        "workers": model.workers,
        "machine": machine.describe(),
        "peak": machine.peak(),
        "precision": machine.precision_of(model.facts.runtime),
        "flops_per_row": flops_per_token * mean_tokens,
        "rows": rows,
        "batch_tokens": batch_tokens,
        "measurements": [{**asdict(m), "rate": m.rate} for m in measurements],
    }
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def read_texts(rows: int) -> list[str]:
    """The sentences of the bundled dataset, repeated to that many rows."""
    sentences = pyarrow.csv.read_csv(machine.TEXTS)["text"].to_pylist()
    return list(islice(cycle(sentences), rows))


def measure(
    model: Runtime, texts: list[str], settings: ScoreConfig, rounds: int
) -> list[Measurement]:
    """Passes of each way in turn, so that a slow minute of the machine meets all of them."""
    bulk(model, texts[:WARM_UP_TEXTS], settings.batch_tokens)
    measurements = []
    for _ in range(rounds):
        measurements.append(bulk(model, texts, settings.batch_tokens))
        for ending in FORMATS:
            measurements.append(through_files(model, texts, settings, ending))
    return measurements


def bulk(model: Runtime, texts: list[str], batch_tokens: int) -> Measurement:
    """The encoder alone, in the batches that scoring makes of all texts together."""
    items = model.tokenize(texts)
    lengths = [len(item) for item in items]
    batches = []
    for indices in divide_into_batches(lengths, batch_tokens):
        batches.append([items[index] for index in indices])

    with ThreadPoolExecutor(model.workers) as pool:
        started = time.perf_counter()
        for _ in pool.map(model.logits, batches):
            pass
        seconds = time.perf_counter() - started
    return Measurement("bulk", len(texts), seconds)


def through_files(
    model: Runtime, texts: list[str], settings: ScoreConfig, ending: str
) -> Measurement:
    """The whole of `score`, file to file."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"in{ending}"
        output = Path(folder) / f"out{ending}"
        table = pa.table({"id": range(len(texts)), "text": texts})
        write = pq.write_table if ending == ".parquet" else pyarrow.csv.write_csv
        write(table, source)

        file_settings = settings.model_copy(update={"input": source, "output": output})
        started = time.perf_counter()
        scoring.score(file_settings, load=lambda: model)
        seconds = time.perf_counter() - started
    return Measurement(ending, len(texts), seconds)


def make_tables(record: Record) -> list[Table]:
    """The median rate of each way, compared with the bulk rate and the floor."""
    ways = dict.fromkeys(measurement["way"] for measurement in record["measurements"])
    bulk_rate = rate(record, "bulk")
    floor = record["peak"][record["precision"]] / record["flops_per_row"]

    rows = []
    for way in ways:
        value = rate(record, way)
        rows.append([way, f"{value:.0f}", share(value, bulk_rate), share(value, floor)])

    title = f"Scoring {record['rows']:,} rows with {record['model']} ({record['runtime']})"
    header = ["way", "rows/s", "of bulk", "of the floor"]
    return [Table(title, header, rows, f"The floor is {floor:.0f} rows/s.")]


def rate(record: Record, way: str) -> float:
    """Rows a second, the median of the passes."""
    rates = []
    for measurement in record["measurements"]:
        if measurement["way"] == way:
            rates.append(measurement["rate"])
    return statistics.median(rates)


if __name__ == "__main__":
    cli.run(main)
