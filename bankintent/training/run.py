"""One training run from a config to a bundle: started anew, continued, or found finished."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from bankintent import console, files, tracking_store
from bankintent.bundle import layout
from bankintent.bundle.attribution import HUB_NAMES
from bankintent.bundle.work import WorkFolder, publish_tables
from bankintent.config import TrainConfig
from bankintent.corpus.dataset import Dataset
from bankintent.corpus.language import Languages, encoder_note
from bankintent.errors import OutputError, UserError
from bankintent.progress import waiting
from bankintent.training import identity as identities
from bankintent.training import processes
from bankintent.training.identity import Identity
from bankintent.training.rows import RunRows, read_rows, require_words

ENGLISH_ENCODERS = {*HUB_NAMES, *HUB_NAMES.values()}
"""The embedded encoder, by each of its names."""


def train(config: TrainConfig, data: Dataset, overwrite: bool = False) -> Path:
    """Train and publish; returns the bundle's path.

    A finished run of the same identity is left as it is. Raises OutputError if another run is in
    the way and `overwrite` is off, and a UserError of its kind for unusable settings, data, models.
    """
    files.require_apart(config.output_dir)
    processes.require_same(config.model_dump(mode="json"), "settings")
    processes.require_same([data.hash, data.labels.hash], "data")
    identity = processes.from_main(lambda: identities.identity(config, data))
    if processes.from_main(lambda: _is_done(config, identity, overwrite)):
        return _say_finished(config)

    if processes.is_main():
        tracking_store.require_usable(config.tracking)
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

    with _held(config) as work:
        # Again: another run may have published since.
        if processes.from_main(lambda: is_finished(config, identity, overwrite)):
            return _say_finished(config)
        processes.from_main(lambda: open_work(work, identity, overwrite))
        processes.require_shared(work.run, config.output_dir)
        try:
            record = publication.make_bundle(config, data, rows, work, identity)
        except UserError:
            # Refused before anything was computed: no other run shall be told of this one.
            if processes.is_main() and not work.has_progress:
                files.discard(work.path)
            raise
        if record is None:
            # The main process publishes what all have trained.
            return config.output_dir
        files.discard(work.path)

    publication.summarise(record, config.output_dir)
    return config.output_dir


def _is_done(config: TrainConfig, identity: Identity, overwrite: bool) -> bool:
    """Whether the bundle is there, after what a killed process left of it was put right."""
    files.settle(config.output_dir)
    # With `overwrite` too: a run that was killed after its publication does not begin anew.
    was_cut_off = finish_publication(config.output_dir, identity)
    return was_cut_off or is_finished(config, identity, overwrite)


@contextlib.contextmanager
def _held(config: TrainConfig) -> Iterator[WorkFolder]:
    """The work folder, which the main process holds for this run alone."""
    if not processes.is_main():
        yield WorkFolder(files.work_dir(config.output_dir))
        return
    with files.exclusive(config.output_dir) as folder:
        yield WorkFolder(folder)


def _say_finished(config: TrainConfig) -> Path:
    bundle = console.show_path(config.output_dir)
    console.say(f"{bundle} is already trained with these settings; nothing to do.")
    return config.output_dir


def _say_language_note(config: TrainConfig, data: Dataset) -> None:
    """Print a note where the encoder does not read the language of the sentences."""
    if config.model_name not in ENGLISH_ENCODERS:
        return
    note = encoder_note(Languages(data.manifest.languages))
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
    if not files.place(bundle).exists() or _is_empty(bundle):
        return False
    # Also with `overwrite`, which is for bundles: the folder would be lost.
    if not (bundle / layout.MANIFEST).is_file():
        raise OutputError(f"{bundle} exists and is no bundle", "Name another output_dir")
    if overwrite:
        return False

    recorded = layout.read_manifest(bundle).identity
    if identities.same(recorded, identity):
        return True

    difference = identities.first_difference(recorded, identity)
    raise OutputError(
        f"{bundle} holds another run ({difference})",
        f"Use --set output_dir={bundle}-2, or --overwrite to replace it",
    )


def _is_empty(bundle: Path) -> bool:
    return bundle.is_dir() and not any(bundle.iterdir())


def finish_publication(bundle: Path, identity: Identity) -> bool:
    """Finish what a run has left that was killed after its bundle was in its place.

    Returns whether it was a run of this identity.
    """
    work = WorkFolder(files.work_dir(bundle))
    if not _has_published(work, bundle):
        return False

    with files.exclusive(bundle):
        # Again: another process may have finished it since.
        if _has_published(work, bundle):
            publish_tables(work, bundle)
            files.discard(work.path)
    return identities.same(layout.read_manifest(bundle).identity, identity)


def _has_published(work: WorkFolder, bundle: Path) -> bool:
    """Whether the bundle was made in this work folder."""
    manifest = bundle / layout.MANIFEST
    if not (work.run.is_file() and work.sealed.is_file() and manifest.is_file()):
        return False
    return work.sealed.read_text(encoding="utf-8") == files.sha256(manifest)


def open_work(work: WorkFolder, identity: Identity, overwrite: bool) -> None:
    """Make the work folder, or take up that of an interrupted run of the same identity.

    That of another run is discarded where `overwrite` says so.
    """
    folder = work.path
    if work.run.is_file():
        recorded = json.loads(work.run.read_text(encoding="utf-8"))
        # Also with `overwrite`: the weights are those of a run that began anew.
        if identities.same(recorded, identity):
            return
        if not overwrite:
            _refuse_other_run(work, recorded, identity)

    # Without its record the folder may be anybody's.
    elif folder.exists() and not (folder.is_dir() and files.is_bare(folder)):
        raise OutputError(
            f"{folder} exists and is no interrupted run",
            "Remove it, or name another output_dir",
        )

    files.make_empty(folder)
    # First of all: only a folder with this record is taken up, or removed, later.
    files.write_text(work.run, files.json_text(identity))


def _refuse_other_run(work: WorkFolder, recorded: Identity, identity: Identity) -> NoReturn:
    difference = identities.first_difference(recorded, identity)
    raise OutputError(
        f"{work.path} holds an interrupted run with other settings ({difference})",
        "Run it to its end, name another output_dir, or use --overwrite to discard it",
    )
