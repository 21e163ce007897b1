"""One training run from a config to a published bundle: started anew, continued, or found finished."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from bankintent import console, files, tracking
from bankintent.bundle import card, layout
from bankintent.bundle.work import WorkFolder
from bankintent.config import Regime, TrainConfig
from bankintent.corpus.dataset import Dataset
from bankintent.errors import ConfigError, OutputError
from bankintent.training.job import TABLES, Job, fit, require_words, rows_without_labels

WORK_RUN = "run.json"


def identity(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """What makes two runs the same: every setting that can change the weights, and the data."""
    settings = config.model_dump(
        mode="json", exclude={"output_dir", "data_dir", "cache_dir", "tracking", "eval_batch_size"}
    )
    for later in (
        "label_names",
        "pseudo_labels",
    ):  # off, they leave the identity of earlier runs as it was
        if not settings[later]:
            settings.pop(later)
    if config.regime != "lora":
        settings.pop("lora")
    what: dict[str, Any] = {
        "settings": settings,
        "data_hash": data.hash,
        "labels_hash": data.labels.hash,
    }
    if config.pseudo_labels and data.unlabelled_hash:
        what["unlabelled_hash"] = data.unlabelled_hash
    if config.distill is None:
        settings.pop("distill")
        start = Path(config.model_name).expanduser()
        # A folder can hold other weights tomorrow under the same name.
        return what | {"model": layout.weights_hash(start)} if start.is_dir() else what
    from bankintent.training.methods import distillation

    return what | {"teacher": distillation.open_teacher(config, data.labels).weights_hash}


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
            raise OutputError(
                f"{work} exists and is no interrupted run", "Remove it, or name another output_dir"
            )
        shutil.rmtree(work)
    work.mkdir(parents=True)
    files.write_text(record, files.json_text(wanted))


def train(config: TrainConfig, regime: Regime, data: Dataset, overwrite: bool = False) -> Path:
    """Train and publish; returns the bundle's path. A finished run of the same identity is left as it is."""
    config = config.model_copy(update={"regime": regime})
    wanted = identity(config, data)
    if find_finished(config, wanted, overwrite):
        console.say(
            f"{console.show_path(config.output_dir)} is already trained with these settings; nothing to do."
        )
        return config.output_dir
    if config.contrastive and regime == "head-only":
        raise ConfigError(
            "contrastive: trains the encoder, which head-only keeps frozen",
            "Remove the section, or use lora or full-ft",
        )
    if config.label_names:
        require_words(data.labels)
    train_rows, val_rows = data.read("train"), data.read("val")
    drawn = (
        train_rows if config.few_shot is None else train_rows.few_shot(config.few_shot, config.seed)
    )
    unlabelled = rows_without_labels(config, data, train_rows, drawn)
    with files.exclusive(config.output_dir) as work:
        open_work(work, wanted, overwrite)
        tags = {"dataset": data.name, "backbone": config.model_name, "regime": regime}
        with tracking.run(config.tracking, config.output_dir.name, tags) as tracker:
            tracker.params(config.model_dump(mode="json", exclude={"tracking"}))
            job = Job(config, regime, data, drawn, val_rows, work, tracker, unlabelled)
            facts = _train(job, wanted)
            _log(tracker, config.output_dir, facts)
        shutil.rmtree(work)
    _summarise(config, facts)
    return config.output_dir


def _train(job: Job, wanted: dict[str, Any]) -> dict[str, Any]:
    """Fit and publish; returns the facts that the bundle records."""
    from bankintent.export import publish as export
    from bankintent.training import record as facts

    config, labels = job.config, job.data.labels
    done = fit(job)
    console.say("Publishing: saving, loading again in a fresh process, comparing ...")
    work = WorkFolder(job.work)
    staging = files.make_empty(work.bundle)
    labels.save(staging / layout.LABELS)
    trained = export.Trained(done.model, done.backbone.tokenizer, done.backbone.name, labels)
    exported = export.export(trained, job.train, job.val, config, work)
    found = facts.gather(job, wanted, done, exported)
    _seal(staging, found, wanted, job.data)
    files.publish(staging, config.output_dir)
    _publish_tables(job)
    return found


def _publish_tables(job: Job) -> None:
    """Put what people shall read of a run's training rows beside its bundle, in the place of an earlier run's."""
    for name in TABLES:
        written = job.work / name
        if written.is_file():
            written.replace(_beside(job.config.output_dir, name))
        else:
            _beside(job.config.output_dir, name).unlink(missing_ok=True)


def _beside(bundle: Path, name: str) -> Path:
    return bundle.with_name(f"{bundle.name}.{name}")


def _log(tracker: tracking.Tracker, bundle: Path, facts: dict[str, Any]) -> None:
    training = facts["training"]
    tracker.params({f"parameters.{k}": training[f"{k}_parameters"] for k in ("trainable", "total")})
    tracker.metrics({f"final.val_{key}": value for key, value in facts["metrics"]["val"].items()})
    tracker.metrics(
        {key: training[key] for key in ("seconds", "sentences_per_second", "peak_memory_bytes")}
    )
    tracker.files(bundle, "bundle")


def _seal(staging: Path, facts: dict[str, Any], wanted: dict[str, Any], data: Dataset) -> None:
    metrics_record = {key: facts[key] for key in ("metrics", "validation", "training", "parity")}
    if "distilled_from" in facts:
        metrics_record["distilled_from"] = facts["distilled_from"]
    files.write_text(staging / layout.METRICS, files.json_text(metrics_record))
    settings = {key: value for key, value in facts["config"].items() if value is not None}
    files.write_text(staging / layout.CONFIG, yaml.safe_dump(settings, sort_keys=False))
    card.write(staging, facts)
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
            "versions": facts["versions"],
        },
    )


def _summarise(config: TrainConfig, facts: dict[str, Any]) -> None:
    validation, training = facts["metrics"]["val"], facts["training"]
    worst = max(facts["parity"]["largest_logit_difference"].values())
    console.say(
        f"Validation accuracy {100 * validation['accuracy']:.2f} %, macro-F1 {100 * validation['macro_f1']:.2f} %;"
        f" trained in {training['seconds']:.0f} s at {training['sentences_per_second']:.0f} sentences/s;"
        f" exported forms agree within {worst:.0e}."
    )
    for line in card.describe_formats(facts["parity"]):
        console.say(f"  {line}")
    console.say(f"Published {console.show_path(config.output_dir)}")
    for path in (_beside(config.output_dir, name) for name in TABLES):
        if path.is_file():
            console.say(f"To read: {console.show_path(path)}")


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The first setting in which two identities differ, in words."""
    old, new = tracking.flatten(found), tracking.flatten(wanted)
    for key in [*new, *old]:
        if old.get(key) != new.get(key):
            name = key.removeprefix("settings.")
            if name in ("data_hash", "labels_hash", "unlabelled_hash"):
                return "it was trained on other data"
            if name == "model":
                return "it started from another model"
            if name == "teacher":
                return "it learned from another teacher"
            return f"{name} is {old.get(key)}, now {new.get(key)}"
    return "its record differs"
