"""The report of a comparison follows from its records alone, and says what they support."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Run
from study_fixtures import (
    invented_record,
    report_files,
    report_text,
    write_recipe,
    write_recipes,
    write_records,
    write_study,
)

from bankintent import __main__ as verbs
from bankintent.errors import DataError
from bankintent.studies import analysis
from bankintent.studies.cells import Cell, pair_cells
from bankintent.studies.figures import PairFigures
from bankintent.studies.plan import PlannedRun
from bankintent.studies.record import RunRecord


def load_records(runs: list[PlannedRun]) -> dict[str, RunRecord]:
    records = {}
    for run in runs:
        path = run.find_record()
        if path is not None:
            records[run.key] = RunRecord.load(path)
    return records


def write_three_recipes(folder: Path) -> Path:
    """A study of three recipes, two sizes and three seeds, of which the last run is missing."""
    recipes = write_recipes(folder, "head-only", "lora", "full-ft")
    study = write_study(folder, recipes, folder / "nowhere", sizes=[5, "all"], seeds=[1, 2, 3])
    write_records(study, {"head-only": 0.7, "lora": 0.85, "full-ft": 0.9}, without=1)
    return study


def test_the_report_follows_from_the_records_byte_for_byte(tmp_path: Path, run: Run) -> None:
    study = write_three_recipes(tmp_path)
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    first = report_files(tmp_path)

    verb = [sys.executable, "-m", "bankintent", "compare"]
    command = [*verb, "--config", str(study), "--report-only"]
    environment = os.environ | {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment, capture_output=True)
    assert report_files(tmp_path) == first


def test_the_html_report_needs_no_other_file(tmp_path: Path, run: Run) -> None:
    study = write_three_recipes(tmp_path)
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    files = report_files(tmp_path)

    pictures = {name for name in files if name.endswith(".png")}
    assert {"accuracy.png", "learning-curves.png", "intents-lora-full-ft.png"} <= pictures
    assert set(files) == pictures | {"report.md", "report.json", "report.html"}
    page = files["report.html"].decode()
    assert page.count('<img src="data:image/png;base64,') == len(pictures)
    assert "<script" not in page
    assert "http" not in page
    assert page.count("<table>") == 4


def test_the_figures_are_of_the_finished_runs(tmp_path: Path, run: Run) -> None:
    study = write_three_recipes(tmp_path)
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    assert "in no figure here:** full-ft, all data, seed 3." in report_text(tmp_path)
    figures = json.loads(report_files(tmp_path)["report.json"])

    cells = {(cell["recipe"], cell["size"]): cell for cell in figures["cells"]}
    cell = cells["full-ft", "all"]
    assert cell["seeds"] == [1, 2]
    assert cell["run_seconds"] == 121.5
    assert cell["peak_memory_bytes"] == 1_500_000_000
    assert cell["share"] == 1.0

    for pair in figures["pairs"]:
        if pair["b"] == "full-ft" and pair["size"] == "all":
            assert pair["seeds"] == [1, 2]  # only the seeds that both have

    intents = figures["intents"][0]["intents"]
    differences = [intent["difference"] for intent in intents]
    assert differences == sorted(differences, reverse=True)
    assert sum(intent["rows"] for intent in intents) == 60


def test_runs_that_are_missing_are_named_by_cell(tmp_path: Path, run: Run) -> None:
    recipes = write_recipes(tmp_path, "lora", "full-ft")
    study = write_study(tmp_path, recipes, tmp_path / "nowhere", seeds=[1, 2, 3])
    write_records(study, {"lora": 0.8, "full-ft": 0.9}, without=3)
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    expected = "in no figure here:** full-ft, all data, seeds 2, 3; lora, all data, seed 3."
    assert expected in report_text(tmp_path)


def test_the_report_names_recipes_that_learn_from_sentences_without_labels(
    tmp_path: Path, run: Run
) -> None:
    recipes = [
        write_recipe(tmp_path, "head-only"),
        write_recipe(tmp_path, "more", regime="head-only", pseudo_labels={}),
    ]
    study = write_study(tmp_path, recipes, tmp_path / "nowhere", sizes=[5])
    write_records(study, {"head-only": 0.7, "more": 0.8})
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    text = report_text(tmp_path)
    assert "- more: learns from sentences without labels too" in text
    assert "- head-only: learns" not in text


def compare_answers(tmp_path: Path, lora_right: np.ndarray, full_right: np.ndarray) -> PairFigures:
    """The pair of a study with these answers, (seeds, rows): true where correct."""
    num_seeds, num_rows = lora_right.shape
    seeds = list(range(1, num_seeds + 1))
    recipes = write_recipes(tmp_path, "lora", "full-ft")
    study = write_study(tmp_path, recipes, tmp_path / "nowhere", seeds=seeds)
    settings, runs, rows = write_records(
        study, {"lora": 1, "full-ft": 1}, intents=2, per_intent=num_rows // 2
    )

    true = np.asarray(rows.true)
    right = {"lora": lora_right, "full-ft": full_right}
    records = {}
    for run in runs:
        is_right = right[run.recipe.name][run.seed - 1]
        predicted = np.where(is_right, true, 1 - true)
        records[run.key] = invented_record(run.settings, run.key, rows, predicted)
    (pair,) = analysis.analyse(settings, runs, records, rows).pairs
    return pair


def test_a_verdict_gives_a_difference_that_the_interval_shows(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    good = rng.random((3, 400)) < 0.95
    worse_than_good = good & (rng.random((3, 400)) < 0.9)

    worse = compare_answers(tmp_path, worse_than_good, good)
    low, high = worse.interval
    assert high < 0
    assert worse.verdict == (
        f"LoRA is {-100 * worse.difference:.2f} points of accuracy below full fine-tuning"
        f" (95 % interval {100 * low:.2f} to {100 * high:.2f}, 3 seeds),"
        " with 3.0 % of the parameters trained against 100 %."
    )
    assert worse.mcnemar.significant == 3

    better = compare_answers(tmp_path, good, worse_than_good)
    assert "points of accuracy above full fine-tuning" in better.verdict


def test_a_verdict_shows_no_difference_where_the_interval_holds_zero(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    good = rng.random((3, 400)) < 0.95
    equally_good = rng.random((3, 400)) < 0.95

    similar = compare_answers(tmp_path, equally_good, good)
    assert similar.interval[0] < 0 < similar.interval[1]
    start = "No difference was shown between LoRA and full fine-tuning: LoRA is "
    assert similar.verdict.startswith(start)

    equal = compare_answers(tmp_path, good, good)
    assert "LoRA is level with full fine-tuning (95 % interval 0.00 to 0.00" in equal.verdict


def test_a_verdict_of_one_seed_says_that_only_rows_were_resampled(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    good = rng.random((1, 400)) < 0.95
    worse_than_good = good & (rng.random((1, 400)) < 0.9)
    single = compare_answers(tmp_path, worse_than_good, good)
    assert "one seed)" in single.verdict
    assert single.verdict.endswith("Only the rows were resampled, as there is one seed.")
    assert single.resampled == "rows"


def test_parameters_are_compared_where_they_differ(tmp_path: Path) -> None:
    recipes = [
        write_recipe(tmp_path, "full-ft"),
        write_recipe(tmp_path, "longer", regime="full-ft", epochs=4),
    ]
    study = write_study(tmp_path, recipes, tmp_path / "nowhere")
    settings, runs, rows = write_records(study, {"full-ft": 0.8, "longer": 0.9})
    (pair,) = analysis.analyse(settings, runs, load_records(runs), rows).pairs
    assert pair.verdict.endswith("2 seeds).")


def test_recipes_are_paired_on_the_same_backbone(tmp_path: Path) -> None:
    recipes = write_recipes(tmp_path, "head-only", "lora")
    study = write_study(tmp_path, recipes, tmp_path / "nowhere", backbones=["a/x", "b/y"])
    _, runs, rows = write_records(study, {"head-only": 0.8, "lora": 0.9})
    cells = []
    for run in runs:
        if run.seed == 1:
            cell = Cell(run.recipe, run.size)
            cell.records[1] = invented_record(run.settings, "k", rows, np.zeros(60, int))
            cells.append(cell)

    pairs = [(a.recipe.slug, b.recipe.slug) for a, b in pair_cells(cells)]
    assert pairs == [("head-only-x", "lora-x"), ("head-only-y", "lora-y")]


def test_a_study_without_records_is_refused(tmp_path: Path, run: Run) -> None:
    study = write_study(tmp_path, write_recipes(tmp_path, "lora"), tmp_path / "nowhere")
    refused = run(verbs.compare, "--config", study, "--report-only")
    assert "holds no comparison" in refused.one_line_error()


def test_a_record_that_is_broken_or_of_other_rows_is_refused(tmp_path: Path, run: Run) -> None:
    study = write_study(tmp_path, write_recipes(tmp_path, "lora"), tmp_path / "nowhere")
    settings, runs, rows = write_records(study, {"lora": 0.9})
    other_rows = rows.model_copy(update={"rows_hash": "x"})
    with pytest.raises(DataError, match="is of other test rows"):
        analysis.analyse(settings, runs, load_records(runs), other_rows)

    command = (verbs.compare, "--config", study, "--report-only")
    other_split = run(*command, "--set", "split=val")
    assert "is of the test split" in other_split.one_line_error()

    record = next((tmp_path / "study" / "runs").iterdir())
    record.write_text("{}")
    assert "is not a record of this kind" in run(*command).one_line_error()
