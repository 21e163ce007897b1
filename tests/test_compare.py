"""Comparisons: what is finished is kept, what failed is told, the report follows from the records alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, Run, write_yaml
from scipy import stats
from study_fixtures import InProcess, invented, start, write_recipe, write_records, write_study

from bankintent import __main__ as verbs
from bankintent import config, configfile, process, tracking
from bankintent.corpus import dataset
from bankintent.errors import DataError
from bankintent.measures import paired
from bankintent.studies import analysis, comparison, plan
from bankintent.studies.record import RunRecord

__all__ = ["start"]  # a fixture


def keys(path: Path, data_dir: Path, *overrides: str) -> list[str]:
    settings = configfile.load(config.CompareConfig, path, overrides)
    return [
        run.key
        for run in plan.make_runs(settings, plan.load_recipes(settings), dataset.load(data_dir))
    ]


def records(folder: Path) -> list[RunRecord]:
    return [RunRecord.load(path) for path in sorted((folder / "study" / "runs").iterdir())]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_key_says_what_makes_the_run_and_nothing_else(data_dir: Path, tmp_path: Path) -> None:
    study = write_study(
        tmp_path, [write_recipe(tmp_path, name) for name in ("head-only", "lora")], data_dir
    )
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
    lora = keys(study, data_dir, "set={lora.r: 2}")
    assert [a == b for a, b in zip(lora, plain, strict=True)] == [True, False, True, False]
    renamed = yaml.safe_load(study.read_text())
    renamed["recipes"] = {f"my-{name}": path for name, path in renamed["recipes"].items()}
    assert keys(write_yaml(tmp_path / "renamed.yaml", **renamed), data_dir) == plain
    manifest = data_dir / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"data_hash": "other"}))
    assert not set(keys(study, data_dir)) & set(plain)


def test_an_interrupted_comparison_makes_what_is_missing_and_then_nothing(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    study = write_study(
        tmp_path, [write_recipe(tmp_path, name) for name in ("head-only", "lora")], data_dir
    )
    start.invents = True

    def interrupt(name: str) -> None:
        if name.startswith("head-only-all-seed2"):
            raise KeyboardInterrupt

    start.fault = interrupt
    stopped = run(verbs.compare, "--config", study)
    assert stopped.code == 130
    assert "Run the same command again" in stopped.err
    assert start.jobs == ["head-only-all-seed1", "lora-all-seed1", "head-only-all-seed2"]
    assert len(records(tmp_path)) == 2
    assert not (tmp_path / "study" / "report").exists()

    start.jobs, start.fault = [], lambda name: None
    result = run(verbs.compare, "--config", study)
    assert result.code == 0, result.err
    assert start.jobs == ["head-only-all-seed2", "lora-all-seed2"]
    assert "4 runs, 2 finished before" in result.out
    assert "[3/4] head-only, all data, seed 2: test accuracy 100.00 %" in result.out
    assert "[4/4] lora" in result.out

    start.jobs, before = [], contents(tmp_path / "study" / "report")
    assert run(verbs.compare, "--config", study).code == 0
    assert start.jobs == []
    assert contents(tmp_path / "study" / "report") == before

    # Other settings are other runs; the old records stay on disk, and are in no report.
    changed = run(verbs.compare, "--config", study, "--set", "set={lora.r: 2}")
    assert changed.code == 0, changed.err
    assert start.jobs == ["lora-all-seed1", "lora-all-seed2"]
    assert len(records(tmp_path)) == 6
    figures = json.loads((tmp_path / "study" / "report" / "report.json").read_text())
    assert figures["runs"] == {"planned": 4, "finished": 4, "missing": []}
    assert figures["recipes"][1]["settings"]["lora"]["r"] == 2


def test_a_failing_run_is_told_and_loses_no_other(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    from bankintent.errors import TrainingError

    study = write_study(
        tmp_path, [write_recipe(tmp_path, name) for name in ("head-only", "lora")], data_dir
    )
    start.invents = True

    def fail(name: str) -> None:
        if name.startswith("lora-all-seed1"):
            raise TrainingError("the loss overflowed", "Set a lower lr")

    start.fault = fail
    result = run(verbs.compare, "--config", study)
    message = result.one_line_error()
    assert "1 of 4 runs failed, first lora, all data, seed 1: the loss overflowed" in message
    assert "study/logs/lora-all-seed1" in message
    assert "[2/4] lora, all data, seed 1: failed: the loss overflowed" in result.out
    assert len(records(tmp_path)) == 3
    report = (tmp_path / "study" / "report" / "report.md").read_text()
    assert "3 of 4 runs" in report
    assert "in no figure here:** lora, all data, seed 1" in report

    start.fault = lambda name: None
    start.jobs = []
    assert run(verbs.compare, "--config", study).code == 0
    assert start.jobs == ["lora-all-seed1"]


def test_where_every_run_fails_there_is_no_report(
    data_dir: Path, tmp_path: Path, run: Run, start: InProcess
) -> None:
    study = write_study(
        tmp_path, [write_recipe(tmp_path, "lora", model="no/where/at/all")], data_dir
    )
    assert (
        "2 of 2 runs failed, first lora" in run(verbs.compare, "--config", study).one_line_error()
    )
    assert not (tmp_path / "study" / "report").exists()
    assert (
        "holds no finished run"
        in run(verbs.compare, "--config", study, "--report-only").one_line_error()
    )


def test_a_run_killed_while_training_continues_and_its_time_is_not_reported(
    tiny_bert: Path,
    data_dir: Path,
    tmp_path: Path,
    run: Run,
    start: InProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bankintent.training import trainer

    study = write_study(
        tmp_path, [write_recipe(tmp_path, "lora", tiny_bert)], data_dir, seeds=[1], sizes=[5]
    )

    class Killed(trainer.MarkComplete):
        def on_save(self, args, state, control, **options):  # type: ignore[no-untyped-def]
            if (state.epoch or 0) >= 2:
                raise KeyboardInterrupt
            super().on_save(args, state, control, **options)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "MarkComplete", Killed)
        assert run(verbs.compare, "--config", study).code == 130
    assert not (tmp_path / "study" / "runs").exists()
    result = run(verbs.compare, "--config", study)
    assert result.code == 0, result.err
    assert "Going on from" in result.out
    (record,) = records(tmp_path)
    assert record.train_seconds is None
    assert record.run_seconds is None
    assert record.train_rows == 15
    assert record.settings["few_shot"] == 5
    assert not any((tmp_path / "study" / "models").iterdir())
    assert (
        "| lora | 5 per intent (15) |" in (tmp_path / "study" / "report" / "report.md").read_text()
    )


def test_a_run_in_a_fresh_process_records_what_its_model_says(
    tiny_bert: Path, data_dir: Path, tmp_path: Path, run: Run
) -> None:
    from bankintent.inference.predictor import Predictor

    study = write_study(
        tmp_path, [write_recipe(tmp_path, "lora", tiny_bert)], data_dir, seeds=[3], keep_models=True
    )
    result = run(verbs.compare, "--config", study)
    assert result.code == 0, result.err + "".join(
        p.read_text() for p in (tmp_path / "study").rglob("*.log")
    )
    (record,) = records(tmp_path)
    (bundle,) = (tmp_path / "study" / "models").iterdir()
    rows = dataset.load(data_dir).read("test")
    assert record.predicted == Predictor.load(bundle).logits(rows.texts).argmax(axis=1).tolist()
    assert record.metrics["test"]["accuracy"] == pytest.approx(
        np.mean(np.array(record.predicted) == rows.labels)
    )
    assert set(record.metrics) == {"val", "test"}
    assert record.trainable_parameters < record.total_parameters
    assert record.train_rows == len(dataset.load(data_dir).read("train"))
    assert (record.seed, record.settings["seed"]) == (3, 3)
    assert len(record.history) == 2
    assert record.train_seconds is not None
    assert record.run_seconds is not None
    assert 0 < record.train_seconds < record.run_seconds
    assert record.peak_memory_bytes > 1e8  # torch alone is more
    assert record.latency.single_ms > 0
    for part, size in record.bytes.items():
        assert size == sum(path.stat().st_size for path in (bundle / part).rglob("*"))
    assert set(record.bytes) == {"merged", "adapter"}


def lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
        return (
            Path(f"/proc/{process_id}/stat").read_text().split()[2] != "Z"
        )  # ended, and not yet waited for
    except FileNotFoundError:
        return True  # a system without /proc
    except ProcessLookupError:
        return False


def test_a_job_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(
        "import os, sys, time\nfrom bankintent.studies import process\nprocess.end_with_parent()\n"
        "print(os.getpid(), flush=True)\ntime.sleep(600)\n"
    )
    program = "from pathlib import Path\nfrom bankintent.studies import process\n"
    program += "process.run('sleeper', Path('job'), Path('log'))"
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}"}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=tmp_path)
    log = tmp_path / "log"
    while not (log.is_file() and log.read_text().strip()):
        assert parent.poll() is None
        time.sleep(0.05)
    child = int(log.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while lives(child):
        time.sleep(0.05)  # the test's own limit ends a wait that never ends


def test_a_job_that_fails_gives_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name, body, expected in [
        ("fails", "raise ValueError('no such thing')", "ValueError: no such thing"),
        ("killed", "import os; os.kill(os.getpid(), 9)", "ended by signal 9 (is memory short?)"),
        ("silent", "raise SystemExit(3)", "exit code 3"),
        ("works", "print('done')", None),
    ]:
        (tmp_path / f"{name}.py").write_text(body)
        assert process.run(name, tmp_path / "job", tmp_path / "logs" / "log") == expected


def test_the_report_follows_from_the_records_byte_for_byte(tmp_path: Path, run: Run) -> None:
    recipes = [write_recipe(tmp_path, name) for name in ("head-only", "lora", "full-ft")]
    study = write_study(tmp_path, recipes, tmp_path / "nowhere", sizes=[5, "all"], seeds=[1, 2, 3])
    write_records(study, {"head-only": 0.7, "lora": 0.85, "full-ft": 0.9}, without=1)
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    first = contents(tmp_path / "study" / "report")
    command = [
        sys.executable,
        "-m",
        "bankintent",
        "compare",
        "--config",
        str(study),
        "--report-only",
    ]
    environment = os.environ | {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment, capture_output=True)
    assert contents(tmp_path / "study" / "report") == first

    pictures = {name for name in first if name.endswith(".png")}
    assert {"accuracy.png", "learning-curves.png", "intents-lora-full-ft.png"} <= pictures
    assert set(first) == pictures | {"report.md", "report.json", "report.html"}
    page = first["report.html"].decode()
    assert page.count('<img src="data:image/png;base64,') == len(pictures)
    assert "<script" not in page
    assert "http" not in page
    assert page.count("<table>") == 4
    text = first["report.md"].decode()
    assert "in no figure here:** full-ft, all data, seed 3." in text
    figures = json.loads(first["report.json"])
    cell = next(c for c in figures["cells"] if c["recipe"] == "full-ft" and c["size"] == "all")
    assert cell["seeds"] == [1, 2]
    assert (cell["run_seconds"], cell["peak_memory_bytes"], cell["share"]) == (
        121.5,
        1_500_000_000,
        1.0,
    )
    pair = next(p for p in figures["pairs"] if p["b"] == "full-ft" and p["size"] == "all")
    assert pair["seeds"] == [1, 2]  # only the seeds that both have
    counts = figures["intents"][0]["intents"]
    assert [row["difference"] for row in counts] == sorted(
        (row["difference"] for row in counts), reverse=True
    )
    assert sum(row["rows"] for row in counts) == 60


def test_runs_that_are_missing_are_named_by_cell(tmp_path: Path, run: Run) -> None:
    recipes = [write_recipe(tmp_path, name) for name in ("lora", "full-ft")]
    study = write_study(tmp_path, recipes, tmp_path / "nowhere", seeds=[1, 2, 3])
    write_records(study, {"lora": 0.8, "full-ft": 0.9}, without=3)
    assert run(verbs.compare, "--config", study, "--report-only").code == 0
    text = (tmp_path / "study" / "report" / "report.md").read_text()
    assert "in no figure here:** full-ft, all data, seeds 2, 3; lora, all data, seed 3." in text


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
    text = (tmp_path / "study" / "report" / "report.md").read_text()
    assert "- more: learns from sentences without labels too" in text
    assert "- head-only: learns" not in text


def compared(
    tmp_path: Path, a_right: list[list[bool]], b_right: list[list[bool]]
) -> dict[str, Any]:
    """The pair of a study whose two recipes answer rightly what is said, (seeds, rows)."""
    recipes = [write_recipe(tmp_path, name) for name in ("lora", "full-ft")]
    seeds = list(range(1, len(a_right) + 1))
    study = write_study(tmp_path, recipes, tmp_path / "nowhere", seeds=seeds)
    settings, runs, rows = write_records(
        study, {"lora": 1, "full-ft": 1}, intents=2, per_intent=len(a_right[0]) // 2
    )
    true, found = np.asarray(rows.true), {}
    for run in runs:
        right = np.array((a_right if run.recipe.name == "lora" else b_right)[run.seed - 1])
        found[run.key] = invented(run.settings, run.key, rows, np.where(right, true, 1 - true))
    (pair,) = analysis.analyse(settings, runs, found, rows)["pairs"]
    return pair


def test_the_verdict_says_what_the_numbers_support(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    b_right = rng.random((3, 400)) < 0.95
    worse = compared(tmp_path, (b_right & (rng.random((3, 400)) < 0.9)).tolist(), b_right.tolist())
    low, high = worse["interval"]
    assert high < 0
    assert worse["verdict"] == (
        f"LoRA is {-100 * worse['difference']:.2f} points of accuracy below full fine-tuning (95 % interval"
        f" {100 * low:.2f} to {100 * high:.2f}, 3 seeds), with 3.0 % of the parameters trained against 100 %."
    )
    assert worse["mcnemar"]["significant"] == 3
    better = compared(tmp_path, b_right.tolist(), (b_right & (rng.random((3, 400)) < 0.9)).tolist())
    assert "points of accuracy above full fine-tuning" in better["verdict"]

    alike = compared(tmp_path, (rng.random((3, 400)) < 0.95).tolist(), b_right.tolist())
    assert alike["interval"][0] < 0 < alike["interval"][1]
    assert alike["verdict"].startswith(
        "No difference was shown between LoRA and full fine-tuning: LoRA is "
    )
    equal = compared(tmp_path, b_right.tolist(), b_right.tolist())
    assert "LoRA is level with full fine-tuning (95 % interval 0.00 to 0.00" in equal["verdict"]

    single = compared(
        tmp_path, (b_right[:1] & (rng.random((1, 400)) < 0.9)).tolist(), b_right[:1].tolist()
    )
    assert "one seed)" in single["verdict"]
    assert single["verdict"].endswith("Only the rows were resampled, as there is one seed.")
    assert single["resampled"] == "rows"


def test_parameters_are_compared_where_they_differ(tmp_path: Path) -> None:
    recipes = [
        write_recipe(tmp_path, "full-ft"),
        write_recipe(tmp_path, "longer", regime="full-ft", epochs=4),
    ]
    study = write_study(tmp_path, recipes, tmp_path / "nowhere")
    settings, runs, rows = write_records(study, {"full-ft": 0.8, "longer": 0.9})
    found = {r.key: RunRecord.load(path) for r in runs if (path := r.find_record())}
    (pair,) = analysis.analyse(settings, runs, found, rows)["pairs"]
    assert pair["verdict"].endswith("2 seeds).")


def test_the_t_interval_is_students() -> None:
    values = np.array([0.931, 0.935, 0.928, 0.936, 0.933])
    low, high = paired.t_interval(values) or (0, 0)
    assert (low, high) == pytest.approx(
        stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    )
    # By hand: 2.776 is the two-sided 5 % point of t with 4 degrees of freedom.
    assert high - low == pytest.approx(2 * 2.7764 * values.std(ddof=1) / np.sqrt(5), rel=1e-4)
    assert paired.t_interval(values[:1]) is None
    assert paired.t_interval(np.array([0.9, 1.0])) == [
        pytest.approx(0.95 - 12.7062 * 0.05, abs=1e-4),
        1.0,
    ]


def test_mcnemar_is_the_exact_binomial_test() -> None:
    a = np.array([True] * 10 + [False] * 2 + [True] * 5 + [False] * 3)
    b = np.array([False] * 10 + [True] * 2 + [True] * 5 + [False] * 3)
    found = paired.mcnemar(a, b)
    assert (found.only_a, found.only_b) == (10, 2)
    assert found.p == pytest.approx(2 * (1 + 12 + 66) / 2**12)  # at most 2 of 12 heads, twice
    assert paired.mcnemar(a, a).p == 1.0


def test_the_vote_of_seeds_breaks_ties_by_the_first() -> None:
    predicted = np.array([[0, 2, 1, 4], [1, 1, 1, 3], [1, 0, 2, 3]])
    assert paired.plurality(predicted).tolist() == [1, 2, 1, 3]


def test_the_bootstrap_resamples_rows_and_seeds() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((4, 300)) < 0.9, rng.random((4, 300)) < 0.85
    difference = a.astype(int) - b.astype(int)
    means = []
    for _ in range(4000):
        rows, seeds = rng.integers(0, 300, 300), rng.integers(0, 4, 4)
        means.append(difference[seeds][:, rows].mean())
    found = paired.bootstrap_difference(a, b, 20_000, 6)
    assert found == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=0.004)
    order = rng.permutation(300)  # the interval does not depend on the order of the rows
    assert paired.bootstrap_difference(a[:, order], b[:, order], 20_000, 6) == found
    assert paired.bootstrap_difference(a, a, 1000, 6) == [0.0, 0.0]
    # Seeds that differ as wholes: with rows alone there would be no width at all.
    a, b = np.array([[True] * 50, [False] * 50]), np.zeros((2, 50), dtype=bool)
    assert paired.bootstrap_difference(a, b, 1000, 6) == [0.0, 1.0]
    assert paired.bootstrap_difference(a[:1], b[:1], 1000, 6) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"recipes": {"lora": "nowhere.yaml"}}, "nowhere.yaml does not exist"),
        ({"recipes": {"none": "none.yaml"}}, "none.yaml names no regime"),
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


def test_a_record_that_is_broken_or_of_other_rows_is_refused(tmp_path: Path, run: Run) -> None:
    study = write_study(tmp_path, [write_recipe(tmp_path, "lora")], tmp_path / "nowhere")
    assert (
        "holds no comparison"
        in run(verbs.compare, "--config", study, "--report-only").one_line_error()
    )
    settings, runs, rows = write_records(study, {"lora": 0.9})
    found = {r.key: RunRecord.load(path) for r in runs if (path := r.find_record())}
    other = rows.model_copy(update={"rows_hash": "x"})
    with pytest.raises(DataError, match="is of other test rows"):
        analysis.analyse(settings, runs, found, other)
    split = run(
        verbs.compare, "--config", study, "--report-only", "--set", "split=val"
    ).one_line_error()
    assert "is of the test split" in split
    next((tmp_path / "study" / "runs").iterdir()).write_text("{}")
    assert (
        "is not a record of this kind"
        in run(verbs.compare, "--config", study, "--report-only").one_line_error()
    )


def test_backbones_and_sizes_multiply_the_cells(data_dir: Path, tmp_path: Path) -> None:
    recipes = [
        write_recipe(tmp_path, name, revision="of its own model") for name in ("head-only", "lora")
    ]
    study = write_study(tmp_path, recipes, data_dir, backbones=["a/x", "b/y"], sizes=[5, "all"])
    settings = configfile.load(config.CompareConfig, study)
    runs = plan.make_runs(settings, plan.load_recipes(settings), dataset.load(data_dir))
    assert len(runs) == len({run.slug for run in runs}) == 2 * 2 * 2 * 2
    assert {run.settings.model_name for run in runs} == {"a/x", "b/y"}
    assert {run.settings.revision for run in runs} == {None}
    assert {run.settings.few_shot for run in runs} == {5, None}
    assert runs[0].label == "head-only-x, 5 per intent, seed 1"
    assert not any(run.settings.tracking.files for run in runs)
    cells = {
        run.recipe.slug: analysis.Cell(run.recipe, "all")
        for run in runs
        if run.size == "all" and run.seed == 1
    }
    _, _, rows = write_records(study, {"head-only": 0.8, "lora": 0.9})
    for name, cell in cells.items():
        cell.records[1] = invented(
            next(r for r in runs if r.recipe.slug == name).settings, "k", rows, np.zeros(60, int)
        )
    pairs = analysis._pairs(list(cells.values()))
    assert [(a.recipe.slug, b.recipe.slug) for a, b in pairs] == [
        ("head-only-x", "lora-x"),
        ("head-only-y", "lora-y"),
    ]


def test_a_few_shot_draw_is_nested_whole_intents_and_seeded(data_dir: Path) -> None:
    rows = dataset.load(data_dir).read("train")
    five, ten = rows.few_shot(5, seed=1), rows.few_shot(10, seed=1)
    assert np.bincount(five.labels).tolist() == [5, 5, 5]
    assert set(five.ids) < set(ten.ids) < set(rows.ids)
    assert five.ids == [i for i in rows.ids if i in set(five.ids)]
    assert set(rows.few_shot(5, seed=2).ids) != set(five.ids)
    assert rows.few_shot(16, seed=1).ids == rows.ids
    uneven = rows.take([i for i in range(len(rows)) if rows.labels[i] != 1 or i % 4 == 0])
    drawn = uneven.few_shot(10, seed=1)
    assert np.bincount(drawn.labels).tolist() == [10, uneven.labels.count(1), 10]
    with pytest.raises(DataError, match="no intent has 17"):
        rows.few_shot(17, seed=1)


def test_tracking_without_files_logs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected() -> None:
        raise AssertionError

    monkeypatch.setattr(tracking, "_mlflow", unexpected)
    tracking.Tracker(config.TrackingConfig(files=False)).files(tmp_path)


def test_times_are_told_as_people_tell_them() -> None:
    assert [comparison.duration(seconds) for seconds in (4.4, 100, 3600, 11_000)] == [
        "4 s",
        "2 min",
        "60 min",
        "3 h 03 min",
    ]


def test_the_verb_answers_help_and_config_errors_without_heavy_libraries() -> None:
    program = (
        "import runpy, sys\n"
        "sys.argv = ['bankintent', 'compare', '--config', 'nowhere.yaml']\n"
        "try: runpy.run_module('bankintent', run_name='__main__')\n"
        "except SystemExit as stop: print(stop.code)\n"
        "heavy = {'torch', 'transformers', 'mlflow', 'pandas', 'matplotlib', 'sklearn', 'optuna', 'scipy', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.stdout.split("\n")[:2] == ["2", "[]"], done.stdout + done.stderr
    assert "nowhere.yaml does not exist" in done.stderr
    verbs_page = subprocess.run(
        [sys.executable, "-m", "bankintent", "--help"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    assert "compare" in verbs_page.stdout
