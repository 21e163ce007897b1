"""One training run from a config to a bundle: started anew, continued, or found finished."""

import json
import shutil
from pathlib import Path

from bankintent import console, files
from bankintent.bundle import layout
from bankintent.bundle.attribution import HUB_NAMES
from bankintent.bundle.work import WorkFolder
from bankintent.config import TrainConfig
from bankintent.corpus.dataset import Dataset
from bankintent.corpus.language import Languages, encoder_note
from bankintent.errors import OutputError
from bankintent.progress import waiting
from bankintent.training import identity as identities
from bankintent.training.identity import Identity
from bankintent.training.rows import RunRows, read_rows, require_words

ENGLISH_ENCODERS = {*HUB_NAMES, *HUB_NAMES.values()}
"""The embedded encoder, by each of its names."""


def train(config: TrainConfig, data: Dataset, overwrite: bool = False) -> Path:
    """Train and publish; returns the bundle's path.

    A finished run of the same identity is left as it is. Raises OutputError if another run is in
    the way and `overwrite` is off, and a UserError of its kind for unusable settings, data, models.
    """
    identity = identities.identity(config, data)
    if is_finished(config, identity, overwrite):
        bundle = console.show_path(config.output_dir)
        console.say(f"{bundle} is already trained with these settings; nothing to do.")
        return config.output_dir

    _say_language_note(config, data)
    if config.label_names:
        require_words(data.labels)
    rows = read_rows(config, data)
    _say_what_begins(config, data, rows)

    # Not at the top: torch takes seconds, which the answer "nothing to do" should not.
    with waiting("Loading PyTorch and transformers"):
        from bankintent.training import publication
        from bankintent.training.methods import distillation

    if config.distill is not None:
        # Refuse an unfit teacher before anything is written.
        distillation.open_teacher(config, data.labels)

    with files.exclusive(config.output_dir) as folder:
        work = WorkFolder(folder)
        open_work(work, identity, overwrite)
        record = publication.make_bundle(config, data, rows, work, identity)
        shutil.rmtree(work.path)

    publication.summarise(record, config.output_dir)
    return config.output_dir


def _say_language_note(config: TrainConfig, data: Dataset) -> None:
    """Print a note where the encoder does not read the language of the sentences."""
    if config.model_name not in ENGLISH_ENCODERS:
        return
    note = encoder_note(Languages.of_manifest(data.manifest))
    if note is not None:
        console.say(f"Note: {note}.")


def _say_what_begins(config: TrainConfig, data: Dataset, rows: RunRows) -> None:
    """Print what is to be trained on what, before anything that takes time."""
    console.say(f"Training {config.regime} on {config.model_name}")
    console.say(
        f"{len(rows.train):,} sentences of {len(data.labels)} intents"
        f" from {console.show_path(data.path)}"
    )


def is_finished(config: TrainConfig, identity: Identity, overwrite: bool) -> bool:
    """True if `output_dir` holds this very run; OutputError if it holds something else."""
    bundle = config.output_dir
    files.recover(bundle)

    if not bundle.exists() or overwrite:
        return False
    if not (bundle / layout.MANIFEST).is_file():
        raise OutputError(f"{bundle} exists and is no bundle", "Name another output_dir")

    recorded = layout.read_manifest(bundle).identity
    if identities.same(recorded, identity):
        return True

    difference = identities.first_difference(recorded, identity)
    raise OutputError(
        f"{bundle} holds another run ({difference})",
        f"Use --set output_dir={bundle}-2, or --overwrite to replace it",
    )


def open_work(work: WorkFolder, identity: Identity, overwrite: bool) -> None:
    """Make the work folder, or take up that of an interrupted run of the same identity."""
    folder = work.path
    if folder.exists() and not overwrite and work.run.is_file():
        _require_same_run(work, identity)
        return

    if folder.exists():
        # Without its record the folder may be anybody's.
        if any(folder.iterdir()) and not work.run.is_file():
            raise OutputError(
                f"{folder} exists and is no interrupted run",
                "Remove it, or name another output_dir",
            )
        shutil.rmtree(folder)

    folder.mkdir(parents=True)
    # First of all: only a folder with this record is taken up, or removed, later.
    files.write_text(work.run, files.json_text(identity))


def _require_same_run(work: WorkFolder, identity: Identity) -> None:
    recorded = json.loads(work.run.read_text(encoding="utf-8"))
    if identities.same(recorded, identity):
        return

    difference = identities.first_difference(recorded, identity)
    raise OutputError(
        f"{work.path} holds an interrupted run with other settings ({difference})",
        "Run it to its end, name another output_dir, or use --overwrite to discard it",
    )
