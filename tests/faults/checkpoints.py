"""Damaged checkpoints, caches and folds, and runs killed anywhere: a resume gives the same weights.

What must hold of every situation: the resumed run ends without an error, with the weights, the
published epoch and the history of the run that nothing has interrupted, bit by bit.
"""

import contextlib
import io
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from conftest import train_config, write_csv, write_yaml
from tiny_models import rows, tiny_encoder

from faults.tally import Tally

RECIPES = (("head-only", "last"), ("lora", "best"), ("full-ft", "best"))
"""A regime and which epoch it keeps."""

EPOCHS = 4
STOPPED_AFTER = 3
MARK = "complete.json"
SCORES = (0.5, 0.6, 0.4, 0.4, 0.9)
"""An invented macro-F1 for each epoch of a run; `early_stopping: 2` ends it after the fourth."""

DAMAGED_FILES = 35
"""Most damages to files in each recipe."""

Damage = Callable[[Path, random.Random], None]
"""Damages a file, or a checkpoint folder."""

Situation = tuple[str, Callable[[], str | None]]
"""A name, and what tries it: it gives what came out where it did not hold."""


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: its weights as bytes, the published epoch, and the epochs of its history."""

    weights: dict[str, bytes]
    published: Any
    history: list[dict[str, float]]

    def difference(self, other: "Outcome") -> str | None:
        """What is not as in `other`; None where all is."""
        if self.weights != other.weights:
            return "other weights"
        if self.published != other.published:
            return f"published {self.published}, not {other.published}"
        if self.history != other.history:
            epochs = [entry["epoch"] for entry in self.history]
            return f"another history, of the epochs {epochs}"
        return None


class Workshop:
    """A small dataset and a tiny encoder, and runs of them in folders of their own."""

    def __init__(self, folder: Path) -> None:
        import etl
        from bankintent.corpus import division

        self.folder = folder
        self.data = folder / "data"
        self.encoder = tiny_encoder("bert", folder / "encoder")
        source = write_csv(folder / "small.csv", rows(12))
        config = write_yaml(
            folder / "data.yaml", dataset_name=str(source), output_dir=str(self.data)
        )
        with mock.patch.object(division, "CROSS_BELOW", 0), silent():
            etl.main(config)

    def run_of(self, name: str, regime: str, **more: Any) -> Any:
        """The TrainingRun of a tiny recipe, with `name` as its work folder."""
        from bankintent.bundle.work import WorkFolder
        from bankintent.config import TrainConfig
        from bankintent.configfile import load
        from bankintent.corpus import dataset
        from bankintent.tracking import Tracker
        from bankintent.training.fit import TrainingRun
        from bankintent.training.rows import read_rows

        settings = {"epochs": EPOCHS, "lr": 3e-3, "cache_dir": str(self.folder / "cache"), **more}
        path = self.folder / "train.yaml"
        train_config(path, self.encoder, self.data, self.folder / name, **settings)
        config = load(TrainConfig, path, (), regime=regime)
        data = dataset.load(config.data_dir)
        work = WorkFolder(self.folder / name)
        return TrainingRun(config, data, read_rows(config, data), work, Tracker(config.tracking))

    def fit(self, name: str, regime: str, **more: Any) -> Outcome:
        """Train in the work folder `name`, or go on with what is there."""
        from bankintent.training.fit import fit_run

        with silent():
            fitted = fit_run(self.run_of(name, regime, **more))

        weights = {}
        for key, tensor in fitted.model.state_dict().items():
            weights[key] = tensor.detach().cpu().contiguous().numpy().tobytes()
        history = []
        for entry in fitted.fit.history:
            history.append({key: value for key, value in entry.items() if key != "seconds"})
        return Outcome(weights, fitted.fit.published, history)

    def interrupt(self, name: str, regime: str, event: str, epoch: int, **more: Any) -> None:
        """Begin to train, and end at the callback `event` of an epoch as a kill would."""
        from transformers import TrainerCallback

        from bankintent.training import trainer

        class Killed(TrainerCallback):
            pass

        def die(_: Any, args: Any, state: Any, control: Any, **options: Any) -> None:
            if round(state.epoch or 0) >= epoch:
                raise KeyboardInterrupt

        setattr(Killed, event.removeprefix("late_"), die)
        callbacks = trainer._callbacks
        is_late = event.startswith("late_")

        def with_kill(*words: Any) -> list[Any]:
            rest = callbacks(*words)
            return [*rest, Killed()] if is_late else [Killed(), *rest]

        with mock.patch.object(trainer, "_callbacks", with_kill):
            try:
                self.fit(name, regime, **more)
            except KeyboardInterrupt:
                return
        raise AssertionError("the run was not interrupted")


@contextlib.contextmanager
def silent() -> Iterator[io.StringIO]:
    """Keep what a run prints from the screen; yields it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        yield out


