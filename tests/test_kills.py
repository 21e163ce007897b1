"""Commands that are killed at a write and run again, that start together, or that write behind links."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Run, train_config, write_csv, write_yaml
from faults import kills
from score_fixtures import WordModel, settings
from tiny_models import rows

import etl
import eval as evaluate
import multiregime
from bankintent import durable, files
from bankintent.bundle.work import WorkFolder
from bankintent.errors import OutputError
from bankintent.scoring import score as scoring


@pytest.mark.proof
@pytest.mark.timeout(900)
def test_a_killed_command_ends_well_when_it_is_run_again() -> None:
    tally = kills.run(12, lambda scenario: scenario.command in ("etl", "eval", "train", "score"))
    assert not tally.gave_way, "\n".join(tally.lines())
    assert tally.tried >= 8


def test_kills_are_spread_over_all_writes() -> None:
    assert kills.spread([1, 2, 3], 5) == [1, 2, 3]
    assert kills.spread(list(range(1, 101)), 4) == [25, 50, 75, 100]


class Killed(BaseException):
    """The end of a process: no code of the package catches it."""


@contextlib.contextmanager
def dying_at(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> Iterator[None]:
    """The block ends where the function is called; nothing after that call is done."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(target, name, die)
        with pytest.raises(Killed):
            yield


@pytest.fixture
def words(tiny_bert: Path, data_dir: Path, tmp_path: Path) -> tuple[object, ...]:
    config = train_config(tmp_path / "train.yaml", tiny_bert, data_dir, Path("bundle"), epochs=1)
    return ("--config", config, "--regime", "lora")


TABLES = ("--set", "contrastive.steps=2", "--set", "contrastive.hard=1")


def test_a_run_killed_before_its_record_was_renamed_begins_anew(
    words: tuple[object, ...], run: Run
) -> None:
    work = WorkFolder(Path("bundle.work"))
    work.path.mkdir()
    durable.temporary(work.run).write_text("{")
    assert run(multiregime.main, *words).code == 0
    assert not work.path.exists()

    work.path.mkdir()
    (work.path / "thesis.txt").write_text("mine")
    refused = run(multiregime.main, *words, "--overwrite").one_line_error()
    assert "bundle.work exists and is no interrupted run" in refused
    assert (work.path / "thesis.txt").read_text() == "mine"


