"""Sentences a second of training, compared with stock Trainers on the same data and model.

python -m benchmarks.training --data-dir data/quickstart

Each contender trains in a process of its own, one after the other, in rounds: a Trainer with the
defaults of transformers' run_classification.py (padding to 128 tokens, float32), a tuned one
(dynamic padding, length grouping, the precision of ours), and this project's, for full fine-tuning
and LoRA. Batch size and epochs are the same. With the rates come the quality after these epochs,
the peak memory of the process, and the share of the floor: of the machine's measured rate of matrix
products, the part that the operations of the real tokens reach. Writes a table and a JSON file.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, console, files
from bankintent.config import LoraSection, Regime, TrackingConfig, TrainConfig
from bankintent.corpus import dataset
from bankintent.corpus.dataset import SplitData
from bankintent.errors import UserError
from benchmarks import machine, tables
from benchmarks.machine import Job
from benchmarks.tables import Record, Table, share

CONTENDERS = {
    "stock, defaults": "stock-default",
    "stock, tuned": "stock-tuned",
    "ours, full-ft": "full-ft",
    "stock, tuned, LoRA": "stock-lora",
    "ours, LoRA": "lora",
}
"""Titles of the contenders, and their names in a job."""

STOCK = "stock, defaults"
"""The contender that the others are compared with."""

BATCH = 64
MAX_LENGTH = 128
LR: dict[str, float] = {"full-ft": 1e-4, "lora": 1e-3}
LORA = LoraSection(dropout=0)
MODEL = "bundled/all-MiniLM-L6-v2"

PEAKS = {"fp32": "float32", "bf16": "bf16", "fp16": "float32"}
"""The measured peak that a precision is compared with."""


def main(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="ETL's output.")] = Path(
        "data/quickstart"
    ),
    sentences: Annotated[int, typer.Option(help="Training sentences, drawn with one seed.")] = 1024,
    epochs: Annotated[int, typer.Option(help="Epochs of every contender.")] = 3,
    rounds: Annotated[
        int,
        typer.Option(help="Runs of each contender, in turn; the median is shown."),
    ] = 1,
    contenders: Annotated[
        list[str] | None,
        typer.Option("--contender", help="Repeatable.", show_default="all"),
    ] = None,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/training.json"
    ),
) -> None:
    """Measure training side by side and print the ratios."""
    names = contenders or list(CONTENDERS)
    require_contenders(names)
    dataset.load(data_dir)

    job = {"data_dir": str(data_dir.absolute()), "sentences": sentences, "epochs": epochs}
    results: dict[str, list[Record]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            console.say(f"Round {number + 1} of {rounds}: {name} ...")
            contender = {"contender": CONTENDERS[name]}
            results[name].append(machine.run_apart("benchmarks.training", contender | job))

    record = {
        "machine": machine.describe(),
        "peak": machine.peak(),
        "sentences": sentences,
        "epochs": epochs,
        "results": results,
    }
    files.write_text(output, files.json_text(record))
    tables.show(make_tables(record))
    console.say(f"Written to {console.show_path(output)}.")


def require_contenders(names: list[str]) -> None:
    """Raise UserError for a name that is not one of CONTENDERS."""
    for name in names:
        if name not in CONTENDERS:
            raise UserError(
                f'there is no contender "{name}"', f"Name one of {', '.join(CONTENDERS)}"
            )


@dataclass(frozen=True)
class Setting:
    """A model prepared for a regime, and its data."""

    backbone: Any
    model: Any
    train: SplitData
    val: SplitData
    labels: Any
    regime: Regime
    config: TrainConfig

    @property
    def flops_per_token(self) -> int:
        """Operations of a step for each token: 6 for each trained weight, 4 for each frozen one.

        Two are forward, two for the gradient of the inputs, two for that of the weights (Kaplan et
        al., 2020). A frozen weight lacks the last two: gradients only pass through it.
        """
        operations = 0
        for name, parameter in self.model.named_parameters():
            if parameter.dim() == 2 and machine.is_per_token(name):
                operations += (6 if parameter.requires_grad else 4) * parameter.numel()
        return operations


def contend(job: Job) -> Record:
    """Train one contender and return its rate, quality and memory."""
    import torch

    from bankintent.training import hardware
    from bankintent.training.encoding import encode

    contender = job["contender"]
    regime: Regime = "lora" if "lora" in contender else "full-ft"
    setting = prepare(regime, Path(job["data_dir"]), job["sentences"], job["epochs"])
    flops_per_token = setting.flops_per_token  # before the clock starts

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        if contender.startswith("stock"):
            precision = fit_stock(setting, Path(work), tuned=contender != "stock-default")
        else:
            precision = fit_ours(setting, Path(work))
    seconds = time.perf_counter() - started
    memory = hardware.peak_memory()

    rows = encode(setting.train, setting.backbone.tokenizer)
    mean_tokens = statistics.fmean(len(row["input_ids"]) for row in rows)
    sentences_per_second = job["epochs"] * len(setting.train) / seconds
    return {
        "seconds": seconds,
        "sentences_per_second": sentences_per_second,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "accuracy": accuracy(setting),
        "peak_memory_bytes": memory,
        "useful_flops_per_second": flops_per_token * mean_tokens * sentences_per_second,
    }


def prepare(regime: Regime, data_dir: Path, sentences: int, epochs: int) -> Setting:
    """The embedded encoder prepared for a regime, and training sentences drawn with one seed.

    Where more are wanted than there are, they are repeated.
    """
    import torch

    from bankintent.training import backbones, regimes

    data = dataset.load(data_dir)
    val = data.read("val")
    train = data.read("train")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    repeated = order * (1 + sentences // len(order))
    train = train.take(repeated[:sentences])

    torch.manual_seed(0)
    backbone = backbones.load_backbone(MODEL, data.labels, MAX_LENGTH)
    config = TrainConfig(
        model_name=MODEL,
        regime=regime,
        output_dir=Path("unused"),
        epochs=epochs,
        batch_size=BATCH,
        lr=LR[regime],
        lora=LORA,
        keep="last",  # as the stock Trainers
        warmup=0,  # as the stock Trainers, whose schedule is otherwise the same
        weight_decay=0,
    )
    model = regimes.prepare(backbone, regime, config.lora)
    return Setting(backbone, model, train, val, data.labels, regime, config)


def fit_ours(setting: Setting, work: Path) -> str:
    """Train as `multiregime` does, but validate on two rows: validation is no part of the race."""
    from bankintent.tracking import Tracker
    from bankintent.training import trainer
    from bankintent.training.course import Course
    from bankintent.training.encoding import TrainingRows

    few, tracker = setting.val.take([0, 1]), Tracker(TrackingConfig(enabled=False))
    rows = TrainingRows(setting.train, few)
    tokenizer = setting.backbone.tokenizer
    course = Course(work, tracker)
    return trainer.fit(setting.model, tokenizer, rows, setting.config, course).precision


def fit_stock(setting: Setting, work: Path, tuned: bool) -> str:
    """Train with transformers' own Trainer as it comes, or with what its documentation advises."""
    import torch
    from transformers import (
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        default_data_collator,
    )

    from bankintent.training.hardware import pick_precision

    precision = pick_precision("auto") if tuned else "fp32"
    tokenizer = setting.backbone.tokenizer
    options: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if tuned else {}
    # Where there is only a CPU, transformers refuses bf16 unless this is set.
    use_cpu = not (torch.cuda.is_available() or torch.backends.mps.is_available())

    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=setting.config.epochs,
        per_device_train_batch_size=BATCH,
        learning_rate=setting.config.lr,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=use_cpu,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    rows = _encode(setting.train, tokenizer, padding=False if tuned else "max_length")
    collator = DataCollatorWithPadding(tokenizer) if tuned else default_data_collator
    Trainer(model=setting.model, args=arguments, train_dataset=rows, data_collator=collator).train()
    return precision


