"""One run from its config to a trained model: load, prepare, train. Nothing is published here."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import set_seed

from bankintent import console
from bankintent.bundle.work import NEGATIVES, PSEUDO_LABELS, WorkFolder
from bankintent.config import TrainConfig
from bankintent.corpus.dataset import Dataset, SplitData
from bankintent.export import publish
from bankintent.measures.shares import in_percent
from bankintent.progress import waiting
from bankintent.tracking import Tracker
from bankintent.training import backbones, checkpoints, features, processes, regimes, trainer
from bankintent.training.backbones import Backbone
from bankintent.training.course import Course, Past
from bankintent.training.encoding import TrainingRows
from bankintent.training.features import Features, KnownVectors
from bankintent.training.forward_check import require_trainable
from bankintent.training.hardware import pick_precision
from bankintent.training.methods import contrastive, distillation, probe, pseudo_labels
from bankintent.training.methods.distillation import TeacherRecord
from bankintent.training.regimes import Parameters
from bankintent.training.rows import RunRows, label_name_rows
from bankintent.training.selection import Published
from bankintent.training.trainer import Fit


@dataclass(frozen=True)
class TrainingRun:
    """One run: its settings, its data, and its places for work and figures."""

    config: TrainConfig
    data: Dataset
    rows: RunRows
    work: WorkFolder
    tracker: Tracker
    known: KnownVectors | None = None
    """The frozen encoder's vectors of all rows, where several trainings share them."""
    is_fold: bool = False
    """Whether it is a part of a cross-validation."""
    published: Published | None = None
    """The epoch that a cross-validation has chosen."""

    @property
    def course(self) -> Course:
        """Where and how far its training goes."""
        return Course(self.work.checkpoints, self.tracker, self.is_fold, self.published)


@dataclass(frozen=True)
class Fitted:
    """A trained model, not yet saved, and the cost of training it."""

    backbone: Backbone
    model: nn.Module
    parameters: Parameters
    fit: Fit
    teacher: TeacherRecord | None = None
    """The record of a student's teacher."""
    frozen: Features | None = None
    """What the encoder made of the training and validation rows before it was trained, where that
    was computed."""


def fit_run(run: TrainingRun) -> Fitted:
    """Load, prepare and train a model; each epoch's metrics go to `run.tracker`."""
    config = run.config
    course = _begin(run)
    # First of all: a new head is random, and so are dropout, adapters and the order of batches.
    set_seed(config.seed)

    with waiting("Loading the encoder"), processes.main_first():
        backbone = backbones.load_backbone(
            config.model_name,
            run.data.labels,
            config.max_length,
            config.revision,
            config.pooling,
            config.prefix,
        )
    require_trainable(backbone, config)
    _say_what_is_kept(backbone, config, len(run.data.labels))
    rows = TrainingRows(labelled_rows(run), run.rows.val)

    teacher = None
    if config.distill is not None:
        lesson = distillation.prepare_student(config, run.data, backbone, rows.train, rows.val)
        backbone = lesson.student
        teacher = lesson.teacher
        rows = replace(rows, teacher_logits=lesson.logits)

    rows = _prepare_rows(run, backbone, rows)
    is_continued = course.resume_from is not None
    model, parameters = _prepare_model(run, backbone, rows, is_continued)
    frozen = rows.features
    if config.regime != "head-only" or not features.runs_on_features(backbone.model):
        # An encoder that learns has to be run: its vectors change with each step.
        rows = rows.without_features()

    cost = trainer.fit(model, backbone.tokenizer, rows, config, course)
    return Fitted(backbone, model, parameters, cost, teacher, frozen)


def _begin(run: TrainingRun) -> Course:
    """The course of the run's training, from the newest whole checkpoint if there is one."""
    # From here on the seconds are counted: a user waits for all of it, not for the Trainer alone.
    course = run.course
    needs_best = run.config.keep == "best"
    checkpoint = processes.from_main(lambda: _newest_checkpoint(course, needs_best))
    path = None if checkpoint is None else Path(checkpoint)
    return replace(course, resume_from=path, past=Past.read(path))


def _newest_checkpoint(course: Course, needs_best: bool) -> str | None:
    checkpoint = checkpoints.take_newest_whole(course.checkpoints, needs_best)
    return None if checkpoint is None else str(checkpoint)


