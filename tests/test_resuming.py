"""A resumed run is the run that nothing interrupted, whatever has become of its checkpoints and caches."""

import copy
import errno
import itertools
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, train_config
from faults.checkpoints import SCORES, Workshop, invented, silent, situations
from faults.checkpoints import checkpoints as checkpoints_of
from faults.checkpoints import run as try_faults

import multiregime
from bankintent import files
from bankintent.training import checkpoints, kept


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The data and the encoder of all tests."""
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def stopped(shared: Workshop) -> Path:
    """The checkpoints of a run of four epochs that was killed after the third."""
    return interrupted(shared)


@pytest.fixture
def workshop(shared: Workshop, tmp_path: Path) -> Workshop:
    """With work folders of its own."""
    own = copy.copy(shared)
    own.folder = tmp_path
    return own


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Path:
    """A copy of `stopped`."""
    return shutil.copytree(stopped, tmp_path / "work" / "checkpoints")


def interrupted(workshop: Workshop, epoch: int = 3, **more: Any) -> Path:
    """The checkpoints of a run that was killed after an epoch's checkpoint was whole."""
    workshop.interrupt("work", "head-only", "late_on_save", epoch, **more)
    return workshop.folder / "work" / "checkpoints"


def newest_of(folder: Path) -> Path:
    return checkpoints_of(folder)[-1]


def flip_last_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def said_of_resuming(folder: Path) -> list[str]:
    """What is printed where a run looks for its checkpoint."""
    with silent() as out:
        checkpoints.take_newest_whole(folder, needs_best=True)
    return out.getvalue().splitlines()


def test_a_few_damages_change_no_weights(workshop: Workshop) -> None:
    for situation, attempt in itertools.islice(situations(workshop), 3):
        assert attempt() is None, situation


@pytest.mark.proof
def test_some_more_damages_and_kills_change_no_weights() -> None:
    tally = try_faults(24)
    assert tally.tried == 24
    assert tally.gave_way == []


def test_the_mark_lists_every_file_of_a_checkpoint(workshop: Workshop) -> None:
    workshop.interrupt("work", "lora", "late_on_save", 1)
    newest = newest_of(workshop.folder / "work" / "checkpoints")
    content = json.loads((newest / checkpoints.COMPLETE).read_text())

    assert content["step"] == checkpoints.step_of(newest)
    assert {*content["files"], checkpoints.COMPLETE} == set(files.list_files(newest))
    assert {
        "adapter_model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "trainer_state.json",
        "epochs.json",
    } <= content["files"].keys()
    for name, entry in content["files"].items():
        assert entry["sha256"] == files.sha256(newest / name)
        assert entry["size"] == (newest / name).stat().st_size


def test_the_mark_is_written_when_all_else_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "checkpoints" / "checkpoint-7"
    checkpoint.mkdir(parents=True)
    for name in ("a", "b"):
        (checkpoint / name).write_text(name)

    written_out: list[int] = []
    fsync = os.fsync
    write_text = files.write_text

    def watch(descriptor: int) -> None:
        written_out.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def write(path: Path, text: str) -> None:
        before = [checkpoint / "a", checkpoint / "b", checkpoint, checkpoint.parent]
        assert {path.stat().st_ino for path in before} <= set(written_out)
        write_text(path, text)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(files, "write_text", write)
    checkpoints.mark(checkpoint)
    assert checkpoints.fault(checkpoint) is None
    # Also the name of the mark.
    assert written_out[-1] == checkpoint.stat().st_ino


@pytest.mark.parametrize("keep", ["best", pytest.param("last", marks=pytest.mark.proof)])
def test_there_is_a_whole_checkpoint_while_another_is_written(
    keep: str, workshop: Workshop
) -> None:
    for epoch in (2, 3, 4):
        # Its files are there, and its mark is not.
        with invented(SCORES):
            workshop.interrupt("work", "head-only", "on_save", epoch, keep=keep)
        *older, newest = checkpoints_of(workshop.folder / "work" / "checkpoints")
        assert checkpoints.fault(newest) == "it was not written to its end"
        assert older
        assert [checkpoints.fault(path) for path in older] == [None] * len(older)


def test_the_one_before_the_newest_keeps_its_best_one(workshop: Workshop) -> None:
    # The fourth is the best from then on; the third still needs the first.
    with invented((0.9, 0.4, 0.5, 0.95)):
        folder = interrupted(workshop, 4)
        straight = workshop.fit("straight", "head-only")
        assert [checkpoints.step_of(path) for path in checkpoints_of(folder)] == [4, 12, 16]

        flip_last_bit(newest_of(folder) / "model.safetensors")
        assert workshop.fit("work", "head-only").difference(straight) is None


