"""A run from its rows to a published bundle: trained, checked, recorded, sealed, tracked."""

from dataclasses import asdict, replace
from pathlib import Path

import yaml

from bankintent import console, files, tracking
from bankintent.bundle import card, formats, layout, out_of_fold
from bankintent.bundle.work import TABLES, WorkFolder, publish_tables, published_table
from bankintent.config import TrainConfig
from bankintent.corpus.dataset import Dataset
from bankintent.export import mlflow_loader, steps
from bankintent.export import publish as export
from bankintent.measures import metrics
from bankintent.tracking import Tracker
from bankintent.tracking_files import Loading
from bankintent.training import answering, cross_validation, processes
from bankintent.training.cross_fitting import CrossFit, cross_fit
from bankintent.training.cross_validation import CrossValidation
from bankintent.training.fit import Fitted, TrainingRun, fit_run
from bankintent.training.identity import Identity
from bankintent.training.record import TrainingRecord, gather, judge
from bankintent.training.rows import RunRows

SUMMARY_WIDTH = 80
"""Columns of the summary, in a log too: its sentences on the policy are long."""


def make_bundle(
    config: TrainConfig, data: Dataset, rows: RunRows, work: WorkFolder, identity: Identity
) -> TrainingRecord | None:
    """Train, publish and track one run; returns its record.

    Of several processes the main one publishes; the others get None when all have trained.
    """
    settings = config.model_dump(mode="json", exclude={"tracking"})
    tags = {
        tracking.KIND: tracking.TRAINING,
        "split": "val",
        "dataset": data.name,
        "backbone": config.model_name,
        "regime": config.regime,
    }

    tracked = config.tracking
    if not processes.is_main():
        tracked = tracked.model_copy(update={"enabled": False})
    with tracking.run(tracked, config.output_dir.name, tags) as tracker:
        tracker.params(settings)
        run = TrainingRun(config, data, rows, work, tracker)
        cross = None
        if rows.folds is not None:
            run = cross_validation.with_vectors(run)
            cross = cross_validation.cross_validate(run)
            run = cross_validation.final_run(run, cross)

        fitted = fit_run(run)
        extra = cross_fit(run, fitted)
        if not processes.go_on_alone():
            return None
        # The record has the settings that were asked for.
        run = replace(run, config=config)
        with steps.shown(steps.count(config.export) + answering.count_steps(run, cross, extra)):
            record = publish_bundle(run, fitted, identity, cross, extra)
        _track(tracker, record, config.output_dir)
    return record


def publish_bundle(
    run: TrainingRun,
    fitted: Fitted,
    identity: Identity,
    cross: CrossValidation | None,
    extra: CrossFit | None,
) -> TrainingRecord:
    """Put the bundle of a trained model in its place; returns what it records of the run.

    `cross` is the cross-validation that has judged it, where validation rows have not; `extra` are
    more rows for its policy, where those are few.
    Raises ModelError, and publishes nothing, if the saved forms of the model disagree.
    """
    labels = run.data.labels
    staging = files.make_empty(run.work.bundle)

    labels.save(staging / layout.LABELS)
    trained = export.Trained(fitted.model, fitted.backbone.tokenizer, fitted.backbone.name, labels)
    # Without validation rows the saved forms are compared on those that were trained on.
    compared = run.rows.val if cross is None else run.rows.train
    exported = export.export(trained, run.rows.train, compared, run.config, run.work)

    parity = replace(exported.parity, compared_on="val" if cross is None else "train")
    record = gather(run, identity, fitted, judge(run, exported, cross), parity)
    if cross is not None:
        out_of_fold.write(staging, run.data.labels, cross.ids, cross.true, cross.logits)
    answers = answering.write(staging, run, fitted, cross, extra)
    record = replace(record, answering=answers.describe())
    steps.begin("writing the records, sealing")
    # The seal lists every file with its hash, so that nothing is written after it.
    _write_records(staging, record)
    layout.seal(staging, record.manifest())

    # A run that is killed from here on finds by it what it has published, see `run`.
    files.write_text(run.work.sealed, files.sha256(staging / layout.MANIFEST))
    files.publish(staging, files.place(run.config.output_dir))
    publish_tables(run.work, run.config.output_dir)
    return record


def _write_records(staging: Path, record: TrainingRecord) -> None:
    files.write_text(staging / layout.METRICS, files.json_text(record.metrics_file()))
    settings = {key: value for key, value in record.config.items() if value is not None}
    files.write_text(staging / layout.CONFIG, yaml.safe_dump(settings, sort_keys=False))
    card.write(staging, record.card_facts())


def _track(tracker: Tracker, record: TrainingRecord, bundle: Path) -> None:
    """Log the final figures and the bundle to MLflow."""
    training = record.training
    parameters = {
        "parameters.trainable": training.trainable_parameters,
        "parameters.total": training.total_parameters,
    }
    cost = {
        "seconds": training.seconds,
        "sentences_per_second": training.sentences_per_second,
        "peak_memory_bytes": training.peak_memory_bytes,
    }
    val = record.metrics["val"]
    final = {f"final.val_{name}": value for name, value in val.items()}
    packages = {name: record.versions[name] for name in mlflow_loader.PACKAGES}

    tracker.params(parameters)
    tracker.metrics(tracking.headline(val) | final | cost)
    tracker.bundle(bundle, Loading(Path(mlflow_loader.__file__), packages))


def summarise(record: TrainingRecord, bundle: Path) -> None:
    """Print the figures of a published bundle, and the files to look at."""
    training = record.training
    worst = max(record.parity.largest_logit_difference.values())

    console.say(f"Published: {training.published.which}")
    console.say(f"  {training.published.figures}")
    for line in _validation_figures(record):
        console.say(f"  {line}")
    console.say(
        f"Trained in {training.seconds:.0f} s"
        f" at {training.sentences_per_second:,.0f} sentences/s;"
        f" saved forms agree within {worst:.0e}"
    )
    for line in formats.summarise_formats(asdict(record.parity)):
        console.say(f"  {line}")
    console.say("When it answers:")
    for line in record.answering:
        for part in console.wrap_words(f"  {line}", SUMMARY_WIDTH):
            console.say(part)

    console.say(f"The bundle is {console.show_path(bundle)}")
    for name in TABLES:
        table = published_table(bundle, name)
        if table.is_file():
            console.say(f"To read: {console.show_path(table)}")


def _validation_figures(record: TrainingRecord) -> list[str]:
    """Accuracy and macro-F1 of validation, a line each, with the 95 % interval."""
    kind = "validation" if record.validation.cross is None else "out-of-fold"
    lines = []
    for metric in ("accuracy", "macro_f1"):
        value = 100 * record.metrics["val"][metric]
        line = f"{kind} {metrics.SHOWN[metric]} {value:.2f} %"
        # Macro-F1 has no interval where every answer is right.
        interval = record.validation.intervals.get(metric)
        if interval is not None:
            low, high = interval
            line += f" (95 % interval {100 * low:.2f} to {100 * high:.2f})"
        lines.append(line)
    return lines