def _say_what_is_kept(backbone: Backbone, config: TrainConfig, num_labels: int) -> None:
    """Print what of a trained model the run goes on with, beyond its encoder."""
    if backbone.took_mean and config.pooling == "first" and config.distill is None:
        console.say(
            f"note: {backbone.name} reads the mean of the tokens, in its last layer, and goes on"
            " to; pooling: first is for models without that layer"
        )

    earlier = backbone.earlier_prefix
    if earlier is not None and config.prefix is None:
        console.say(f"note: {backbone.name} puts {earlier!r} before every text, and goes on to")
    elif earlier is not None and config.prefix != earlier:
        console.say(
            f"note: {backbone.name} put {earlier!r} before every text; it is {config.prefix!r} now"
        )

    if not backbone.kept_rows:
        return
    rows = f"{backbone.kept_rows} of {num_labels} intents"
    if config.head_init == "probe":
        console.say(f"head_init: probe fits the head anew; that of {rows} is not kept.")
    else:
        console.say(f"{rows} keep their rows of the trained head.")


def labelled_rows(run: TrainingRun) -> SplitData:
    """The training rows of a run, with the intents' names where they are sentences too."""
    if not run.config.label_names:
        return run.rows.train
    return run.rows.train + label_name_rows(run.data.labels)


def _prepare_rows(run: TrainingRun, backbone: Backbone, rows: TrainingRows) -> TrainingRows:
    """Add what the frozen encoder knows of the rows: features, and intents of unlabelled ones."""
    config = run.config
    if config.pseudo_labels is not None:
        rows = replace(rows, train=rows.train + run.rows.unlabelled)

    needs_features = (
        (config.regime == "head-only" and features.runs_on_features(backbone.model))
        or config.head_init == "probe"
        or config.contrastive is not None
        or config.pseudo_labels is not None
    )
    if not needs_features:
        return rows
    if rows.train.is_mapped:
        return _map_features(run, backbone, rows)

    vectors = _read_features(run, backbone, rows)
    rows = replace(rows, features=vectors)

    if config.pseudo_labels is not None:
        rows = replace(rows, train=_guess_labels(run, vectors, rows.train))
    return rows


def _prepare_model(
    run: TrainingRun, backbone: Backbone, rows: TrainingRows, is_continued: bool
) -> tuple[nn.Module, Parameters]:
    """The model with its head started and the weights of its regime made trainable.

    With `is_continued` a checkpoint gives it its weights later.
    """
    config = run.config
    # After a contrastive stage the encoder is another one, and is probed then.
    if config.head_init == "probe" and config.contrastive is None:
        probed = rows.for_probe()
        vectors = probed.features or _read_features(run, backbone, probed)
        _probe_head(backbone, vectors, probed)

    if config.regime == "lora":
        # What the adapter will be an adapter to: once it is trained, this model is gone.
        processes.from_main(
            lambda: publish.save_base(backbone.model, backbone.tokenizer, run.work.base)
        )

    model = regimes.prepare(backbone, config.regime, config.lora)
    parameters = regimes.count_parameters(model)
    _announce(run, backbone, parameters, len(rows.train))

    if config.contrastive is not None:
        # Also where the run is continued: the table is published, and may have been damaged.
        negatives = _mine_negatives(run, rows)
        # A checkpoint was written after the stage: its weights have been through it.
        if not is_continued:
            _run_contrastive_stage(run, backbone, model, rows, negatives)
    return model, parameters


def _map_features(run: TrainingRun, backbone: Backbone, rows: TrainingRows) -> TrainingRows:
    """Rows on disk with their features beside them, where the head alone is trained on those."""
    config = run.config
    if config.regime != "head-only" or not features.runs_on_features(backbone.model):
        return rows

    parts = [rows.train.texts, rows.val.texts]
    with waiting(f"Reading {len(rows.train):,} sentences once with the frozen encoder"):
        table = features.compute_mapped(
            backbone, run.data.labels, parts, config.eval_batch_size, config.cache_dir
        )
    return replace(rows, features=Features(table, len(rows.train)))


def _read_features(run: TrainingRun, backbone: Backbone, rows: TrainingRows) -> Features:
    config = run.config
    started = time.perf_counter()

    # In one pass: the cache is keyed by the texts of both.
    texts = [*rows.train.texts, *rows.val.texts]
    if run.known is not None and run.known.covers(texts):
        return Features(run.known.take(texts), len(rows.train))

    with waiting(f"Reading {len(texts):,} sentences once with the frozen encoder"):
        vectors = features.frozen(
            backbone, run.data.labels, texts, config.eval_batch_size, config.cache_dir
        )

    seconds = time.perf_counter() - started
    origin = "one pass of the frozen encoder"
    if vectors.is_cached:
        origin = f"read from {console.show_path(config.cache_dir)}"
    console.say(f"Features of {len(texts):,} sentences: {origin}, {seconds:.1f} s")
    return Features(vectors.table, len(rows.train))


