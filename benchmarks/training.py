"""Sentences a second of training beside stock Trainers on the same data, model, batch size and epochs.

python -m benchmarks.training --data-dir data/quickstart

Each contender trains in a process of its own, one after the other, in rounds: a Trainer with the defaults of
transformers' run_classification.py (padding to 128 tokens, float32), a tuned one (dynamic padding, length grouping, the
precision of ours), and this project's, for full fine-tuning and LoRA. Beside the rates stand the quality after the same
number of epochs, the peak memory, and the share of the machine's measured matrix-multiply rate that the floating-point
operations of the real tokens reach. Writes a table and a JSON file.
"""

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from bankintent import cli, files
from bankintent.config import TrainConfig
from bankintent.corpus import dataset
from bankintent.corpus.dataset import SplitData
from bankintent.errors import UserError

CONTENDERS = {
    "stock, defaults": "stock-default",
    "stock, tuned": "stock-tuned",
    "ours, full-ft": "full-ft",
    "stock, tuned, LoRA": "stock-lora",
    "ours, LoRA": "lora",
}
STOCK = "stock, defaults"
BATCH = 64
LR = {"full-ft": 1e-4, "lora": 1e-3}
MODEL = "bundled/all-MiniLM-L6-v2"


def main(
    data_dir: Annotated[Path, typer.Option("--data-dir", help="ETL's output.")] = Path("data/quickstart"),
    sentences: Annotated[int, typer.Option(help="Training sentences, drawn with one seed.")] = 1024,
    epochs: Annotated[int, typer.Option(help="Epochs of every contender.")] = 3,
    rounds: Annotated[int, typer.Option(help="Runs of each contender, in turn; the median is shown.")] = 1,
    contenders: Annotated[list[str] | None, typer.Option("--contender", help="Repeatable.", show_default="all")] = None,
    output: Annotated[Path, typer.Option(help="The JSON file.")] = Path("artifacts/benchmarks/training.json"),
) -> None:
    """Measure training side by side and print the ratios."""
    chosen = contenders or list(CONTENDERS)
    unknown = [name for name in chosen if name not in CONTENDERS]
    if unknown:
        raise UserError(f'there is no contender "{unknown[0]}"', f"Name one of {', '.join(CONTENDERS)}")
    dataset.load(data_dir)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in chosen}
    for number in range(rounds):
        for name in chosen:
            cli.say(f"round {number + 1} of {rounds}: {name} ...")
            job = {"contender": CONTENDERS[name], "data_dir": str(data_dir), "sentences": sentences, "epochs": epochs}
            results[name].append(_measure(job))
    peak = _measure({"contender": "peak"})
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {results[chosen[0]][0]['threads']} threads",
        "sentences": sentences,
        "epochs": epochs,
        "matmul_flops_per_second": peak,
        "results": results,
    }
    files.write_text(output, files.json_text(record))
    _show(record)
    cli.say(f"Written to {cli.show_path(output)}")


def _show(record: dict[str, Any]) -> None:
    rates = {n: statistics.median(r["sentences_per_second"] for r in runs) for n, runs in record["results"].items()}
    body = []
    for name, runs in record["results"].items():
        run = runs[0]
        peak = record["matmul_flops_per_second"]["fp32" if name == STOCK else run["precision"]]
        reached = statistics.median(r["useful_flops_per_second"] for r in runs) / peak
        times = f"{rates[name] / rates[STOCK]:.1f}" if STOCK in rates else ""
        body.append(
            [
                name,
                run["precision"],
                f"{rates[name]:.1f}",
                times,
                f"{100 * run['accuracy']:.1f} %",
                f"{run['peak_memory_bytes'] / 2**30:.2f} GiB",
                f"{100 * reached:.0f} %",
            ]
        )
    header = ["", "precision", "sentences/s", "times", "val accuracy", "peak memory", "of matmul peak"]
    cli.print_table(f"{record['sentences']:,} sentences x {record['epochs']} epochs, {record['machine']}", header, body)


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    """One contender in a fresh process; UserError with its last line where it fails."""
    command = [sys.executable, "-m", "benchmarks.training", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode != 0:
        cause = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"{job['contender']} failed: {cause}", "Run it by itself with --contender")
    return json.loads(done.stdout.strip().splitlines()[-1])


