"""The benchmark of policies: its runs, the form of their answers, its records and its report; nothing here is timed."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, Run, train_config, write_csv, write_yaml
from safetensors.numpy import load_file

import etl
from bankintent.corpus import dataset
from bankintent.corpus.general import read_general
from benchmarks import (
    trust,
    trust_answers,
    trust_mistakes,
    trust_prototypes,
    trust_report,
    trust_runs,
    trust_tables,
)
from benchmarks.tables import Record
from benchmarks.trust_answers import SUFFIX, Answers, Facts, Plan

INTENTS = 9
WIDTH = 12
CLOSED = Plan("banking77", "full-ft", 1)
OPEN = Plan("banking77", "full-ft", 2, share=75)
THIRD = Plan("banking77", "head-only", 3, rotation=3)


def draw(rng: np.random.Generator, rows: int, known: int, spread: float) -> dict[str, Any]:
    """Features around one corner for each intent, and logits that lean to it."""
    labels = np.arange(rows) % known
    features = rng.normal(scale=spread, size=(rows, WIDTH))
    features[np.arange(rows), labels] += 1
    return {
        "logits": (6 * features[:, :known]).astype(np.float32),
        "features": features.astype(np.float32),
        "labels": labels.astype(np.int64),
    }


def draw_answers(plan: Plan, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    known = len(plan.known(INTENTS))
    lists = {
        "train": draw(rng, 180, known, 0.2),
        "val": draw(rng, 180, known, 0.35),
        "test": draw(rng, 240, known, 0.35),
    }
    outside = ["general"] if plan.is_open else ["general", "outside_test", "outside_rest"]
    for name in outside:
        lists[name] = draw(rng, 60, known, 0.35)
        lists[name]["features"] = np.abs(rng.normal(size=(60, WIDTH)) / 3).astype(np.float32)
        lists[name]["logits"] = 6 * lists[name]["features"][:, :known]
        lists[name]["labels"][:] = -1
    if plan.is_open:
        lists["test"]["labels"][:80] = -1
        lists["test"]["features"][:80] = lists["general"]["features"][0]
        lists["test"]["logits"][:80] = lists["general"]["logits"][0]

    arrays = {f"{name}.{key}": array for name, of in lists.items() for key, array in of.items()}  # fmt: skip
    for name in ("train", "val"):
        arrays[f"{name}.frozen"] = arrays[f"{name}.features"]
    return arrays


def write_answers(folder: Path, plan: Plan) -> Path:
    names = [f"intent {number}" for number in range(len(plan.known(INTENTS)))]
    path = folder / f"{plan.name}{SUFFIX}"
    facts = Facts(plan, names, "A GPU", "bf16", 1.5, {"torch": "2.0"})
    trust_answers.write(path, facts, draw_answers(plan))
    return path


# Runs


def test_the_runs_are_those_of_the_experiment() -> None:
    plans = list(trust_runs.plans())
    assert len(plans) == len({plan.name for plan in plans}) == 70
    assert sum(plan.rotation is not None for plan in plans) == 10
    assert sum(plan.share is not None for plan in plans) == 30
    closed = {(plan.data, plan.regime, plan.seed) for plan in plans if not plan.is_open}
    assert len(closed) == 30


@pytest.mark.parametrize(("share", "count"), [(25, 19), (50, 38), (75, 58)])
def test_known_intents_are_a_share_that_differs_with_the_seed(share: int, count: int) -> None:
    draws = [Plan("banking77", "lora", seed, share=share).known(77) for seed in (1, 2)]
    assert [len(known) for known in draws] == [count, count]
    assert all((np.diff(known) > 0).all() for known in draws)
    assert not np.array_equal(*draws)


def test_a_rotation_holds_a_third_of_the_intents_out_and_other_runs_none() -> None:
    assert len(Plan("banking77", "full-ft", 1, rotation=1).known(77)) == 77 - 26
    assert Plan("clinc150", "full-ft", 1).known(150).tolist() == list(range(150))


def test_runs_are_listed_and_chosen_by_name(run: Run) -> None:
    result = run(trust_runs.main, "--list", "--only", "clinc150-lora-*")
    assert result.out.split() == [f"clinc150-lora-seed{seed}" for seed in range(1, 6)]
    line = run(trust_runs.main, "--only", "nothing").one_line_error()
    assert '"nothing"' in line
    assert "--list" in line


def test_data_that_is_missing_is_told_of_before_any_run(run: Run, data_dir: Path) -> None:
    line = run(trust_runs.main, "--banking77", "nowhere").one_line_error()
    assert "nowhere" in line
    words = ("--banking77", data_dir, "--clinc150", data_dir)
    assert "no out-of-scope" in run(trust_runs.main, *words).one_line_error()


def test_runs_that_are_there_are_left_out(run: Run, data_dir: Path) -> None:
    write_answers(Path("answers"), THIRD)
    words = ("--banking77", data_dir, "--output-dir", "answers", "--only", THIRD.name)
    result = run(trust_runs.main, *words)
    assert (result.code, result.out.strip()) == (0, "1 runs, 0 of them to train")


def test_a_failed_run_is_named_and_the_others_go_on(
    run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--banking77", data_dir, "--output-dir", "answers", "--only", "*known25-head-only*")
    tried = []

    def run_one(job: dict[str, Any]) -> str | None:
        tried.append(job["plan"]["seed"])
        return "that one" if tried[-1] == 2 else None

    monkeypatch.setattr(trust_runs, "run_one", run_one)
    line = run(trust_runs.main, *words).one_line_error()
    assert "1 runs failed: that one" in line
    assert tried == [1, 2, 3, 4, 5]


def test_a_run_learns_the_known_intents_and_answers_every_list(
    data_dir: Path, tiny_bert: Path
) -> None:
    recipe = train_config(
        Path("head-only.yaml"), tiny_bert, data_dir, Path("unused"), regime="head-only", epochs=1
    )
    plan = Plan("banking77", "head-only", 1, share=75)
    done = trust_runs.train(
        {
            "plan": asdict(plan),
            "data_dir": str(data_dir),
            "outside_dir": str(data_dir),
            "recipe": str(recipe),
            "output": f"{plan.name}{SUFFIX}",
        }
    )
    assert 0 <= done["accuracy"] <= 1

    data = dataset.load(data_dir)
    known = plan.known(len(data.labels))
    answers = Answers(Path(f"{plan.name}{SUFFIX}"))
    assert answers.plan == plan
    assert answers.labels.names == tuple(data.labels.names[intent] for intent in known)

    test = data.read("test")
    expected = [known.tolist().index(label) if label in known else -1 for label in test.labels]
    assert answers.labelled("test").labels.tolist() == expected
    assert -1 in expected
    assert answers.rows("test").logits.shape == (len(test), 2)
    assert len(answers.rows("general")) == len(read_general())
    assert set(answers.train.labels.tolist()) == {0, 1}
    assert len(answers.frozen_train.features) == len(answers.train.labels)
    assert len(answers.frozen_val) == len(answers.known("val"))
    assert np.abs(answers.frozen_val.features).sum() > 0
    # A head on a frozen encoder is all that learns, so the two differ by the pooler alone.
    assert answers.frozen_val.features.shape[0] < len(answers.rows("val"))


@pytest.mark.proof
def test_the_command_trains_a_run_in_a_process_of_its_own(
    run: Run, data_dir: Path, tiny_bert: Path
) -> None:
    train_config(
        Path("head-only.yaml"), tiny_bert, data_dir, Path("unused"), regime="head-only", epochs=1
    )
    words = ("--banking77", data_dir, "--recipes", ".", "--output-dir", "answers")
    name = "banking77-known75-head-only-seed1"
    result = run(trust_runs.main, *words, "--only", name)
    assert result.code == 0, result.out + result.err
    assert f"{name}: " in result.out
    assert Answers(Path(f"answers/{name}{SUFFIX}")).plan.name == name
    assert "0 of them to train" in run(trust_runs.main, *words, "--only", name).out

    # A run that fails is named with its reason.
    Path("head-only.yaml").write_text("model_name: nowhere/at-all\n")
    failed = run(trust_runs.main, *words, "--only", "banking77-known75-head-only-seed2")
    assert "1 runs failed" in failed.err
    assert "benchmarks.trust_runs failed" in failed.out


def test_a_run_that_knows_every_intent_answers_the_sentences_of_none(run: Run) -> None:
    pairs = [("card " + str(number), "card") for number in range(30)]
    pairs += [("fee " + str(number), "fees") for number in range(30)]
    pairs += [("hum " + str(number), "oos") for number in range(30)]
    config = write_yaml(
        Path("data.yaml"),
        dataset_name=str(write_csv(Path("a.csv"), pairs)),
        output_dir="data",
        out_of_scope_labels=["oos"],
    )
    assert run(etl.main, "--config", config).code == 0
    data = dataset.load(Path("data"))
    lists = trust_runs.read_lists(CLOSED, data, CLOSED.known(2), Path("data"))
    parts = data.read_out_of_scope()
    assert lists["outside_test"].texts == parts["test"]
    assert lists["outside_rest"].texts == parts["train"] + parts["val"]
    assert set(lists["outside_rest"].labels.tolist()) == {-1}
    assert lists["train"].labels.tolist() == data.read("train").labels


# Answers


def test_the_file_of_a_run_holds_its_facts_and_no_sentence() -> None:
    path = write_answers(Path(), CLOSED)
    answers = Answers(path)
    assert answers.facts.plan == CLOSED
    assert answers.facts.hardware == "A GPU"
    assert all(array.dtype in (np.float32, np.int64) for array in load_file(path).values())


# Records and the report


@pytest.fixture
def records(run: Run) -> Record:
    for plan in (CLOSED, OPEN, THIRD):
        write_answers(Path("answers"), plan)
    result = run(trust.main, "answers", "--records", "records.json")
    assert result.code == 0, result.err
    content: Record = json.loads(Path("records.json").read_text())
    return content


def test_records_say_what_policies_do_and_the_report_shows_it(run: Run, records: Record) -> None:
    runs = {one["name"]: one for one in records["runs"]}
    assert set(runs) == {CLOSED.name, OPEN.name, THIRD.name}

    closed = runs[CLOSED.name]
    assert closed["labels_changed"] == 0
    assert set(closed["promises"]) == {"0.95", "0.98", "0.99"}
    assert closed["out_of_scope"]["auroc"]["value"] > 0.8
    assert closed["out_of_scope_with_examples"] is None
    assert sum(closed["drawn"]["in_scope"]) == 240
    assert sum(closed["drawn"]["out_of_scope"]) == 60
    assert records["mistakes"]["banking77"]["models"] == 1

    opened = runs[OPEN.name]
    kept = opened["kept_known"]
    assert opened["known"] == 7
    assert opened["accuracy_known"] * 2 / 3 <= opened["open_accuracy"] + 1 / 3
    assert 0.5 <= kept <= 1
    assert set(opened["auroc_of"]) == set(trust_tables.SINGLE_SCORES)

    # Nothing is measured twice.
    result = run(trust.main, "answers", "--records", "records.json")
    assert (result.code, result.out) == (0, "")

    Path("out").mkdir()
    assert run(trust_report.main, "records.json", "--output-dir", "out").code == 0
    report = Path("out/report.md").read_text()
    pictures = re.findall(r"\]\((.*\.png)\)", report)
    assert len(pictures) == 4
    assert all((Path("out") / name).stat().st_size > 1000 for name in pictures)
    assert "### Goals" in report
    assert f"{100 * opened['open_accuracy']:.1f}" in report
    assert "A GPU" in report

    again = Path("out/report.md").read_bytes()
    assert run(trust_report.main, "records.json", "--output-dir", "out").code == 0
    assert Path("out/report.md").read_bytes() == again


def test_numbers_of_prototypes_are_compared_out_of_fold(run: Run) -> None:
    write_answers(Path("answers"), CLOSED)
    result = run(trust_prototypes.main, "answers", "--records", "records.json")
    assert result.code == 0, result.err
    found = json.loads(Path("records.json").read_text())["prototypes"]
    assert [entry["prototypes"] for entry in found] == list(trust_prototypes.NUMBERS)
    assert all(entry["nll"] > 0 and 0.5 < entry["auroc"] <= 1 for entry in found)
    assert len(trust_tables.prototype_table(found).rows) == len(found)
    line = run(trust_prototypes.main, "nowhere").one_line_error()
    assert "holds no answers" in line


def test_records_need_answers_and_a_report_records(run: Run) -> None:
    assert "benchmarks.trust_runs" in run(trust.main, "nowhere").one_line_error()
    assert "benchmarks.trust first" in run(trust_report.main, "none.json").one_line_error()


def test_the_published_report_is_made_of_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("draw_risk_coverage", "draw_calibrations", "draw_scores"):
        monkeypatch.setattr(trust_report, name, lambda *_: None)
    folder = REPOSITORY / "docs" / "results" / "trust"
    content = json.loads((folder / "records.json").read_text(encoding="utf-8"))
    pictures = trust_report.draw(content["runs"], folder)
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert trust_report.render(content, pictures) == report
    assert all((folder / picture.file).is_file() for picture in pictures)


def promise(is_promised: bool, low: float, high: float) -> Record:
    middle = (low + high) / 2
    return {
        "promised": is_promised,
        "precision": middle,
        "coverage": 0.5,
        "interval": [low, high],
    }


def closed_run(seed: int, error: float, kept: Record) -> Record:
    estimate = {"value": 0.99}
    return {
        "data": "banking77",
        "regime": "lora",
        "seed": seed,
        "share": None,
        "rotation": None,
        "calibration": {"after": {"ece": error}},
        "coverage_at": [{"precision": p, "coverage": 0.85} for p in (0.98, 0.99)],
        "promises": dict.fromkeys(trust_tables.PROMISES, kept),
        "out_of_scope": {"auroc": estimate},
    }


def test_a_promise_is_met_where_its_interval_does_not_end_below_it() -> None:
    for kept, is_met in (
        (promise(True, 0.94, 0.96), True),
        (promise(True, 0.93, 0.949), False),
        (promise(False, 0.94, 0.96), False),
    ):
        assert trust_tables.is_met(closed_run(1, 0.01, kept), "0.95") is is_met


def test_goals_are_judged_by_means_and_those_missed_are_named() -> None:
    kept = promise(True, 0.995, 1.0)
    runs = [closed_run(1, 0.012, kept), closed_run(2, 0.017, kept)]
    rows = {row[0]: row[1:] for row in trust_report.goals_table(runs).rows}
    assert rows["BANKING77, ECE %, at most 1.5"] == ["-", "1.45", "-", "yes"]
    assert rows["BANKING77, coverage % at 99 %, 80"][-1] == "yes"
    assert rows["BANKING77, coverage % at 98 %, 90"] == ["-", "85.0", "-", "no"]
    assert rows["CLINC150, far AUROC, .975"][-1] == "not measured"
    lines = trust_report.missed(runs)
    assert lines == ["- BANKING77, coverage % at 98 %, 90: lora has 85.0 (85.0 85.0)."]


def test_mistakes_are_shared_where_all_models_agree_against_the_label() -> None:
    labels = np.zeros(10, dtype=np.int64)
    sure = np.tile(np.float32([5, 0]), (10, 1))
    first = sure.copy()
    first[[0, 1]] = [0, 9]
    second = sure.copy()
    second[[0, 2]] = [0, 9]
    found = trust_mistakes.find_shared({"lora": [first], "full-ft": [second]}, labels)
    assert (found["models"], found["rows"], found["shared"]) == (2, 10, 1)
    assert [entry["wrong"] for entry in found["surest"]] == [[2], [2], [2], [2]]
    assert [entry["shared"] for entry in found["surest"]] == [[1], [1], [1], [1]]


def test_scores_are_named_with_how_often_they_were_chosen() -> None:
    one = {"a": 1.0, "b": 2.0}
    assert trust_tables._names([one, one]) == "a+b"
    assert trust_tables._names([one, {"a": 1.0}, one]) == "a 1x, a+b 2x"