def _guess_labels(run: TrainingRun, vectors: Features, train: SplitData) -> SplitData:
    """The training rows, those without a label with the intent of their neighbours."""
    section = run.config.pseudo_labels
    assert section is not None
    names = run.data.labels.names
    started = time.perf_counter()

    def guess() -> list[int]:
        # In float64: the probe behind the guesses is fitted in it.
        guesses = pseudo_labels.guess(
            vectors.train.double().numpy(), np.asarray(train.labels), len(names), section
        )
        guesses.write(run.work.table(PSEUDO_LABELS), train, names)
        return guesses.labels.tolist()

    with waiting("Guessing the intents of the sentences without labels"):
        labels = processes.from_main(guess)

    console.say(
        f"{len(run.rows.unlabelled):,} sentences were given the intents of their neighbours,"
        f" {time.perf_counter() - started:.0f} s"
    )
    return replace(train, labels=labels)


def _probe_head(backbone: Backbone, vectors: Features, rows: TrainingRows) -> None:
    if not processes.is_main():
        # Training begins with the weights of the main process in all.
        return
    with waiting("Fitting a linear probe of the encoder"):
        accuracy = probe.warm_start(backbone.model, vectors, rows.train.labels, rows.val.labels)
    figure = "" if accuracy is None else f": validation accuracy {in_percent(accuracy)}"
    console.say(f"The head starts from a linear probe{figure}")


def _run_contrastive_stage(
    run: TrainingRun,
    backbone: Backbone,
    model: nn.Module,
    rows: TrainingRows,
    negatives: contrastive.Negatives | None,
) -> None:
    """The contrastive stage, on the weights that learn, and then a probe of the new encoder."""
    config = run.config
    section = config.contrastive
    assert section is not None
    started = time.perf_counter()

    batches = contrastive.IntentBatches(
        np.asarray(rows.train.labels), negatives, section, config.seed
    )
    loss = contrastive.run_stage(
        model,
        backbone.tokenizer,
        rows.without_features().encode_train(backbone.tokenizer, config.cache_dir),
        batches,
        pick_precision(config.precision),
        run.work.contrastive,
    )

    seconds = time.perf_counter() - started
    console.say(f"Contrastive stage: {section.steps} steps, {seconds:.0f} s, loss {loss:.3f}")

    if config.head_init == "probe":
        probed = rows.without_features().for_probe()
        texts = [*probed.train.texts, *probed.val.texts]
        table = processes.table_from_main(
            lambda: features.compute(backbone, run.data.labels, texts, config.eval_batch_size)
        )
        _probe_head(backbone, Features(table, len(probed.train)), probed)


def _mine_negatives(run: TrainingRun, rows: TrainingRows) -> contrastive.Negatives | None:
    """The hard negatives of the training rows by the pretrained encoder, if any are asked for."""
    section = run.config.contrastive
    assert section is not None
    if not section.hard:
        return None

    assert rows.features is not None
    label_ids = np.asarray(rows.train.labels)
    vectors = rows.features.train.numpy()

    def mine() -> list[Any]:
        negatives = contrastive.mine(vectors, label_ids)
        negatives.write(run.work.table(NEGATIVES), rows.train, run.data.labels.names)
        return [negatives.rows.tolist(), negatives.cosines.tolist()]

    found = processes.from_main(mine)
    return contrastive.Negatives(
        np.asarray(found[0], dtype=np.int64), np.asarray(found[1], dtype=np.float32)
    )


def _announce(run: TrainingRun, backbone: Backbone, parameters: Parameters, sentences: int) -> None:
    """Print what is about to be trained, and the LoRA targets that match nothing."""
    config = run.config
    if config.regime == "lora":
        available = ", ".join(regimes.linear_modules(backbone.model))
        for name in regimes.unmatched_targets(backbone.model, config.lora):
            console.say(
                f'note: lora.target_modules names "{name}", which matches nothing here;'
                f" there are {available}"
            )

    counts = [
        "parameters",
        f"{parameters.trainable:,}",
        f"{parameters.total:,}",
        in_percent(parameters.share),
    ]
    title = f"{config.regime} on {backbone.name}"
    console.print_table(title, ["", "trainable", "total", "share"], [counts])

    new_modules = ", ".join(backbone.new_modules) or "nothing"
    console.say(
        f"{sentences:,} sentences, {config.epochs} epochs; newly initialised: {new_modules}"
    )
    if processes.count() > 1:
        console.say(_describe_batch(config))


def _describe_batch(config: TrainConfig) -> str:
    """The sentences of an optimizer step, and how they are divided, in words."""
    number = processes.count()
    passes = config.gradient_accumulation
    accumulated = f" x {passes} passes" if passes > 1 else ""
    return (
        f"{config.effective_batch} sentences in a step: {number} processes"
        f" x {config.batch_size // number}{accumulated}"
    )
