"""Sentences a second of training beside stock Trainers on the same data, model, batch size and epochs.

python -m benchmarks.training --data-dir data/quickstart

Each contender trains in a process of its own, one after the other, in rounds: a Trainer with the defaults of
transformers' run_classification.py (padding to 128 tokens, float32), a tuned one (dynamic padding, length grouping, the
precision of ours), and this project's, for full fine-tuning and LoRA. Beside the rates stand the quality after the same
number of epochs, the peak memory of the process, and the share of the floor: of the machine's measured rate of matrix
products, what the operations of the real tokens reach. Writes a table and a JSON file.
"""

import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, console, files, process
from bankintent.config import LoraSection, Regime, TrackingConfig, TrainConfig
from bankintent.corpus import dataset
from bankintent.corpus.dataset import SplitData
from bankintent.errors import UserError
from benchmarks import machine, tables
from benchmarks.tables import Table, share

CONTENDERS = {
    "stock, defaults": "stock-default",
    "stock, tuned": "stock-tuned",
    "ours, full-ft": "full-ft",
    "stock, tuned, LoRA": "stock-lora",
    "ours, LoRA": "lora",
}
STOCK = "stock, defaults"
BATCH, MAX_LENGTH = 64, 128
LR: dict[str, float] = {"full-ft": 1e-4, "lora": 1e-3}
LORA = LoraSection(dropout=0)
MODEL = "bundled/all-MiniLM-L6-v2"
PEAKS = {"fp32": "float32", "bf16": "bf16", "fp16": "float32"}
"""The measured peak that a precision is held against."""


def main(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="ETL's output.")] = Path(
        "data/quickstart"
    ),
    sentences: Annotated[int, typer.Option(help="Training sentences, drawn with one seed.")] = 1024,
    epochs: Annotated[int, typer.Option(help="Epochs of every contender.")] = 3,
    rounds: Annotated[
        int, typer.Option(help="Runs of each contender, in turn; the median is shown.")
    ] = 1,
    contenders: Annotated[
        list[str] | None, typer.Option("--contender", help="Repeatable.", show_default="all")
    ] = None,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path(
        "artifacts/benchmarks/training.json"
    ),
) -> None:
    """Measure training side by side and print the ratios."""
    chosen = contenders or list(CONTENDERS)
    unknown = [name for name in chosen if name not in CONTENDERS]
    if unknown:
        raise UserError(
            f'there is no contender "{unknown[0]}"', f"Name one of {', '.join(CONTENDERS)}"
        )
    dataset.load(data_dir)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for number in range(rounds):
        for name in chosen:
            console.say(f"Round {number + 1} of {rounds}: {name} ...")
            sizes = {"sentences": sentences, "epochs": epochs}
            job = {"contender": CONTENDERS[name], "data_dir": str(data_dir.absolute()), **sizes}
            results[name].append(machine.run_apart("benchmarks.training", job))
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


@dataclass(frozen=True)
class Setting:
    """A model prepared for a regime, and what it is trained on."""

    backbone: Any
    model: Any
    train: SplitData
    val: SplitData
    labels: Any
    regime: Regime
    config: TrainConfig

    @property
    def flops_per_token(self) -> int:
        """Operations of a step for each token: 6 a weight that is trained, 4 a frozen one that gradients pass.

        Two of them forward, two for the gradient of the inputs, two for that of the weights (Kaplan et al., 2020).
        """
        weights = [
            (parameter.numel(), parameter.requires_grad)
            for name, parameter in self.model.named_parameters()
            if parameter.dim() == 2
            and not any(part in name.lower() for part in machine.NOT_PER_TOKEN)
        ]
        return sum((6 if trained else 4) * count for count, trained in weights)


def contend(job: dict[str, Any]) -> dict[str, Any]:
    """What one contender reaches: rate, quality, memory."""
    import torch

    from bankintent.training import trainer

    contender = job["contender"]
    regime: Regime = "lora" if "lora" in contender else "full-ft"
    setting = prepare(regime, Path(job["data_dir"]), job["sentences"], job["epochs"])
    flops, started = setting.flops_per_token, time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        if contender.startswith("stock"):
            precision = fit_stock(setting, Path(work), tuned=contender != "stock-default")
        else:
            precision = fit_ours(setting, Path(work))
    seconds, memory = time.perf_counter() - started, trainer.peak_memory()
    tokens = sum(
        len(row["input_ids"]) for row in trainer.encode(setting.train, setting.backbone.tokenizer)
    )
    passes = job["epochs"] * len(setting.train) / seconds
    return {
        "seconds": seconds,
        "sentences_per_second": passes,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "accuracy": accuracy(setting),
        "peak_memory_bytes": memory,
        "useful_flops_per_second": flops * tokens / len(setting.train) * passes,
    }


