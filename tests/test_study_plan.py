"""The plan of a comparison: cache keys, cells, and the settings that are refused."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, Run, write_yaml
from study_fixtures import InProcess, write_recipe, write_recipes, write_study

from bankintent import __main__ as verbs
from bankintent.config import CompareConfig
from bankintent.configfile import load
from bankintent.corpus import dataset
from bankintent.errors import DataError
from bankintent.studies import plan
from bankintent.studies.plan import PlannedRun
from bankintent.studies.recipes import load_recipes


def plan_runs(path: Path, data_dir: Path, *overrides: str) -> list[PlannedRun]:
    settings = load(CompareConfig, path, overrides)
    return plan.make_runs(settings, load_recipes(settings), dataset.load(data_dir))


def keys(path: Path, data_dir: Path, *overrides: str) -> list[str]:
    return [run.key for run in plan_runs(path, data_dir, *overrides)]


def test_a_key_says_what_makes_the_run_and_nothing_else(data_dir: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path, write_recipes(tmp_path, "head-only", "lora"), data_dir)
    plain = keys(study, data_dir)
    assert len(set(plain)) == 4

    for same in (
        "output_dir=x",
        "tracking.experiment=x",
        "name=x",
        "bootstrap=2000",
        "keep_models=true",
    ):
        assert keys(study, data_dir, same) == plain
    for other in ("set={epochs: 3}", "split=val", "sizes=[5]", "seeds=[3, 4]", "backbones=[x/y]"):
        assert not set(keys(study, data_dir, other)) & set(plain), other

    assert set(keys(study, data_dir, "seeds=[3, 2]")) & set(plain) == set(plain[2:])
    with_rank = keys(study, data_dir, "set={lora.r: 2}")
    is_same = [a == b for a, b in zip(with_rank, plain, strict=True)]
    assert is_same == [True, False, True, False]


@pytest.mark.parametrize(
    ("study", "config", "recipes"),
    [
        ("banking77", "compare.yaml", {"head-only", "lora", "full-ft"}),
        ("clinc150", "compare.yaml", {"head-only", "lora", "full-ft"}),
        ("contrastive", "contrastive/compare.yaml", {"without-contrastive", "hard-negatives"}),
        ("few-shot", "few-shot/compare.yaml", {"label-names", "pseudo-labels"}),
    ],
)
def test_the_recorded_results_are_those_of_the_shipped_recipes(
    study: str, config: str, recipes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    paths = sorted((REPOSITORY / "docs" / "results" / study / "runs").glob("*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    settings = load(CompareConfig, REPOSITORY / "configs" / config)
    data: Any = SimpleNamespace(
        hash=records[0]["data_hash"],
        labels=SimpleNamespace(hash=records[0]["labels_hash"]),
        unlabelled_hash=None,
    )
    runs = plan.make_runs(settings, load_recipes(settings), data)

    recorded = {record["key"] for record in records}
    found = [run for run in runs if run.key in recorded]
    assert recipes <= {run.recipe.name for run in found}
    # What is missing starts from a model that is not in the repository.
    of_the_rest = [record for record in records if record["key"] not in {run.key for run in found}]
    assert {Path(record["settings"]["model_name"]).name for record in of_the_rest} <= {
        "bundled-full-ft"
    }


def test_a_key_does_not_depend_on_names_but_on_the_data(data_dir: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path, write_recipes(tmp_path, "head-only", "lora"), data_dir)
    plain = keys(study, data_dir)

    renamed = yaml.safe_load(study.read_text())
    renamed["recipes"] = {f"my-{name}": path for name, path in renamed["recipes"].items()}
    assert keys(write_yaml(tmp_path / "renamed.yaml", **renamed), data_dir) == plain

    path = data_dir / "manifest.json"
    manifest = json.loads(path.read_text()) | {"data_hash": "other"}
    path.write_text(json.dumps(manifest))
    assert not set(keys(study, data_dir)) & set(plain)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"recipes": {"lora": "nowhere.yaml"}}, "nowhere.yaml does not exist"),
        (
            {"recipes": {"none": "none.yaml"}},
            'none.yaml: the key "regime" is missing: Which weights learn; add --regime',
        ),
        (
            {"recipes": {"lora": "lora.yaml", "same": "lora.yaml"}},
            "the recipes lora and same are the same",
        ),
        ({"set": {"seed": 3}}, "set: seed is decided by the study"),
        ({"set": {"lora": {"rank": 3}}}, 'lora.yaml: unknown key "lora.rank"'),
        (
            {"sizes": [0]},
            "sizes.0: a size is a number of sentences for each intent, or all; found 0",
        ),
        ({"sizes": ["5"]}, "found '5'"),
        ({"sizes": [5, 5]}, "sizes: 5 stands twice"),
        ({"sizes": [5000]}, "no intent has 5000 training rows, the largest has 16"),
        (
            {"set": {"pseudo_labels": {"neighbours": 3}}, "sizes": ["all"]},
            "data holds no sentences without labels",
        ),
        ({"split": "train"}, "split: input should be 'val' or 'test'"),
        ({"data_dir": "nodata"}, "nodata holds no ETL output"),
        ({"sweep": {"space": {"full": {"lr": [1, 2]}}}}, 'names the recipe "full"; there are lora'),
        (
            {"sweep": {"space": {"lora": {"lr": [0.1, "fast"]}}}},
            "sweep.space.lora: lora.yaml: lr: input should be",
        ),
        ({"sweep": {"space": {"lora": {"lrr": [1, 2]}}}}, 'unknown key "lrr", did you mean "lr"?'),
        ({"sweep": {"space": {"lora": {"seed": [1, 2]}}}}, "seed is decided by the study"),
        (
            {"sweep": {"space": {"lora": {"lr": {"low": 2, "high": 1}}}}},
            "low is 2, not below high (1)",
        ),
        ({"sweep": {"trails": 3, "space": {"lora": {"lr": [1, 2]}}}}, 'did you mean "trials"?'),
        (
            {"sweep": {"choose_on": "test", "space": {"lora": {"lr": [1, 2]}}}},
            "input should be 'val', found 'test'",
        ),
        (
            {"split": "val", "sweep": {"space": {"lora": {"lr": [1, 2]}}}},
            "choose on the split of the final figures",
        ),
        (
            {
                "recipes": {"full-ft": "full-ft.yaml"},
                "sweep": {"space": {"full-ft": {"lora.r": [1, 2]}}},
            },
            "lora.r does nothing in a full-ft recipe",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    change: dict[str, Any],
    expected: str,
    data_dir: Path,
    tmp_path: Path,
    run: Run,
    start: InProcess,
) -> None:
    for name, regime in {"lora": "lora", "full-ft": "full-ft", "none": None}.items():
        write_recipe(tmp_path, name, regime=regime)
    study = write_study(tmp_path, ["lora.yaml"], data_dir, **change)
    assert expected in run(verbs.compare, "--config", study).one_line_error()
    assert start.jobs == []
    assert not (tmp_path / "study").exists()


def test_backbones_and_sizes_multiply_the_cells(data_dir: Path, tmp_path: Path) -> None:
    recipes = [
        write_recipe(tmp_path, name, revision="of its own model") for name in ("head-only", "lora")
    ]
    study = write_study(tmp_path, recipes, data_dir, backbones=["a/x", "b/y"], sizes=[5, "all"])
    runs = plan_runs(study, data_dir)
    assert len(runs) == len({run.slug for run in runs}) == 2 * 2 * 2 * 2
    assert runs[0].label == "head-only-x, 5 per intent, seed 1"

    all_settings = [run.settings for run in runs]
    assert {settings.model_name for settings in all_settings} == {"a/x", "b/y"}
    assert {settings.revision for settings in all_settings} == {None}
    assert {settings.few_shot for settings in all_settings} == {5, None}
    assert not any(settings.tracking.files for settings in all_settings)


def test_a_few_shot_draw_is_nested_whole_intents_and_seeded(data_dir: Path) -> None:
    rows = dataset.load(data_dir).read("train")
    five = rows.few_shot(5, seed=1)
    ten = rows.few_shot(10, seed=1)
    assert np.bincount(five.labels).tolist() == [5, 5, 5]
    assert set(five.ids) < set(ten.ids) < set(rows.ids)
    assert five.ids == [row_id for row_id in rows.ids if row_id in five.ids]
    assert set(rows.few_shot(5, seed=2).ids) != set(five.ids)
    assert rows.few_shot(16, seed=1).ids == rows.ids

    remaining = [row for row in range(len(rows)) if rows.labels[row] != 1 or row % 4 == 0]
    uneven = rows.take(remaining)
    drawn = uneven.few_shot(10, seed=1)
    assert np.bincount(drawn.labels).tolist() == [10, uneven.labels.count(1), 10]
    with pytest.raises(DataError, match="no intent has 17"):
        rows.few_shot(17, seed=1)