def empty(path: Path, _: random.Random) -> None:
    """Leave no byte."""
    path.write_bytes(b"")


def truncate(path: Path, chance: random.Random) -> None:
    """Leave a part."""
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(1, len(content))])


def flip(path: Path, chance: random.Random) -> None:
    """Turn one bit over."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def flip_late(path: Path, chance: random.Random) -> None:
    """Turn a bit over near the end, where the numbers are."""
    content = bytearray(path.read_bytes())
    content[-1 - chance.randrange(min(len(content), 64))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def remove(path: Path, _: random.Random) -> None:
    """Take the file away."""
    path.unlink()


def zero(path: Path, _: random.Random) -> None:
    """As many zeros, as a file system may leave after a power cut."""
    path.write_bytes(bytes(path.stat().st_size))


def swap(path: Path, _: random.Random) -> None:
    """Put the file of the checkpoint before it in its place."""
    before = checkpoints(path.parents[1])[-2]
    shutil.copyfile(before / path.name, path)


def link_before(path: Path, _: random.Random) -> None:
    """Make it a link to the file of the checkpoint before."""
    before = checkpoints(path.parents[1])[-2]
    path.unlink()
    path.symlink_to(before / path.name)


def dangle(path: Path, _: random.Random) -> None:
    """Make it a link to nothing."""
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


def become_folder(path: Path, _: random.Random) -> None:
    """Make it a folder."""
    path.unlink()
    path.mkdir()


FILE_DAMAGES: tuple[Damage, ...] = (
    flip,
    empty,
    truncate,
    remove,
    swap,
    flip_late,
    link_before,
    zero,
    dangle,
    become_folder,
)


def without_mark(folder: Path, _: random.Random) -> None:
    """As a kill during a save leaves it."""
    (folder / MARK).unlink()


def older_mark(folder: Path, _: random.Random) -> None:
    """A mark without hashes."""
    step = folder.name.rpartition("-")[2]
    (folder / MARK).write_text(f'{{"step": {step}}}\n')


def broken_mark(folder: Path, _: random.Random) -> None:
    """A mark that is no JSON object."""
    (folder / MARK).write_text("[1, 2\n")


def odd_mark(folder: Path, _: random.Random) -> None:
    """A mark with values of other types."""
    step = folder.name.rpartition("-")[2]
    (folder / MARK).write_text(f'{{"step": {step}, "files": {{"a": 3}}}}\n')


def nothing_left(folder: Path, _: random.Random) -> None:
    """No file."""
    for path in folder.iterdir():
        path.unlink()


def renamed(folder: Path, _: random.Random) -> None:
    """The checkpoint before it under its name."""
    before = checkpoints(folder.parent)[-2]
    shutil.rmtree(folder)
    before.rename(folder)


def foreign_weights(folder: Path, _: random.Random) -> None:
    """Weights beside it that the Trainer would prefer."""
    (folder / "pytorch_model.bin").write_bytes(b"weights")


def foreign_folder(folder: Path, _: random.Random) -> None:
    """A folder that the Trainer takes for another adapter."""
    other = folder / "other"
    other.mkdir()
    for path in folder.glob("adapter*"):
        shutil.copyfile(path, other / path.name)
    (other / "adapter_model.bin").write_bytes(b"weights")


def linked_folder(folder: Path, _: random.Random) -> None:
    """A link to the checkpoint before it."""
    before = checkpoints(folder.parent)[-2]
    shutil.rmtree(folder)
    folder.symlink_to(before)


def best_flipped(folder: Path, chance: random.Random) -> None:
    """The newest is whole; every other, the best among them, is not."""
    for other in folder.parent.glob("checkpoint-*"):
        if other != folder:
            for weights in other.glob("*.safetensors"):
                flip_late(weights, chance)


def best_gone(folder: Path, _: random.Random) -> None:
    """The newest is whole; every other is gone."""
    for other in folder.parent.glob("checkpoint-*"):
        if other != folder:
            shutil.rmtree(other)


def all_flipped(folder: Path, chance: random.Random) -> None:
    """None is whole."""
    for other in folder.parent.glob("checkpoint-*"):
        for weights in other.glob("*.safetensors"):
            flip(weights, chance)


FOLDER_DAMAGES: tuple[Damage, ...] = (
    older_mark,
    without_mark,
    best_flipped,
    all_flipped,
    broken_mark,
    odd_mark,
    nothing_left,
    renamed,
    foreign_weights,
    foreign_folder,
    linked_folder,
    best_gone,
)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, by their steps."""
    found = folder.glob("checkpoint-*")
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def run(count: int) -> Tally:
    """Try at most `count` damages, kills and flips."""
    tally = Tally("checkpoints")
    with tempfile.TemporaryDirectory() as name, in_folder(Path(name)):
        workshop = Workshop(Path(name))
        for situation, attempt in itertools.islice(situations(workshop), count):
            tally.add(situation, attempt())
    return tally


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def situations(workshop: Workshop) -> Iterator[Situation]:
    """All, those of each kind in turn; a kind is made ready when its first one is asked for."""
    kinds = [
        damages(workshop, *RECIPES[0]),
        cache_flips(workshop),
        fold_flips(workshop),
        *(damages(workshop, *recipe) for recipe in RECIPES[1:]),
        kills(workshop),
    ]
    while kinds:
        for kind in list(kinds):
            situation = next(kind, None)
            if situation is None:
                kinds.remove(kind)
            else:
                yield situation


