"""One training run from a config to a published bundle: started anew, continued, or found finished."""

import json
import platform
import shutil
from pathlib import Path
from typing import Any

import yaml

import bankintent
from bankintent import cli, files, tracking
from bankintent.bundle import card, layout
from bankintent.config import Regime, TrainConfig
from bankintent.corpus import dataset as datasets
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import OutputError

WORK_RUN = "run.json"


def identity(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """What makes two runs the same: every setting that can change the weights, and the data."""
    settings = config.model_dump(mode="json", exclude={"output_dir", "data_dir", "tracking", "eval_batch_size"})
    if config.regime != "lora":
        settings.pop("lora")
    return {"settings": settings, "data_hash": data.hash, "labels_hash": data.labels.hash}


def find_finished(config: TrainConfig, wanted: dict[str, Any], overwrite: bool) -> bool:
    """True where `output_dir` already holds this very run; OutputError where it holds something else."""
    final = config.output_dir
    files.recover(final)
    if not final.exists() or overwrite:
        return False
    if not (final / layout.MANIFEST).is_file():
        raise OutputError(f"{final} exists and is no bundle", "Name another output_dir")
    found = layout.read_manifest(final).get("identity", {})
    if found == wanted:
        return True
    raise OutputError(
        f"{final} holds another run ({_difference(found, wanted)})",
        f"Use --set output_dir={final}-2, or --overwrite to replace it",
    )


def open_work(work: Path, wanted: dict[str, Any], overwrite: bool) -> None:
    """Make the work folder, or take up the one an interrupted run of the same identity left."""
    record = work / WORK_RUN
    if work.exists() and not overwrite and record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        if found != wanted:
            raise OutputError(
                f"{work} holds an interrupted run with other settings ({_difference(found, wanted)})",
                "Run it to its end, name another output_dir, or use --overwrite to discard it",
            )
        return
    if work.exists():
        if any(work.iterdir()) and not record.is_file():
            raise OutputError(f"{work} exists and is no interrupted run", "Remove it, or name another output_dir")
        shutil.rmtree(work)
    work.mkdir(parents=True)
    files.write_text(record, files.json_text(wanted))


def train(config: TrainConfig, regime: Regime, data: Dataset, overwrite: bool = False) -> Path:
    """Train and publish; returns the bundle's path. A finished run of the same identity is left as it is."""
    config = config.model_copy(update={"regime": regime})
    wanted = identity(config, data)
    if find_finished(config, wanted, overwrite):
        cli.say(f"{cli.show_path(config.output_dir)} is already trained with these settings; nothing to do.")
        return config.output_dir
    train_rows, val_rows = data.read("train"), data.read("val")
    with files.exclusive(config.output_dir) as work:
        open_work(work, wanted, overwrite)
        tags = {"dataset": _data_name(data), "backbone": config.model_name, "regime": regime}
        with tracking.run(config.tracking, config.output_dir.name, tags) as tracker:
            tracker.params(config.model_dump(mode="json", exclude={"tracking"}))
            _train_and_publish(config, regime, data, train_rows, val_rows, work, wanted, tracker)
        shutil.rmtree(work)
    return config.output_dir


def _train_and_publish(
    config: TrainConfig,
    regime: Regime,
    data: Dataset,
    train_rows: SplitData,
    val_rows: SplitData,
    work: Path,
    wanted: dict[str, Any],
    tracker: tracking.Tracker,
) -> None:
    import torch
    from transformers import set_seed

    from bankintent.measures import metrics
    from bankintent.training import backbones, export, regimes, trainer

    set_seed(config.seed)
    backbone = backbones.load(config.model_name, data.labels, config.max_length, config.revision)
    if regime == "lora":
        export.save_base(backbone, work / "base")
    model = regimes.prepare(backbone, regime, config.lora)
    parameters = regimes.count_parameters(model)
    _announce(config, backbone, regime, parameters, data, train_rows)
    tracker.params({"parameters.trainable": parameters.trainable, "parameters.total": parameters.total})

    fit = trainer.fit(model, backbone.tokenizer, train_rows, val_rows, len(data.labels), regime, config, work, tracker)

    cli.say("Publishing: saving, loading again in a fresh process, comparing ...")
    staging = work / "bundle"
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir()
    data.labels.save(staging / layout.LABELS)
    model.to("cpu")
    probe = val_rows.texts[: export.PARITY_ROWS]
    reference = export.logits(model, backbone.tokenizer, data.labels, probe, 32)
    merged = export.save_models(model, backbone.tokenizer, config.model_name, data.labels, work / "base", staging)
    parity = export.check_parity(reference, probe, staging, work)
    if torch.cuda.is_available():
        merged.to("cuda")
    val_logits = export.logits(merged, backbone.tokenizer, data.labels, val_rows.texts, config.eval_batch_size)
    facts: dict[str, Any] = {
        "name": config.output_dir.name,
        "base_model": backbones.HUB_NAMES.get(config.model_name, config.model_name),
        "labels": list(data.labels.names),
        "config": config.model_dump(mode="json"),
        "data": {"name": _data_name(data), "train_rows": len(train_rows), "val_rows": len(val_rows)},
        "metrics": {"val": metrics.summary(val_logits, _array(val_rows.labels))},
        "training": {
            "trainable_parameters": parameters.trainable,
            "total_parameters": parameters.total,
            "seconds": round(fit.seconds, 1),
            "epochs": fit.epochs,
            "sentences_per_second": round(fit.sentences_per_second, 1),
            "peak_memory_bytes": fit.peak_memory_bytes,
            "precision": fit.precision,
            "hardware": torch.cuda.get_device_name()
            if torch.cuda.is_available()
            else f"CPU, {torch.get_num_threads()} threads",
            "history": fit.history,
        },
        "parity": parity,
    }
    _seal(staging, facts, wanted, data)
    files.publish(staging, config.output_dir)
    tracker.metrics({f"final.val_{key}": value for key, value in facts["metrics"]["val"].items()})
    tracker.metrics({"seconds": fit.seconds, "sentences_per_second": fit.sentences_per_second})
    tracker.files(config.output_dir, "bundle")
    _summarise(config, facts)


def _seal(staging: Path, facts: dict[str, Any], wanted: dict[str, Any], data: Dataset) -> None:
    metrics_record = {key: facts[key] for key in ("metrics", "training", "parity")}
    files.write_text(staging / layout.METRICS, files.json_text(metrics_record))
    settings = {key: value for key, value in facts["config"].items() if value is not None}
    files.write_text(staging / layout.CONFIG, yaml.safe_dump(settings, sort_keys=False))
    files.write_text(staging / layout.CARD, card.render(facts))
    layout.seal(
        staging,
        {
            "name": facts["name"],
            "identity": wanted,
            "labels_hash": data.labels.hash,
            "data_hash": data.hash,
            "data_dir": str(facts["config"]["data_dir"]),
            "base_model": facts["base_model"],
            "parity": facts["parity"],
            "versions": _versions(),
        },
    )


def _announce(
    config: TrainConfig, backbone: Any, regime: Regime, parameters: Any, data: Dataset, train_rows: SplitData
) -> None:
    from bankintent.training import regimes

    for name in regimes.unmatched_targets(backbone.model, config.lora) if regime == "lora" else []:
        available = ", ".join(regimes.linear_modules(backbone.model))
        cli.say(f'note: lora.target_modules names "{name}", which matches nothing here; there are {available}')
    cli.print_table(
        f"{regime} on {backbone.name}",
        ["", "trainable", "total", "share"],
        [["parameters", f"{parameters.trainable:,}", f"{parameters.total:,}", f"{100 * parameters.share:.2f} %"]],
    )
    cli.say(
        f"{len(train_rows):,} sentences of {len(data.labels)} intents, {config.epochs} epochs;"
        f" newly initialised: {', '.join(backbone.new_modules) or 'nothing'}"
    )


def _summarise(config: TrainConfig, facts: dict[str, Any]) -> None:
    validation, training = facts["metrics"]["val"], facts["training"]
    worst = max(facts["parity"]["largest_logit_difference"].values())
    cli.say(
        f"Validation accuracy {100 * validation['accuracy']:.2f} %, macro-F1 {100 * validation['macro_f1']:.2f} %;"
        f" trained in {training['seconds']:.0f} s at {training['sentences_per_second']:.0f} sentences/s;"
        f" exported forms agree within {worst:.0e}."
    )
    cli.say(f"Published {cli.show_path(config.output_dir)}")


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first setting in which two identities differ, in words."""
    old, new = tracking.flatten(found), tracking.flatten(wanted)
    for key in [*new, *old]:
        if old.get(key) != new.get(key):
            name = key.removeprefix("settings.")
            if name in ("data_hash", "labels_hash"):
                return "it was trained on other data"
            return f"{name} is {old.get(key)}, now {new.get(key)}"
    return "its record differs"


def _data_name(data: Dataset) -> str:
    return Path(str(data.manifest["config"]["dataset_name"])).name


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("torch", "transformers", "peft", "tokenizers", "safetensors")
    return {"bankintent": bankintent.__version__, "python": platform.python_version()} | {
        package: version(package) for package in packages
    }


def _array(labels: list[int]) -> Any:
    import numpy as np

    return np.asarray(labels)


def load_data(config: TrainConfig) -> Dataset:
    """ETL's output that the config names."""
    return datasets.load(config.data_dir)
