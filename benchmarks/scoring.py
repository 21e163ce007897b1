"""Rows a second of batch scoring beside the bulk rate of its own runtime on the same texts.

python -m benchmarks.scoring --model-dir artifacts/models/quickstart

The bulk rate is that of the encoder alone: texts tokenized before the clock starts, sorted by length, in the same
batches on the same threads. `score` is the whole way from a file to a file: reading, tokenizing, scoring, keeping parts
and putting them together, with the model loaded. Both are measured in turn on one loaded model. Writes a table and a
JSON file.
"""

import platform
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

from bankintent import cli, files
from bankintent.config import ScoreConfig
from bankintent.configfile import load
from bankintent.inference import runtime as runtimes
from bankintent.inference import scoring
from bankintent.inference.runtime import Runtime

TEXTS = Path(__file__).parents[1] / "data" / "bundled" / "sentences.csv"
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
    rounds: Annotated[int, typer.Option(help="Passes of each kind, in turn; the median is shown.")] = 3,
    runtime: Annotated[str, typer.Option(help="auto, torch, onnx, ...")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of the model.", show_default="one a core")] = None,
    batch_tokens: Annotated[int, typer.Option(help="Tokens in one forward pass.")] = 512,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path("artifacts/benchmarks/scoring.json"),
) -> None:
    """Measure both ways in one run, print a table and write the figures."""
    values = {"model_dir": model_dir, "runtime": runtime, "threads": threads, "batch_tokens": batch_tokens}
    settings = load(ScoreConfig, None, (), input=Path("in"), output=Path("out"), **values)
    model = scoring.find_model(settings)()
    texts = read_texts(rows)
    measured: list[Measurement] = []
    bulk(model, texts[:512], batch_tokens)  # warm-up
    for _ in range(rounds):
        measured.append(bulk(model, texts, batch_tokens))
        measured += [through_files(model, texts, settings, ending) for ending in FORMATS]
    facts = {"model": model.facts.name, "runtime": model.facts.runtime, "workers": model.workers, **machine()}
    figures = [{**asdict(m), "rate": m.rate} for m in measured]
    files.write_text(output, files.json_text({**facts, "batch_tokens": batch_tokens, "measurements": figures}))
    cli.print_table(f"{model.facts.name}: {rows:,} rows", *table(measured))
    cli.say(f"{model.facts.runtime}; written to {cli.show_path(output)}.")


def read_texts(rows: int) -> list[str]:
    """The sentences of the bundled dataset, as often as it takes."""
    return list(islice(cycle(pyarrow.csv.read_csv(TEXTS)["text"].to_pylist()), rows))


def bulk(model: Runtime, texts: list[str], batch_tokens: int) -> Measurement:
    """The encoder alone, in the batches that scoring makes of all texts together."""
    items = model.tokenize(texts)
    batches = [[items[i] for i in batch] for batch in scoring.batches([len(item) for item in items], batch_tokens)]
    with ThreadPoolExecutor(model.workers) as pool:
        started = time.perf_counter()
        for _ in pool.map(model.logits, batches):
            pass
        return Measurement("bulk", len(texts), time.perf_counter() - started)


def through_files(model: Runtime, texts: list[str], settings: ScoreConfig, ending: str) -> Measurement:
    """The whole of `score`, file to file."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / f"in{ending}", Path(folder) / f"out{ending}"
        rows = pa.table({"id": range(len(texts)), "text": texts})
        (pq.write_table if ending == ".parquet" else pyarrow.csv.write_csv)(rows, source)
        started = time.perf_counter()
        scoring.score(settings.model_copy(update={"input": source, "output": target}), load=lambda: model)
        return Measurement(ending, len(texts), time.perf_counter() - started)


def table(measured: list[Measurement]) -> tuple[list[str], list[list[str]]]:
    """The median rate of each way, and its share of the bulk rate."""
    ways = dict.fromkeys(m.way for m in measured)
    rates = {way: statistics.median(m.rate for m in measured if m.way == way) for way in ways}
    body = [[way, f"{rate:,.0f}", f"{100 * rate / rates['bulk']:.0f} %"] for way, rate in rates.items()]
    return ["way", "rows/s", "of bulk"], body


def machine() -> dict[str, str | int]:
    """What the figures depend on."""
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("pyarrow", "tokenizers")}
    return {
        "cores": runtimes.cores(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **libraries,
    }


if __name__ == "__main__":
    cli.run(main)
