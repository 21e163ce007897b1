"""What one run trains on and what comes before its Trainer: features, guessed labels, a probed head, a contrastive stage."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bankintent import console, tracking
from bankintent.config import Regime, TrainConfig
from bankintent.corpus.cleaning import normalise
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.errors import ConfigError
from bankintent.labels import LabelSchema

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bankintent.training.backbones import Backbone
    from bankintent.training.regimes import Parameters
    from bankintent.training.trainer import Fit

NEGATIVES = "negatives.csv"
PSEUDO_LABELS = "pseudo-labels.csv"
TABLES = (NEGATIVES, PSEUDO_LABELS)
"""Written into the work folder for people to read."""


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


def rows_without_labels(
    config: TrainConfig, data: Dataset, train: SplitData, drawn: SplitData
) -> SplitData:
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


def require_words(labels: LabelSchema) -> None:
    """Raise ConfigError where the intents' names are no sentences of theirs: codes, or two that read the same."""
    seen: dict[str, str] = {}
    for name, phrase in zip(labels.names, labels.phrases, strict=True):
        other = seen.setdefault(normalise(phrase), name)
        if other != name or not any(map(str.isalpha, phrase)):
            what = f'reads like "{other}"' if other != name else "has no letter"
            raise ConfigError(
                f'label_names: the intent "{name}" {what}',
                "Rename it in the data, or remove label_names",
            )


def named(labels: LabelSchema) -> SplitData:
    """Each intent's name as a sentence of it."""
    return SplitData(
        [f"name/{name}" for name in labels.names], [*labels.phrases], [*range(len(labels))]
    )


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

    from bankintent.export import publish as export
    from bankintent.training import backbones, regimes, trainer
    from bankintent.training.methods import distillation

    config, labels = job.config, job.data.labels
    started = time.perf_counter()
    set_seed(config.seed)
    if config.label_names:
        job = replace(job, train=job.train + named(labels))
    backbone = backbones.load(
        config.model_name, labels, config.max_length, config.revision, config.pooling
    )
    table = lesson = None
    if config.distill:
        lesson = distillation.prepare(config, job.data, backbone, job.train, job.val)
        backbone = lesson.student
    if config.pseudo_labels:
        job = replace(job, train=job.train + job.unlabelled)
    if (
        config.head_init == "probe"
        or config.contrastive
        or config.pseudo_labels
        or job.regime == "head-only"
    ):
        table = _frozen_features(job, backbone)
    if config.pseudo_labels and table is not None:
        job = _guess_labels(job, table)
    if config.head_init == "probe" and table is not None and not config.contrastive:
        _probe(job, backbone, table)
    if job.regime == "lora":
        export.save_base(backbone.model, backbone.tokenizer, job.work / "base")
    model = regimes.prepare(backbone, job.regime, config.lora)
    parameters = regimes.count_parameters(model)
    _announce(job, backbone, parameters)
    if (
        config.contrastive
        and table is not None
        and not trainer.newest_complete_checkpoint(job.work / "checkpoints")
    ):
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


def _frozen_features(job: Job, backbone: "Backbone") -> "torch.Tensor":
    """The encoder's vectors of the training rows, then of the validation rows."""
    from bankintent.training import features

    started = time.perf_counter()
    texts = job.train.texts + job.val.texts
    found = features.frozen(
        backbone, job.data.labels, texts, job.config.eval_batch_size, job.config.cache_dir
    )
    origin = (
        f"read from {console.show_path(job.config.cache_dir)}"
        if found.cached
        else "one pass of the frozen encoder"
    )
    console.say(
        f"Features of {len(texts):,} sentences: {origin}, {time.perf_counter() - started:.1f} s"
    )
    return found.table


def _guess_labels(job: Job, table: "torch.Tensor") -> Job:
    """The job with an intent for each of its training rows that had none."""
    from bankintent.training.methods import pseudo_labels

    config, names = job.config, job.data.labels.names
    assert config.pseudo_labels is not None
    started, given = time.perf_counter(), np.asarray(job.train.labels)
    found = pseudo_labels.guess(
        table[: len(given)].double().numpy(), given, len(names), config.pseudo_labels
    )
    found.write(job.work / PSEUDO_LABELS, job.train, names)
    console.say(
        f"{len(job.unlabelled):,} sentences were given the intents of their neighbours,"
        f" {time.perf_counter() - started:.0f} s"
    )
    return replace(job, train=replace(job.train, labels=found.labels.tolist()))


def _probe(job: Job, backbone: "Backbone", table: "torch.Tensor") -> None:
    from bankintent.training.methods import probe

    accuracy = probe.warm_start(
        backbone.model, table, job.train.labels, job.val.labels, len(job.data.labels)
    )
    console.say(
        f"The head starts from a linear probe of the encoder: validation accuracy {100 * accuracy:.2f} %"
    )


def _contrast(job: Job, backbone: "Backbone", model: "nn.Module", table: "torch.Tensor") -> None:
    """The contrastive stage on the weights that the regime trains, and a probe of what it made of the encoder."""
    from bankintent.training import features, trainer
    from bankintent.training.methods import contrastive

    config, labels, started = job.config, job.data.labels, time.perf_counter()
    assert config.contrastive is not None
    classes = np.asarray(job.train.labels)
    negatives = None
    if config.contrastive.hard:
        negatives = contrastive.mine(table[: len(job.train)].numpy(), classes)
        negatives.write(job.work / NEGATIVES, job.train, labels.names)
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
    console.say(
        f"Contrastive stage: {config.contrastive.steps} steps, {time.perf_counter() - started:.0f} s, loss {loss:.3f}"
    )
    if config.head_init == "probe":
        texts = job.train.texts + job.val.texts
        _probe(job, backbone, features.compute(backbone, labels, texts, config.eval_batch_size))


def _announce(job: Job, backbone: "Backbone", parameters: "Parameters") -> None:
    """What is about to be trained: a table of parameters, and LoRA targets that match nothing."""
    from bankintent.training import regimes

    for name in (
        regimes.unmatched_targets(backbone.model, job.config.lora) if job.regime == "lora" else []
    ):
        available = ", ".join(regimes.linear_modules(backbone.model))
        console.say(
            f'note: lora.target_modules names "{name}", which matches nothing here; there are {available}'
        )
    console.print_table(
        f"{job.regime} on {backbone.name}",
        ["", "trainable", "total", "share"],
        [
            [
                "parameters",
                f"{parameters.trainable:,}",
                f"{parameters.total:,}",
                f"{100 * parameters.share:.2f} %",
            ]
        ],
    )
    console.say(
        f"{len(job.train):,} sentences of {len(job.data.labels)} intents, {job.config.epochs} epochs;"
        f" newly initialised: {', '.join(backbone.new_modules) or 'nothing'}"
    )
