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
from bankintent.studies.figures import ComparisonFigures, PairFigures
from bankintent.studies.plan import PlannedRun
from bankintent.studies.recommendation import write_recommendation
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
    assert page.count("<table>") == 5


def test_the_report_opens_with_the_recommendation_the_table_and_the_pictures(
    tmp_path: Path, run: Run
) -> None:
    study = write_three_recipes(tmp_path)
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    lines = [line for line in report_text(tmp_path).splitlines() if line]
    assert lines[0] == "# small"
    assert lines[1].startswith("**Recommendation: full-ft.** With all training data it has ")
    assert lines[2] == "The same with 5 per intent."
    assert lines[3].startswith("**Not finished, and in no figure here:** ")
    assert lines[4].startswith("| recipe | training data | accuracy, % (95 %) | macro-F1")
    assert lines[5] == "| --- | --- | ---: | ---: | ---: |"
    table_end = 6 + 2 * 3
    assert [line[:12] for line in lines[table_end : table_end + 2]] == ["![Accuracy a"] * 2
    assert lines[table_end + 2] == "## Differences"


def test_differences_are_a_matrix_of_recipes(tmp_path: Path, run: Run) -> None:
    study = write_three_recipes(tmp_path)
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    _, section = report_text(tmp_path).split("## Differences")
    header, divider, *rows = section.strip().splitlines()[:6]
    assert header == "| row minus column | training data | lora | full-ft |"
    assert divider == "| --- | --- | ---: | ---: |"
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[:2] for row in cells] == [
        ["head-only", "all data"],
        ["lora", "all data"],
        ["head-only", "5 per intent"],
        ["lora", "5 per intent"],
    ]

    pairs = json.loads(report_files(tmp_path)["report.json"])["pairs"]
    pair = next(pair for pair in pairs if (pair["a"], pair["b"]) == ("head-only", "lora"))
    low, high = (100 * end for end in pair["interval"])
    assert high < 0
    expected = f"**{100 * pair['difference']:.2f}** ({low:.2f} to {high:.2f}), p "
    assert cells[0][2].startswith(expected)
    # The lower half would say the same again.
    assert cells[1][2] == ""
    assert cells[1][3] != ""


def test_the_html_report_has_a_dark_mode_and_numbers_to_the_right(tmp_path: Path, run: Run) -> None:
    study = write_three_recipes(tmp_path)
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    page = report_files(tmp_path)["report.html"].decode()
    assert "@media (prefers-color-scheme: dark)" in page
    assert '<th style="text-align:right">accuracy, % (95 %)</th>' in page
    # Nothing of the style stands against the alignment of a cell.
    assert "!important" not in page


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


def analyse_answers(
    tmp_path: Path, right: dict[str, np.ndarray], seconds: dict[str, float | None]
) -> ComparisonFigures:
    """The figures of recipes with these answers, (seeds, rows): true where correct.

    `seconds` are the training times, by recipe.
    """
    num_seeds, num_rows = next(iter(right.values())).shape
    seeds = list(range(1, num_seeds + 1))
    recipes = write_recipes(tmp_path, *right)
    study = write_study(tmp_path, recipes, tmp_path / "nowhere", seeds=seeds)
    settings, runs, rows = write_records(
        study, dict.fromkeys(right, 1.0), intents=2, per_intent=num_rows // 2
    )

    true = np.asarray(rows.true)
    records = {}
    for run in runs:
        name = run.recipe.name
        predicted = np.where(right[name][run.seed - 1], true, 1 - true)
        record = invented_record(run.settings, run.key, rows, predicted)
        if name in seconds:
            record = record.model_copy(update={"train_seconds": seconds[name]})
        records[run.key] = record
    return analysis.analyse(settings, runs, records, rows)


def compare_answers(tmp_path: Path, lora_right: np.ndarray, full_right: np.ndarray) -> PairFigures:
    """The pair of a study with these answers."""
    figures = analyse_answers(tmp_path, {"lora": lora_right, "full-ft": full_right}, {})
    (pair,) = figures.pairs
    return pair


