"""One audit from its config to its folder."""

import importlib.metadata
from pathlib import Path

from bankintent import console, files, public_names
from bankintent.audit import answers, applying, findings, on_test, report, review
from bankintent.audit.findings import Findings, Reviewed
from bankintent.audit.rows import read_rows
from bankintent.config import AuditConfig
from bankintent.config.training import TrainConfig
from bankintent.corpus import dataset, patches, suspected_test
from bankintent.corpus.dataset import Dataset
from bankintent.distribution import command
from bankintent.errors import DataError, OutputError
from bankintent.files import JsonObject

REPORT_JSON = "report.json"
REPORT = "report.md"
PAIRS = "pairs.md"
MANIFEST = "manifest.json"

LAYOUT = files.ResultFolder(
    "label audit",
    (review.REVIEW, review.ROWS, REPORT_JSON, REPORT, PAIRS, suspected_test.FILE, MANIFEST),
)

LIBRARIES = ("cleanlab", "scikit-learn", "numpy")
"""Libraries whose versions may change what is found."""


def run(settings: AuditConfig, overwrite: bool = False) -> Findings:
    """Audit the labels of train and val and write the audit's folder.

    Raises OutputError where the folder holds decisions of an earlier audit, unless `overwrite`.
    """
    training = answers.train_settings(settings)
    reviewed = _read_reviewed(settings.reviewed)
    data = dataset.load(settings.data_dir)
    LAYOUT.require_replaceable(settings.folder)
    if not overwrite:
        _require_no_decisions(settings.folder)

    rows = read_rows(data)
    # Before anything long: the data may have no test split.
    tested = on_test.read_rows(data) if settings.test else None
    found = findings.find(rows, answers.answer(rows, settings, training), settings, reviewed)

    on_tested = None if tested is None else on_test.find(tested, settings, training)

    with files.replacing(settings.folder, LAYOUT) as staging:
        review.write_rows(staging, found.review)
        review.write_review(staging, found.review, {})
        content = found.to_json()
        files.write_text(staging / REPORT_JSON, files.json_text(content))
        files.write_text(staging / REPORT, report.markdown(found, data.name))
        files.write_text(staging / PAIRS, report.pairs_markdown(found))
        if on_tested is not None:
            suspected_test.write(staging / suspected_test.FILE, on_tested)
        manifest = _describe(staging, data, settings, training)
        files.write_text(staging / MANIFEST, files.json_text(manifest))

    report.show(found, data.name, settings.folder)
    if on_tested is not None:
        console.say(
            f"{len(on_tested.suspected):,} of {on_tested.rows:,} test rows are suspected; they stay"
            f" as they are ({suspected_test.FILE}, for eval --without)."
        )
    return found


def _read_reviewed(paths: list[Path]) -> Reviewed:
    """The rows that the patches say a person has kept."""
    reviewed: Reviewed = set()
    for path in paths:
        for kept in patches.read(path).kept:
            reviewed.add((kept.text_sha256, kept.given))
    return reviewed


def _require_no_decisions(folder: Path) -> None:
    if not (folder / review.REVIEW).is_file():
        return

    try:
        rows = review.read_rows(folder)
        # The intents of that audit: those of the data may have changed since.
        names = applying.read_manifest(folder).labels
        decided = len(review.read_review(folder, rows, names))
        held = f"{decided} decisions" if decided else ""
    except DataError:
        held = "a table that cannot be read"
    if held:
        raise OutputError(
            f"{folder} holds {held} of an earlier audit",
            f"Make a patch of them ({command('audit apply')} {folder}), name another"
            " output_dir, or replace them with --overwrite",
        )


def _describe(
    folder: Path, data: Dataset, settings: AuditConfig, training: TrainConfig | None
) -> JsonObject:
    """What was audited, how, and what was written."""
    entries = {}
    for name in files.list_files(folder):
        # People fill in the table.
        if name != review.REVIEW:
            path = folder / name
            entries[name] = {"sha256": files.sha256(path), "size": path.stat().st_size}

    return {
        "kind": "bankintent label audit",
        "name": settings.name,
        "data": str(settings.data_dir),
        "data_hash": data.hash,
        "labels_hash": data.labels.hash,
        "labels": list(data.labels.names),
        "settings": describe_settings(settings, training),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "files": entries,
    }


def describe_settings(settings: AuditConfig, training: TrainConfig | None) -> JsonObject:
    """The settings that change what is found, without places of this machine."""
    places = {"data_dir", "output_dir", "cache_dir", "reviewed"}
    content = settings.model_dump(mode="json", exclude=places)
    content["model_name"] = public_names.path(settings.model_name)
    if training is not None:
        for key in ("model_name", "revision", "pooling", "prefix", "max_length", "train_config"):
            content.pop(key)
        recipe = training.model_dump(mode="json", exclude={"data_dir", "output_dir", "cache_dir"})
        recipe["model_name"] = public_names.path(training.model_name)
        content["train_config"] = recipe
    return content


def say_next(folder: Path) -> None:
    """Print what to do with an audit's folder."""
    shown = console.show_path(folder)
    console.say(f"Decide: {command('audit review')} {shown}")
    console.say(f"Then: {command('audit apply')} {shown}")