def _encode(split: SplitData, tokenizer: Any, padding: Any) -> list[dict[str, Any]]:
    """The rows as a stock Trainer takes them."""
    encoded = tokenizer(split.texts, truncation=True, max_length=MAX_LENGTH, padding=padding)
    rows = []
    for index, label in enumerate(split.labels):
        features = {key: encoded[key][index] for key in encoded}
        rows.append({**features, "labels": label})
    return rows


def accuracy(setting: Setting) -> float:
    """Accuracy of the trained model on the validation rows, in float32."""
    from bankintent.inference.predictor import Predictor

    model = setting.backbone.model.to("cpu").float()
    logits = Predictor(model, setting.backbone.tokenizer, setting.labels).logits(setting.val.texts)
    return float((logits.argmax(axis=1) == setting.val.labels).mean())


def make_tables(record: Record) -> list[Table]:
    """One row for each contender: the median of its rounds."""
    header = [
        "trainer",
        "precision",
        "sentences/s",
        f"x {STOCK}",
        "val accuracy",
        "peak GiB",
        "of the floor",
    ]
    rows = [_row(record, name) for name in record["results"]]
    first_run = next(iter(record["results"].values()))[0]
    size = f"{record['sentences']:,} sentences x {record['epochs']} epochs"
    return [Table(f"Training: {size}, {first_run['threads']} threads", header, rows)]


def _row(record: Record, name: str) -> list[str]:
    runs = record["results"][name]
    precision = runs[0]["precision"]
    peak = record["peak"][PEAKS[precision]]
    reached = statistics.median(run["useful_flops_per_second"] for run in runs)
    accuracy = statistics.median(run["accuracy"] for run in runs)
    memory = max(run["peak_memory_bytes"] for run in runs)

    sentences_per_second = rate(record, name)
    ratio = ""
    if STOCK in record["results"]:
        ratio = f"{sentences_per_second / rate(record, STOCK):.1f}"
    return [
        name,
        precision,
        f"{sentences_per_second:.1f}",
        ratio,
        f"{100 * accuracy:.1f} %",
        f"{memory / 2**30:.2f}",
        share(reached, peak),
    ]


def rate(record: Record, name: str) -> float:
    """Sentences a second of a contender, the median of its rounds."""
    return statistics.median(run["sentences_per_second"] for run in record["results"][name])


if __name__ == "__main__":
    if machine.has_job():
        machine.answer_job(contend)
    else:
        cli.run(main)