def answers(num_right: int, num_rows: int = 400) -> np.ndarray:
    """The answers of three seeds, of which the first rows are right: no seed differs."""
    return np.tile(np.arange(num_rows) < num_right, (3, 1))


def recommended(figures: ComparisonFigures) -> str:
    (text,) = write_recommendation(figures)
    return text


def test_the_quickest_recipe_is_recommended_where_no_difference_to_the_best_was_shown(
    tmp_path: Path,
) -> None:
    # Two rows of 400 are no difference that an interval shows, a hundred are.
    right = {"head-only": answers(280), "lora": answers(378), "full-ft": answers(380)}
    seconds = {"head-only": 5.0, "lora": 100.0, "full-ft": 1600.0}
    assert recommended(analyse_answers(tmp_path, right, seconds)) == (
        "**Recommendation: lora.** With all training data it has 94.50 % accuracy on 400 test rows"
        " of made. The highest mean is that of full-ft, 95.00 %, but no difference was shown"
        " (-0.50 points, 95 % interval -1.25 to 0.00, 3 seeds), and lora trains in 100 s in place"
        " of 1,600 s."
    )


def test_the_best_recipe_is_recommended_where_what_is_quicker_is_worse(tmp_path: Path) -> None:
    right = {"head-only": answers(280), "lora": answers(300), "full-ft": answers(380)}
    seconds = {"head-only": 5.0, "lora": 100.0, "full-ft": 1600.0}
    assert recommended(analyse_answers(tmp_path, right, seconds)) == (
        "**Recommendation: full-ft.** With all training data it has the highest mean accuracy,"
        " 95.00 % on 400 test rows of made; quicker, but shown to be below it: head-only, lora."
    )


def test_the_best_recipe_is_recommended_where_none_is_quicker(tmp_path: Path) -> None:
    right = {"head-only": answers(380), "full-ft": answers(380)}
    text = recommended(analyse_answers(tmp_path, right, {}))
    assert text.startswith("**Recommendation: head-only.** ")
    assert text.endswith("95.00 % on 400 test rows of made, and no other trains more quickly.")


def test_recipes_are_ordered_by_parameters_where_a_training_time_is_unknown(
    tmp_path: Path,
) -> None:
    right = {"head-only": answers(379), "full-ft": answers(380)}
    text = recommended(analyse_answers(tmp_path, right, {"head-only": None}))
    assert text.startswith("**Recommendation: head-only.** ")
    assert text.endswith("head-only trains 177,485 parameters in place of 22,742,861.")


def test_one_recipe_is_recommended_against_none(tmp_path: Path) -> None:
    text = recommended(analyse_answers(tmp_path, {"lora": answers(380)}, {}))
    assert text == (
        "**Recommendation: lora.** With all training data it has 95.00 % accuracy on 400 test rows"
        " of made; there is no other to compare."
    )


def test_recommendations_that_differ_by_size_are_named(tmp_path: Path, run: Run) -> None:
    recipes = write_recipes(tmp_path, "head-only", "full-ft")
    study = write_study(tmp_path, recipes, tmp_path / "nowhere", sizes=[5, 10, "all"], seeds=[1])
    settings, runs, rows = write_records(study, {"head-only": 0.5, "full-ft": 0.95})
    records = load_records(runs)
    for planned in runs:
        if planned.recipe.name == "head-only" and planned.size == 5:
            all_right = np.asarray(rows.true)
            records[planned.key] = invented_record(planned.settings, planned.key, rows, all_right)
    figures = analysis.analyse(settings, runs, records, rows)
    first, others = write_recommendation(figures)
    assert first.startswith("**Recommendation: full-ft.** With all training data ")
    assert others.startswith("With fewer sentences: full-ft with 10 per intent (")
    assert others.endswith(", head-only with 5 per intent (100.00 %).")


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