def older_layout(newest: Path) -> None:
    (newest / checkpoints.COMPLETE).write_text('{"step": 12}\n')


def damage_mark(newest: Path) -> None:
    (newest / checkpoints.COMPLETE).write_text("[" * 100_000)


def damage_scheduler(newest: Path) -> None:
    flip_last_bit(newest / "scheduler.pt")


def link_weights(newest: Path) -> None:
    moved = newest.parents[1] / "moved"
    (newest / "model.safetensors").rename(moved)
    (newest / "model.safetensors").symlink_to(moved)


def add_weights(newest: Path) -> None:
    (newest / "pytorch_model.bin").write_bytes(b"")


def cut_state(newest: Path) -> None:
    (newest / "trainer_state.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (older_layout, "its complete.json has no hashes, as earlier versions wrote it"),
        (damage_mark, "its complete.json is damaged"),
        (damage_scheduler, "scheduler.pt is damaged"),
        (link_weights, "model.safetensors is a link"),
        (add_weights, "pytorch_model.bin was not written with it"),
        (cut_state, "trainer_state.json has not the size that was recorded"),
    ],
)
def test_what_is_passed_over_is_said_with_the_reason(
    damage: Any, reason: str, folder: Path
) -> None:
    newest = newest_of(folder)
    damage(newest)

    passed, gone_on = said_of_resuming(folder)
    assert passed == f"work/checkpoints/checkpoint-12 is passed over: {reason}."
    assert gone_on == "Going on from work/checkpoints/checkpoint-8."
    assert not newest.exists()


def test_with_no_whole_checkpoint_training_starts_anew_and_says_so(folder: Path) -> None:
    for path in checkpoints_of(folder):
        flip_last_bit(path / "model.safetensors")
    said = said_of_resuming(folder)
    assert len(said) == len({*said}) > 2
    assert said[-1] == "There is no whole checkpoint to go on from: training starts anew."
    assert checkpoints_of(folder) == []
    assert said_of_resuming(folder) == []