def damages(workshop: Workshop, regime: str, keep: str) -> Iterator[Situation]:
    """Each damage to each file of the newest checkpoint, and those to the folder."""
    origin = f"stopped-{regime}"
    with invented(SCORES):
        straight = workshop.fit(f"straight-{regime}", regime, keep=keep)
        workshop.interrupt(origin, regime, "late_on_save", STOPPED_AFTER, keep=keep)
    newest = checkpoints(workshop.folder / origin / "checkpoints")[-1]
    names = sorted(path.name for path in newest.iterdir())

    def attempt(name: str | None, damage: Damage, seed: int) -> str | None:
        work = workshop.folder / "damaged"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(workshop.folder / origin, work)
        folder = work / "checkpoints" / newest.name
        damage(folder if name is None else folder / name, random.Random(seed))
        with invented(SCORES):
            return compare(workshop, work.name, straight, regime, keep=keep)

    for seed, (name, damage) in enumerate(choices(names)):
        said = f"{regime}, {damage.__name__} {name or 'checkpoint'}"
        yield said, lambda name=name, damage=damage, seed=seed: attempt(name, damage, seed)


def choices(names: list[str]) -> list[tuple[str | None, Damage]]:
    """Damages to these files and, where there is no name, to their folder, in turns."""
    turns = list(itertools.product(range(len(FILE_DAMAGES)), range(len(names))))
    # Along the diagonals: a few of them touch different files with different damages.
    turns.sort(key=lambda turn: (turn[0] + turn[1]) % len(FILE_DAMAGES))
    of_files = [(names[index], FILE_DAMAGES[number]) for number, index in turns]
    of_folder = [(None, damage) for damage in FOLDER_DAMAGES]

    several: list[tuple[str | None, Damage]] = []
    for pair in itertools.zip_longest(of_files[:DAMAGED_FILES], of_folder):
        several += [choice for choice in pair if choice is not None]
    return several


def compare(
    workshop: Workshop, name: str, straight: Outcome, regime: str, **more: Any
) -> str | None:
    """Go on with a work folder; what is not as in the straight run."""
    try:
        return workshop.fit(name, regime, **more).difference(straight)
    except (Exception, SystemExit) as error:  # noqa: BLE001 (any error is what is looked for)
        return f"{type(error).__name__}: {str(error)[:100]}"