def test_a_run_killed_after_its_bundle_was_published_gets_its_tables(
    words: tuple[object, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.training import publication

    assert run(multiregime.main, *words, *TABLES).code == 0
    table = Path("bundle.negatives.csv")
    assert table.is_file()

    # The other run has no table: that of the first must not stay beside its bundle.
    with dying_at(monkeypatch, publication, "publish_tables"):
        run(multiregime.main, *words, "--overwrite")
    assert table.is_file()
    manifest = Path("bundle/manifest.json").read_bytes()

    again = run(multiregime.main, *words, "--overwrite")
    assert "nothing to do" in again.out
    assert not table.exists()
    assert not Path("bundle.work").exists()
    assert Path("bundle/manifest.json").read_bytes() == manifest


def test_a_killed_overwriting_run_goes_on_and_one_of_other_settings_is_discarded(
    words: tuple[object, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bankintent.training import publication

    assert run(multiregime.main, *words).code == 0
    other = (*words, "--set", "lr=0.01", "--overwrite")
    with dying_at(monkeypatch, publication, "publish_bundle"):
        run(multiregime.main, *other)
    checkpoints = {path.name for path in Path("bundle.work/checkpoints").iterdir()}
    assert checkpoints

    result = run(multiregime.main, *other)
    assert result.code == 0, result.err
    assert "Going on from" in result.out

    with dying_at(monkeypatch, publication, "publish_bundle"):
        run(multiregime.main, *words, "--overwrite")
    result = run(multiregime.main, *words, "--set", "lr=0.02", "--overwrite")
    assert result.code == 0, result.err
    assert "Going on from" not in result.out
    assert (
        json.loads(Path("bundle/manifest.json").read_text())["identity"]["settings"]["lr"] == 0.02
    )


def test_what_was_published_while_a_run_waited_is_not_replaced(
    words: tuple[object, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(multiregime.main, *words).code == 0
    manifest = Path("bundle/manifest.json").read_bytes()
    exclusive = files.exclusive

    @contextlib.contextmanager
    def after_another(final: Path) -> Iterator[Path]:
        Path("aside").rename("bundle")
        with exclusive(final) as work:
            yield work

    monkeypatch.setattr(files, "exclusive", after_another)
    for more, said in ((), "nothing to do"), (("--set", "lr=0.5"), "holds another run"):
        Path("bundle").rename("aside")
        result = run(multiregime.main, *words, *more)
        assert said in result.out + result.err
        assert Path("bundle/manifest.json").read_bytes() == manifest


def test_a_folder_of_others_that_appears_before_the_lock_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = files.ResultFolder("report", ("report.md",))
    exclusive = files.exclusive

    @contextlib.contextmanager
    def after_another(final: Path) -> Iterator[Path]:
        final.mkdir()
        (final / "thesis.txt").write_text("mine")
        with exclusive(final) as work:
            yield work

    monkeypatch.setattr(files, "exclusive", after_another)
    with pytest.raises(OutputError, match=r"holds thesis.txt"), files.replacing(Path("a"), layout):
        pass
    assert Path("a/thesis.txt").read_text() == "mine"


def test_a_table_killed_after_it_was_written_is_ended_by_the_same_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_csv(Path("in.csv"), rows(4), "text,intent")
    wanted = settings(Path("in.csv"), Path("out.csv"))
    with dying_at(monkeypatch, files, "discard"):
        scoring.score(wanted, load=WordModel)
    assert Path("out.csv").is_file()
    assert Path("out.csv.work").is_dir()

    scoring.score(wanted, load=WordModel)
    assert sorted(os.listdir()) == ["in.csv", "out.csv"]
    with pytest.raises(OutputError, match=r"out.csv exists"):
        scoring.score(wanted, load=WordModel)


@pytest.mark.parametrize("is_there", [True, False])
def test_results_are_written_where_a_link_points(
    is_there: bool, words: tuple[object, ...], bundle: Path, run: Run
) -> None:
    Path("disk").mkdir()
    places = {name: Path(name) for name in ("linked-data", "linked-report", "linked-bundle")}
    for name, link in places.items():
        if is_there:
            Path("disk", name).mkdir()
        link.symlink_to(Path("disk", name))

    config = write_yaml(Path("linked.yaml"), dataset_name="small.csv", output_dir="linked-data")
    tracking = ("--set", "tracking.enabled=false")
    for _ in range(2):
        assert run(etl.main, "--config", config).code == 0
        report = ("--output-dir", "linked-report")
        assert run(evaluate.main, "--checkpoint-path", bundle, *report, *tracking).code == 0
    linked = (*words, *TABLES, "--set", "output_dir=linked-bundle", "--overwrite")
    for _ in range(2):
        result = run(multiregime.main, *linked)
        assert result.code == 0, result.err

    assert all(link.is_symlink() for link in places.values())
    expected = [*places, "linked-bundle.negatives.csv"]
    assert sorted(path.name for path in Path("disk").iterdir()) == sorted(expected)
    assert Path("linked-bundle/manifest.json").is_file()


def test_a_scored_table_is_written_where_a_link_points() -> None:
    write_csv(Path("in.csv"), rows(4), "text,intent")
    Path("disk").mkdir()
    Path("out.csv").symlink_to("disk/table.csv")
    for overwrite in (False, True):
        scoring.score(settings(Path("in.csv"), Path("out.csv")), overwrite, load=WordModel)
    assert Path("out.csv").is_symlink()
    assert os.listdir("disk") == ["table.csv"]


def test_a_loop_of_links_and_the_working_folder_are_refused_in_one_line(
    words: tuple[object, ...], bundle: Path, run: Run
) -> None:
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    places = {"a": "leads to itself", "a/b/c": "is no folder", ".": "names no folder of its own"}
    for place, fault in places.items():
        data = write_yaml(Path("bad.yaml"), dataset_name="small.csv", output_dir=place)
        report = ("--output-dir", place, "--set", "tracking.enabled=false")
        refused = [
            run(etl.main, "--config", data),
            run(multiregime.main, *words, "--set", f"output_dir={place}"),
            run(evaluate.main, "--checkpoint-path", bundle, *report),
        ]
        for result in refused:
            assert fault in result.one_line_error()


def test_a_lock_is_never_held_twice() -> None:
    """Many threads take and give back one lock; its file comes and goes with each."""
    held: list[int] = []
    faults: list[int] = []

    def work() -> None:
        for _ in range(100):
            try:
                with files.exclusive(Path("a").absolute()):
                    held.append(1)
                    if len(held) != 1:
                        faults.append(len(held))
                    held.pop()
            except OutputError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert not list(Path().iterdir())