def prepare(regime: Regime, data_dir: Path, sentences: int, epochs: int) -> Setting:
    """The embedded encoder prepared for a regime, and training sentences drawn with one seed (again where they end)."""
    import torch

    from bankintent.training import backbones, regimes

    data = dataset.load(data_dir)
    train, val = data.read("train"), data.read("val")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
    train = train.take((order * (1 + sentences // len(order)))[:sentences])
    torch.manual_seed(0)
    backbone = backbones.load(MODEL, data.labels, MAX_LENGTH)
    config = TrainConfig(
        model_name=MODEL,
        output_dir=Path("unused"),
        epochs=epochs,
        batch_size=BATCH,
        lr=LR[regime],
        lora=LORA,
        warmup=0,  # as the stock Trainers, whose schedule is otherwise the same
        weight_decay=0,
    )
    model = regimes.prepare(backbone, regime, config.lora)
    return Setting(backbone, model, train, val, data.labels, regime, config)


def fit_ours(setting: Setting, work: Path) -> str:
    """Train as `multiregime` does, but for checking on two validation rows only: that is no part of the race."""
    from bankintent.tracking import Tracker
    from bankintent.training import trainer

    few, tracker = setting.val.take([0, 1]), Tracker(TrackingConfig(enabled=False))
    labels = int(setting.model.config.num_labels)
    tokenizer = setting.backbone.tokenizer
    return trainer.fit(
        setting.model,
        tokenizer,
        setting.train,
        few,
        labels,
        setting.regime,
        setting.config,
        work,
        tracker,
    ).precision


def fit_stock(setting: Setting, work: Path, tuned: bool) -> str:
    """Train with transformers' own Trainer as it comes, or with what its documentation advises."""
    import torch
    from transformers import (
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        default_data_collator,
    )

    from bankintent.training.trainer import pick_precision

    precision = pick_precision("auto") if tuned else "fp32"
    tokenizer, train = setting.backbone.tokenizer, setting.train
    encoded = tokenizer(
        train.texts,
        truncation=True,
        max_length=MAX_LENGTH,
        padding=False if tuned else "max_length",
    )
    rows = [
        {**{key: encoded[key][i] for key in encoded}, "labels": label}
        for i, label in enumerate(train.labels)
    ]
    options: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if tuned else {}
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=setting.config.epochs,
        per_device_train_batch_size=BATCH,
        learning_rate=setting.config.lr,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not (
            torch.cuda.is_available() or torch.backends.mps.is_available()
        ),  # else bf16 is refused
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    collator = DataCollatorWithPadding(tokenizer) if tuned else default_data_collator
    Trainer(model=setting.model, args=arguments, train_dataset=rows, data_collator=collator).train()
    return precision


def accuracy(setting: Setting) -> float:
    """Of the trained model on the validation rows, in float32."""
    from bankintent.inference.predictor import Predictor

    model = setting.backbone.model.to("cpu").float()
    logits = Predictor(model, setting.backbone.tokenizer, setting.labels).logits(setting.val.texts)
    return float((logits.argmax(axis=1) == setting.val.labels).mean())


def make_tables(record: dict[str, Any]) -> list[Table]:
    """One row for each contender: the median of its rounds."""
    rates = {name: rate(record, name) for name in record["results"]}
    rows = []
    for name, runs in record["results"].items():
        run = runs[0]
        peak = record["peak"][PEAKS[run["precision"]]]
        reached = statistics.median(one["useful_flops_per_second"] for one in runs)
        rows.append(
            [
                name,
                run["precision"],
                f"{rates[name]:.1f}",
                f"{rates[name] / rates[STOCK]:.1f}" if STOCK in rates else "",
                f"{100 * statistics.median(one['accuracy'] for one in runs):.1f} %",
                f"{max(one['peak_memory_bytes'] for one in runs) / 2**30:.2f}",
                share(reached, peak),
            ]
        )
    header = [
        "trainer",
        "precision",
        "sentences/s",
        f"x {STOCK}",
        "val accuracy",
        "peak GiB",
        "of the floor",
    ]
    threads = next(iter(record["results"].values()))[0]["threads"]
    title = f"Training: {record['sentences']:,} sentences x {record['epochs']} epochs, {threads} threads"
    return [Table(title, header, rows)]


def rate(record: dict[str, Any], name: str) -> float:
    """Sentences a second of a contender, the median of its rounds."""
    return statistics.median(one["sentences_per_second"] for one in record["results"][name])


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        process.quiet_libraries()
        print(json.dumps(contend(json.loads(sys.argv[1]))))
    else:
        cli.run(main)