@contextlib.contextmanager
def invented(scores: tuple[float, ...]) -> Iterator[None]:
    """Each epoch has the macro-F1 that is given for it, also where a run is gone on with."""
    from bankintent.training import trainer

    evaluate = trainer.IntentTrainer.evaluate

    def scored(self: Any, *_: Any, **__: Any) -> dict[str, float]:
        score = scores[round(self.state.epoch or 0) - 1]
        validator = self._validator
        measured = validator.measure

        def measure(model: Any) -> dict[str, float]:
            return measured(model) | {"macro_f1": score}

        with mock.patch.object(validator, "measure", measure):
            return evaluate(self)

    with mock.patch.object(trainer.IntentTrainer, "evaluate", scored):
        yield


EVENTS = ("late_on_save", "on_evaluate", "late_on_evaluate", "on_save", "on_train_end")


def kills(workshop: Workshop) -> Iterator[Situation]:
    """A run that ends early, killed at each of its events."""
    for regime, keep in RECIPES[:2]:
        more = {"epochs": 5, "early_stopping": 2, "keep": keep}
        for epoch, event in itertools.product((4, 3, 2, 1), EVENTS):
            if event == "on_train_end" and epoch < 4:
                continue
            said = f"{regime}, keep: {keep}, killed at {event} of epoch {epoch}"
            yield said, lambda r=regime, e=event, n=epoch, m=more: killed(workshop, r, e, n, m)


def killed(
    workshop: Workshop, regime: str, event: str, epoch: int, more: dict[str, Any]
) -> str | None:
    """What a run gives that was killed, and straight went on."""
    work = workshop.folder / "killed"
    for folder in (work, workshop.folder / "straight"):
        shutil.rmtree(folder, ignore_errors=True)
    with invented(SCORES):
        straight = workshop.fit("straight", regime, **more)
        workshop.interrupt(work.name, regime, event, epoch, **more)
        return compare(workshop, work.name, straight, regime, **more)


def cache_flips(workshop: Workshop) -> Iterator[Situation]:
    """Damages to the file of cached features, each before a new run."""
    more = {"cache_dir": str(workshop.folder / "kept"), "epochs": 1}
    straight = workshop.fit("kept-work", "head-only", **more)
    (path,) = (workshop.folder / "kept" / "features").iterdir()
    content = path.read_bytes()

    def attempt(damage: Damage, seed: int) -> str | None:
        shutil.rmtree(workshop.folder / "kept-work", ignore_errors=True)
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        damage(path, random.Random(seed))
        return compare(workshop, "kept-work", straight, "head-only", **more)

    several = (flip_late, flip, truncate, empty, zero, become_folder, dangle)
    for seed, damage in enumerate(several * 2):
        yield (
            f"features, {damage.__name__}, {seed}",
            lambda damage=damage, seed=seed: attempt(damage, seed),
        )


def fold_flips(workshop: Workshop) -> Iterator[Situation]:
    """Damages to the answers of a finished fold."""
    from dataclasses import replace

    import numpy as np

    from bankintent.corpus.folds import Folds
    from bankintent.training import cross_validation

    run = workshop.run_of("folds", "head-only", epochs=1)
    assignment = np.arange(len(run.rows.train)).reshape(1, -1) % 2
    run = replace(run, rows=replace(run.rows, folds=Folds(assignment)))
    with silent():
        run = cross_validation.with_vectors(run)
        straight = cross_validation.cross_validate(run).logits.tobytes()
    paths = sorted(run.work.folds.glob("*.safetensors"))
    contents = [path.read_bytes() for path in paths]

    def attempt(damage: Damage, seed: int) -> str | None:
        for path, content in zip(paths, contents, strict=True):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
            path.write_bytes(content)
        damage(paths[-1], random.Random(seed))
        try:
            with silent():
                again = cross_validation.cross_validate(run).logits.tobytes()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (any error is what is looked for)
            return f"{type(error).__name__}: {str(error)[:100]}"
        return None if again == straight else "other answers out of fold"

    def other_fold(path: Path, _: random.Random) -> None:
        path.write_bytes(contents[0])

    for seed, damage in enumerate((flip_late, other_fold, flip, truncate, empty, zero, remove)):
        yield (
            f"fold, {damage.__name__}",
            lambda damage=damage, seed=seed: attempt(damage, seed),
        )