class Payload:
    """Runs code where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_tampered_file_runs_no_code(folder: Path, workshop: Workshop) -> None:
    newest = newest_of(folder)
    whole = shutil.copytree(newest, workshop.folder / "whole")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        shutil.copytree(whole, newest, dirs_exist_ok=True)
        evil = workshop.folder / f"made-by-{name}"
        (newest / name).write_bytes(pickle.dumps(Payload(evil), protocol=2))
        assert checkpoints.fault(newest) is not None

        # A mark that fits, as somebody with access to the folder could make it.
        checkpoints.mark(newest)
        with pytest.raises(pickle.UnpicklingError):
            workshop.fit("work", "head-only")
        assert not evil.exists()


def test_a_best_checkpoint_that_is_damaged_meanwhile_is_not_published(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.errors import TrainingError
    from bankintent.training import trainer

    class Damaging(trainer.MarkComplete):
        def on_save(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            super().on_save(args, state, control, **options)
            if round(state.epoch) == 3:
                flip_last_bit(Path(state.best_model_checkpoint) / "model.safetensors")

    with invented(SCORES[:4]):
        straight = workshop.fit("straight", "head-only")
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "MarkComplete", Damaging)
            with pytest.raises(TrainingError, match=r"model\.safetensors is damaged.*same command"):
                workshop.fit("work", "head-only")
        # As the error says.
        assert workshop.fit("work", "head-only").difference(straight) is None


def test_a_resumed_run_records_all_epochs(
    workshop: Workshop, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.tracking import Tracker

    tracked: list[tuple[int | None, dict[str, float]]] = []

    def watch(_: Tracker, values: dict[str, float], step: int | None = None) -> None:
        tracked.append((step, values))

    more = {"head_init": "probe", "epochs": 3}
    folder = interrupted(workshop, 2, **more)
    record = json.loads((newest_of(folder) / "epochs.json").read_text())
    assert len(record["history"]) == 2
    assert record["seconds"] > 0
    (newest_of(folder) / "epochs.json").write_text(json.dumps(record | {"seconds": 5000.0}))
    checkpoints.mark(newest_of(folder))

    # Through the command: its work folder is that of the interrupted run.
    config = train_config(
        Path("t.yaml"),
        workshop.encoder,
        workshop.data,
        Path("out"),
        lr=3e-3,
        cache_dir="cache",
        **more,
    )
    with monkeypatch.context() as patch:
        patch.setattr("bankintent.training.publication.fit_run", kill)
        assert run(multiregime.main, "--config", config, "--regime", "head-only").code == 130
    shutil.move(folder, Path("out.work") / "checkpoints")

    monkeypatch.setattr(Tracker, "metrics", watch)
    result = run(multiregime.main, "--config", config, "--regime", "head-only")
    assert result.code == 0, result.err
    training = json.loads(Path("out/metrics.json").read_text())["training"]
    assert [entry["epoch"] for entry in training["history"]] == [1, 2, 3]
    assert training["history"][:2] == record["history"]
    assert 5000 < training["seconds"] < 5600

    rows = [line.split()[0] for line in result.out.splitlines() if "%" in line and "/3 " in line]
    assert rows == ["1/3", "2/3", "3/3"]
    assert sum(line.split()[:1] == ["probe"] for line in result.out.splitlines()) == 1
    steps = [step for step, _ in tracked if step is not None]
    assert steps == [0, 1, 2, 3]
    assert tracked[0][1].keys() == {"val_loss", "val_accuracy", "val_macro_f1"}


def kill(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_resumed_run_publishes_its_table_of_negatives_whole(workshop: Workshop) -> None:
    more = {"contrastive": {"steps": 2, "intents": 3, "sentences": 2, "hard": 1}, "epochs": 2}
    workshop.interrupt("work", "full-ft", "late_on_save", 1, **more)
    table = workshop.folder / "work" / "negatives.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:50])
    workshop.fit("work", "full-ft", **more)
    assert table.read_bytes() == whole


@pytest.fixture
def features(workshop: Workshop) -> Iterator[Path]:
    """The file of cached features that a run has left."""
    workshop.fit("first", "head-only", epochs=1)
    (path,) = (workshop.folder / "cache" / "features").iterdir()
    return path


def printed_by_a_run(workshop: Workshop, **more: Any) -> tuple[Any, str]:
    """What a new run of one epoch gives, and the notes that it prints."""
    from bankintent.training.fit import fit_run

    shutil.rmtree(workshop.folder / "again", ignore_errors=True)
    with silent() as out:
        fitted = fit_run(workshop.run_of("again", "head-only", epochs=1, **more))
    notes = [line for line in out.getvalue().splitlines() if line.startswith("note:")]
    return fitted.model.state_dict(), "\n".join(notes)


def same_weights(first: Any, second: Any) -> bool:
    return all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)


def test_features_are_believed_only_as_they_were_written(
    workshop: Workshop, features: Path
) -> None:
    whole = features.read_bytes()
    straight, notes = printed_by_a_run(workshop)
    assert notes == ""

    flip_last_bit(features)
    weights, notes = printed_by_a_run(workshop)
    assert notes.count("note:") == 1
    assert "features are computed anew" in notes
    assert same_weights(weights, straight)
    assert features.read_bytes() == whole

    # Those of other texts under this name.
    other = features.with_name("other.safetensors")
    arrays = kept.read(features)
    assert arrays is not None
    kept.write(other, {name: array + 1 for name, array in arrays.items()})
    other.replace(features)
    weights, notes = printed_by_a_run(workshop)
    assert "features are computed anew" in notes
    assert same_weights(weights, straight)


@pytest.mark.parametrize(
    "code",
    [
        errno.ENOSPC,
        pytest.param(errno.EACCES, marks=pytest.mark.proof),
        pytest.param(errno.EROFS, marks=pytest.mark.proof),
    ],
)
def test_a_cache_that_cannot_be_written_is_gone_without(
    code: int, workshop: Workshop, features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, _ = printed_by_a_run(workshop)
    features.unlink()

    def full(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(kept, "save_file", full)
    weights, notes = printed_by_a_run(workshop)
    assert notes == f"note: the features cannot be kept in cache ({os.strerror(code)})"
    assert same_weights(weights, straight)
    assert not list(features.parent.iterdir())


def test_a_cache_below_a_file_is_gone_without(workshop: Workshop, features: Path) -> None:
    straight, _ = printed_by_a_run(workshop)
    Path("file").write_text("")
    weights, notes = printed_by_a_run(workshop, cache_dir="file/cache")
    assert notes.count("note:") == 1
    assert "the features cannot be kept in file/cache" in notes
    assert same_weights(weights, straight)


def test_kept_arrays_are_read_as_they_were_written_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert kept.read(path) is None
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    kept.write(path, {"table": array})
    arrays = kept.read(path)
    assert arrays is not None
    np.testing.assert_array_equal(arrays["table"], array)

    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 4
        path.write_bytes(changed)
        try:
            read = kept.read(path)
        except kept.Damaged:
            continue
        # Of the header, a space between two words of JSON may be another.
        assert read is not None
        np.testing.assert_array_equal(read["table"], array)


def test_a_pipe_in_the_place_of_a_cache_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    os.mkfifo(path)
    with pytest.raises(kept.Damaged):
        kept.read(path)
