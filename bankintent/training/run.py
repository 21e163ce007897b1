"""One training run from a config to a published bundle: started anew, continued, or found finished."""

import json
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from bankintent import cli, files, tracking
from bankintent.bundle import card, layout
from bankintent.config import Regime, TrainConfig
from bankintent.corpus.cleaning import normalise
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import ConfigError, OutputError
from bankintent.labels import LabelSchema

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bankintent.training.backbones import Backbone
    from bankintent.training.regimes import Parameters
    from bankintent.training.trainer import Fit

WORK_RUN = "run.json"

TABLES = ("negatives.csv", "pseudo-labels.csv")
"""Mined negatives and pseudo-labels, for people to read."""


def identity(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """What makes two runs the same: every setting that can change the weights, and the data."""
    settings = config.model_dump(
        mode="json", exclude={"output_dir", "data_dir", "cache_dir", "tracking", "eval_batch_size"}
    )
    for later in ("label_names", "pseudo_labels"):  # off, they leave the identity of earlier runs as it was
        if not settings[later]:
            settings.pop(later)
    if config.regime != "lora":
        settings.pop("lora")
    what: dict[str, Any] = {"settings": settings, "data_hash": data.hash, "labels_hash": data.labels.hash}
    if config.pseudo_labels and data.unlabelled_hash:
        what["unlabelled_hash"] = data.unlabelled_hash
    if config.distill is None:
        settings.pop("distill")
        start = Path(config.model_name).expanduser()
        # A folder can hold other weights tomorrow under the same name.
        return what | {"model": layout.weights_hash(start)} if start.is_dir() else what
    from bankintent.training import distillation

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
            raise OutputError(f"{work} exists and is no interrupted run", "Remove it, or name another output_dir")
        shutil.rmtree(work)
    work.mkdir(parents=True)
    files.write_text(record, files.json_text(wanted))


@dataclass(frozen=True)
class Job:
    """One run on its way: what it was asked, its data, and where it works."""

    config: TrainConfig
    regime: Regime
    data: Dataset
    train: SplitData
    val: SplitData
    work: Path
    tracker: tracking.Tracker
    unlabelled: SplitData = field(default_factory=SplitData.empty)


def train(config: TrainConfig, regime: Regime, data: Dataset, overwrite: bool = False) -> Path:
    """Train and publish; returns the bundle's path. A finished run of the same identity is left as it is."""
    config = config.model_copy(update={"regime": regime})
    wanted = identity(config, data)
    if find_finished(config, wanted, overwrite):
        cli.say(f"{cli.show_path(config.output_dir)} is already trained with these settings; nothing to do.")
        return config.output_dir
    if config.contrastive and regime == "head-only":
        raise ConfigError(
            "contrastive: trains the encoder, which head-only keeps frozen",
            "Remove the section, or use lora or full-ft",
        )
    if config.label_names:
        _require_words(data.labels)
    train_rows, val_rows = data.read("train"), data.read("val")
    drawn = train_rows if config.few_shot is None else train_rows.few_shot(config.few_shot, config.seed)
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


def rows_without_labels(config: TrainConfig, data: Dataset, train: SplitData, drawn: SplitData) -> SplitData:
    """What `pseudo_labels` adds to the `drawn` rows: ETL's sentences without labels, and the rest of `train`, unlabelled.

    Raises ConfigError where there are none.
    """
    if config.pseudo_labels is None:
        return SplitData.empty()
    kept = set(drawn.ids)
    left = train.take([row for row, identifier in enumerate(train.ids) if identifier not in kept])
    found = data.read_unlabelled() + left.without_labels()
    if not len(found):
        raise ConfigError(
            f"pseudo_labels: {data.path} holds no sentences without labels",
            "Name some with unlabelled: in data.yaml and run ETL again, train on fewer of each intent (few_shot), or remove the section",
        )
    return found


@dataclass(frozen=True)
class Fitted:
    """A trained model, not yet saved, and what it took."""

    backbone: "Backbone"
    model: "nn.Module"
    parameters: "Parameters"
    fit: "Fit"
    teacher: dict[str, Any] | None = None
    """What is recorded of a student's teacher."""


def fit(job: Job) -> Fitted:
    """Load, prepare and train; nothing is published. Each epoch's metrics go to `job.tracker`."""
    from transformers import set_seed

    from bankintent.training import backbones, distillation, export, regimes, trainer

    config, labels = job.config, job.data.labels
    started = time.perf_counter()
    set_seed(config.seed)
    if config.label_names:
        job = replace(job, train=job.train + named(labels))
    backbone = backbones.load(config.model_name, labels, config.max_length, config.revision, config.pooling)
    table = lesson = None
    if config.distill:
        lesson = distillation.prepare(config, job.data, backbone, job.train, job.val)
        backbone = lesson.student
    if config.pseudo_labels:
        job = replace(job, train=job.train + job.unlabelled)
    if config.head_init == "probe" or config.contrastive or config.pseudo_labels or job.regime == "head-only":
        table = _frozen_features(job, backbone)
    if config.pseudo_labels and table is not None:
        job = _guess_labels(job, table)
    if config.head_init == "probe" and table is not None and not config.contrastive:
        _probe(job, backbone, table)
    if job.regime == "lora":
        export.save_base(backbone, job.work / "base")
    model = regimes.prepare(backbone, job.regime, config.lora)
    parameters = regimes.count_parameters(model)
    _announce(job, backbone, parameters)
    if config.contrastive and table is not None and not trainer.newest_complete_checkpoint(job.work / "checkpoints"):
        _contrast(job, backbone, model, table)

    cost = trainer.fit(
        model,
        backbone.tokenizer,
        job.train,
        job.val,
        len(labels),
        job.regime,
        config,
        job.work,
        job.tracker,
        table if job.regime == "head-only" else None,
        lesson.logits if lesson else None,
    )
    cost = replace(cost, seconds=time.perf_counter() - started)
    return Fitted(backbone, model, parameters, cost, lesson.facts if lesson else None)


def _require_words(labels: LabelSchema) -> None:
    """Raise ConfigError where the intents' names are no sentences of theirs: codes, or two that read the same."""
    seen: dict[str, str] = {}
    for name, phrase in zip(labels.names, labels.phrases, strict=True):
        other = seen.setdefault(normalise(phrase), name)
        if other != name or not any(map(str.isalpha, phrase)):
            what = f'reads like "{other}"' if other != name else "has no letter"
            raise ConfigError(
                f'label_names: the intent "{name}" {what}', "Rename it in the data, or remove label_names"
            )


def named(labels: LabelSchema) -> SplitData:
    """Each intent's name as a sentence of it."""
    return SplitData([f"name/{name}" for name in labels.names], [*labels.phrases], [*range(len(labels))])


def _guess_labels(job: Job, table: "torch.Tensor") -> Job:
    """The job with an intent for each of its training rows that had none."""
    from bankintent.training import pseudo_labels

    config, names = job.config, job.data.labels.names
    assert config.pseudo_labels is not None
    started, given = time.perf_counter(), np.asarray(job.train.labels)
    found = pseudo_labels.guess(table[: len(given)].double().numpy(), given, len(names), config.pseudo_labels)
    found.write(job.work / "pseudo-labels.csv", job.train, names)
    cli.say(
        f"{len(job.unlabelled):,} sentences were given the intents of their neighbours,"
        f" {time.perf_counter() - started:.0f} s"
    )
    return replace(job, train=replace(job.train, labels=found.labels.tolist()))


def _probe(job: Job, backbone: "Backbone", table: "torch.Tensor") -> None:
    from bankintent.training import probe

    accuracy = probe.warm_start(backbone.model, table, job.train.labels, job.val.labels, len(job.data.labels))
    cli.say(f"The head starts from a linear probe of the encoder: validation accuracy {100 * accuracy:.2f} %")


def _contrast(job: Job, backbone: "Backbone", model: "nn.Module", table: "torch.Tensor") -> None:
    """The contrastive stage on the weights that the regime trains, and a probe of what it made of the encoder."""
    from bankintent.training import contrastive, features, trainer

    config, labels, started = job.config, job.data.labels, time.perf_counter()
    assert config.contrastive is not None
    classes = np.asarray(job.train.labels)
    negatives = None
    if config.contrastive.hard:
        negatives = contrastive.mine(table[: len(job.train)].numpy(), classes)
        negatives.write(job.work / "negatives.csv", job.train, labels.names)
    loss = contrastive.run(
        model,
        backbone.tokenizer,
        trainer.encode(job.train, backbone.tokenizer),
        contrastive.IntentBatches(classes, negatives, config.contrastive, config.seed),
        len(labels),
        config.contrastive,
        trainer.pick_precision(config.precision),
        config.seed,
        job.work / "contrastive",
    )
    cli.say(
        f"Contrastive stage: {config.contrastive.steps} steps, {time.perf_counter() - started:.0f} s, loss {loss:.3f}"
    )
    if config.head_init == "probe":
        texts = job.train.texts + job.val.texts
        _probe(job, backbone, features.compute(backbone, labels, texts, config.eval_batch_size))


def _train(job: Job, wanted: dict[str, Any]) -> dict[str, Any]:
    """Fit and publish; returns the facts that the bundle records."""
    from bankintent.training import export, facts

    config, labels = job.config, job.data.labels
    done = fit(job)
    cli.say("Publishing: saving, loading again in a fresh process, comparing ...")
    staging = job.work / "bundle"
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir()
    labels.save(staging / layout.LABELS)
    exported = export.export(
        done.model,
        done.backbone,
        labels,
        job.train,
        job.val,
        config.eval_batch_size,
        job.work,
        staging,
        config.export,
    )
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


def _frozen_features(job: Job, backbone: "Backbone") -> "torch.Tensor":
    """The encoder's vectors of the training rows, then of the validation rows."""
    from bankintent.training import features

    started = time.perf_counter()
    texts = job.train.texts + job.val.texts
    found = features.frozen(backbone, job.data.labels, texts, job.config.eval_batch_size, job.config.cache_dir)
    origin = f"read from {cli.show_path(job.config.cache_dir)}" if found.cached else "one pass of the frozen encoder"
    cli.say(f"Features of {len(texts):,} sentences: {origin}, {time.perf_counter() - started:.1f} s")
    return found.table


def _log(tracker: tracking.Tracker, bundle: Path, facts: dict[str, Any]) -> None:
    training = facts["training"]
    tracker.params({f"parameters.{k}": training[f"{k}_parameters"] for k in ("trainable", "total")})
    tracker.metrics({f"final.val_{key}": value for key, value in facts["metrics"]["val"].items()})
    tracker.metrics({key: training[key] for key in ("seconds", "sentences_per_second", "peak_memory_bytes")})
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


def _announce(job: Job, backbone: "Backbone", parameters: "Parameters") -> None:
    """What is about to be trained: a table of parameters, and LoRA targets that match nothing."""
    from bankintent.training import regimes

    for name in regimes.unmatched_targets(backbone.model, job.config.lora) if job.regime == "lora" else []:
        available = ", ".join(regimes.linear_modules(backbone.model))
        cli.say(f'note: lora.target_modules names "{name}", which matches nothing here; there are {available}')
    cli.print_table(
        f"{job.regime} on {backbone.name}",
        ["", "trainable", "total", "share"],
        [["parameters", f"{parameters.trainable:,}", f"{parameters.total:,}", f"{100 * parameters.share:.2f} %"]],
    )
    cli.say(
        f"{len(job.train):,} sentences of {len(job.data.labels)} intents, {job.config.epochs} epochs;"
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
    for line in card.describe_formats(facts["parity"]):
        cli.say(f"  {line}")
    cli.say(f"Published {cli.show_path(config.output_dir)}")
    for path in (_beside(config.output_dir, name) for name in TABLES):
        if path.is_file():
            cli.say(f"To read: {cli.show_path(path)}")


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