def contend(job: dict[str, Any]) -> dict[str, Any]:
    """What one contender reaches: rate, quality, memory."""
    import torch

    from bankintent.training import backbones, regimes, trainer

    if job["contender"] == "peak":
        return matmul_rates()
    data = dataset.load(Path(job["data_dir"]))
    train, val = data.read("train"), data.read("val")
    train = train.take(list(torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[: job["sentences"]]))
    torch.manual_seed(0)
    backbone = backbones.load(MODEL, data.labels, 128)
    stock, regime = job["contender"].startswith("stock"), "lora" if "lora" in job["contender"] else "full-ft"
    config = TrainConfig(model_name=MODEL, output_dir=Path("unused"), epochs=job["epochs"], lr=LR[regime])
    model = regimes.prepare(backbone, regime, config.lora)  # type: ignore[arg-type]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        if stock:
            precision = _stock(model, backbone.tokenizer, train, job, LR[regime], Path(work))
        else:
            precision = _ours(model, backbone.tokenizer, train, val, regime, config, Path(work))
    seconds = time.perf_counter() - started
    tokens = sum(len(row["input_ids"]) for row in trainer.encode(train, backbone.tokenizer))
    encoder = sum(p.numel() for n, p in backbone.model.base_model.named_parameters() if "embeddings" not in n)
    passes = job["epochs"] * len(train) / seconds
    return {
        "seconds": seconds,
        "sentences_per_second": passes,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "accuracy": _accuracy(backbone, data.labels, val),
        "peak_memory_bytes": trainer.peak_memory(),
        # Two operations a weight and token forward, four backward (Kaplan et al., 2020); attention is negligible here.
        "useful_flops_per_second": 6 * encoder * tokens / len(train) * passes,
    }


def _ours(
    model: Any, tokenizer: Any, train: SplitData, val: SplitData, regime: Any, config: TrainConfig, work: Path
) -> str:
    from bankintent.config import TrackingConfig
    from bankintent.tracking import Tracker
    from bankintent.training import trainer

    few = val.take([0, 1])  # validation is no part of the race
    labels = int(model.config.num_labels)
    tracker = Tracker(TrackingConfig(enabled=False))
    return trainer.fit(model, tokenizer, train, few, labels, regime, config, work, tracker).precision


def _stock(model: Any, tokenizer: Any, train: SplitData, job: dict[str, Any], lr: float, work: Path) -> str:
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, default_data_collator

    from bankintent.training.trainer import pick_precision

    tuned = job["contender"] != "stock-default"
    precision = pick_precision("auto") if tuned else "fp32"
    encoded = tokenizer(train.texts, truncation=True, max_length=128, padding=False if tuned else "max_length")
    rows = [{**{key: encoded[key][i] for key in encoded}, "labels": label} for i, label in enumerate(train.labels)]
    options: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if tuned else {}
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=job["epochs"],
        per_device_train_batch_size=BATCH,
        learning_rate=lr,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    collator = DataCollatorWithPadding(tokenizer) if tuned else default_data_collator
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator).train()
    return precision


def _accuracy(backbone: Any, labels: Any, val: SplitData) -> float:
    from bankintent.inference.predictor import Predictor

    model = backbone.model.to("cpu").float()
    logits = Predictor(model, backbone.tokenizer, labels).logits(val.texts)
    return float((logits.argmax(axis=1) == val.labels).mean())


def matmul_rates() -> dict[str, float]:
    """Operations a second of square matrix products of the encoder's size of work, by precision."""
    import torch

    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.randn(1024, 1536).to(dtype), torch.randn(1536, 1536).to(dtype)
        best = 0.0
        for _ in range(30):
            started = time.perf_counter()
            a @ b
            best = max(best, 2 * 1024 * 1536 * 1536 / (time.perf_counter() - started))
        rates[name] = best
    return rates


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        cli.quiet_libraries()
        print(json.dumps(contend(json.loads(sys.argv[1]))))
    else:
        cli.run(main)
