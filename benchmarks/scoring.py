"""Rows a second of batch scoring beside the bulk rate of its own runtime on the same texts.

python -m benchmarks.scoring --model-dir artifacts/models/quickstart

The bulk rate is that of the encoder alone: texts tokenized before the clock starts, sorted by length, in the same
batches on the same threads. `score` is the whole way from a file to a file: reading, tokenizing, scoring, keeping parts
and putting them together, with the model loaded. Both are measured in turn on one loaded model, and stand beside the
floor (benchmarks/machine.py). Writes a table and a JSON file.
"""

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import typer

from bankintent import cli, console, files
from bankintent.bundle.layout import open_checkpoint
from bankintent.config import ScoreConfig
from bankintent.configfile import load
from bankintent.inference.runtime import Runtime
from bankintent.scoring import score as scoring
from benchmarks import machine, tables
from benchmarks.tables import Table, share

TEXTS = machine.ROOT / "data" / "bundled" / "sentences.csv"
FORMATS = (".parquet", ".csv")


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
        int, typer.Option(help="Passes of each kind, in turn; the median is shown.")
    ] = 3,
    runtime: Annotated[str, typer.Option(help="auto, torch, onnx, ...")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Threads of the model.", show_default="one a core")
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
    model = scoring.find_model(settings)()
    texts = read_texts(rows)
    measured: list[Measurement] = []
    bulk(model, texts[:512], batch_tokens)  # warm-up
    for _ in range(rounds):
        measured.append(bulk(model, texts, batch_tokens))
        measured += [through_files(model, texts, settings, ending) for ending in FORMATS]
    tokens = statistics.fmean(map(len, model.tokenize(texts)))
    record = {
        "model": model.facts.name,
        "runtime": model.facts.runtime,
        "workers": model.workers,
        "machine": machine.describe(),
        "peak": machine.peak(),
        "precision": next(
            kind for kind in ("int8", "bf16", "float32") if kind in model.facts.runtime
        ),
        "flops_per_row": machine.flops_per_token(open_checkpoint(model_dir).model) * tokens,
        "rows": rows,
        "batch_tokens": batch_tokens,
        "measurements": [{**asdict(m), "rate": m.rate} for m in measured],
    }
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def read_texts(rows: int) -> list[str]:
    """The sentences of the bundled dataset, as often as it takes."""
    return list(islice(cycle(pyarrow.csv.read_csv(TEXTS)["text"].to_pylist()), rows))


def bulk(model: Runtime, texts: list[str], batch_tokens: int) -> Measurement:
    """The encoder alone, in the batches that scoring makes of all texts together."""
    items = model.tokenize(texts)
    batches = [
        [items[i] for i in batch]
        for batch in scoring.batches([len(item) for item in items], batch_tokens)
    ]
    with ThreadPoolExecutor(model.workers) as pool:
        started = time.perf_counter()
        for _ in pool.map(model.logits, batches):
            pass
        return Measurement("bulk", len(texts), time.perf_counter() - started)


def through_files(
    model: Runtime, texts: list[str], settings: ScoreConfig, ending: str
) -> Measurement:
    """The whole of `score`, file to file."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / f"in{ending}", Path(folder) / f"out{ending}"
        rows = pa.table({"id": range(len(texts)), "text": texts})
        (pq.write_table if ending == ".parquet" else pyarrow.csv.write_csv)(rows, source)
        started = time.perf_counter()
        scoring.score(
            settings.model_copy(update={"input": source, "output": target}), load=lambda: model
        )
        return Measurement(ending, len(texts), time.perf_counter() - started)


def make_tables(record: dict[str, Any]) -> list[Table]:
    """The median rate of each way, beside the bulk rate and the floor."""
    rates = {
        way: rate(record, way) for way in dict.fromkeys(m["way"] for m in record["measurements"])
    }
    floor = record["peak"][record["precision"]] / record["flops_per_row"]
    body = [
        [way, f"{value:.0f}", share(value, rates["bulk"]), share(value, floor)]
        for way, value in rates.items()
    ]
    title = f"Scoring {record['rows']:,} rows with {record['model']} ({record['runtime']})"
    return [
        Table(
            title,
            ["way", "rows/s", "of bulk", "of the floor"],
            body,
            f"The floor is {floor:.0f} rows/s.",
        )
    ]


def rate(record: dict[str, Any], way: str) -> float:
    """Rows a second, the median of the passes."""
    return statistics.median(m["rate"] for m in record["measurements"] if m["way"] == way)


if __name__ == "__main__":
    cli.run(main)
