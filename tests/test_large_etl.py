"""ETL with the rows on disk: the same results as in memory, and a bound on memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, Run, write_csv, write_yaml
from tiny_models import rows

import etl
from bankintent.config import DataConfig
from bankintent.corpus import division, near
from bankintent.corpus.large import engine, minhash
from benchmarks import etl_data

BOUND = 1800
"""MiB that an ETL of 300,000 rows may have resident; it had 463 on an idle machine."""

LIMITED = """
import resource, sys
from pathlib import Path
from bankintent.commands.etl import run
from bankintent.config import DataConfig
bound = int(sys.argv[3]) << 20
resource.setrlimit(resource.RLIMIT_DATA, (2 * bound, 2 * bound))
run(DataConfig(dataset_name=sys.argv[1], output_dir=Path(sys.argv[2]), engine="duckdb"))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of generated sentences with a train and a test file."""
    folder = tmp_path_factory.mktemp("generated")
    etl_data.make(1500, folder)
    return folder


def run_engine(run: Run, source: Path, engine: str, **more: Any) -> Path:
    """The output of an ETL on one of the engines."""
    output = Path(f"out-{engine}")
    keys = {"dataset_name": str(source), "engine": engine, "output_dir": str(output), **more}
    config = write_yaml(Path(f"{engine}.yaml"), **keys)
    result = run(etl.main, "--config", config)
    assert result.code == 0, result.err
    return output


def read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize(
    "keys",
    [
        {"split": "official"},
        {"split": "stable", "leakage": "drop"},
        pytest.param({"split": "stratified", "leakage": "drop"}, marks=pytest.mark.scale),
        pytest.param(
            {"split": "official", "rare": "drop", "leakage": "drop"}, marks=pytest.mark.scale
        ),
    ],
)
def test_both_engines_give_the_same_rows_labels_splits_and_report(
    run: Run, source: Path, keys: dict[str, str]
) -> None:
    expected = run_engine(run, source, "memory", **keys)
    found = run_engine(run, source, "duckdb", **keys)
    for name in ("train.parquet", "val.parquet", "test.parquet"):
        assert pq.read_table(found / name) == pq.read_table(expected / name), name
    for name in ("labels.json", "report.json", "report.md"):
        assert (found / name).read_text() == (expected / name).read_text(), name

    ours = read_json(found / "manifest.json")
    theirs = read_json(expected / "manifest.json")
    assert ours["data_hash"] == theirs["data_hash"]
    assert ours["labels_hash"] == theirs["labels_hash"]
    assert ours["source"] == theirs["source"]
    assert sorted(ours["files"]) == sorted(theirs["files"])
    assert not list(Path().glob("*.work"))


def test_refused_rows_rare_intents_and_texts_of_any_script_are_treated_alike(
    run: Run, tmp_path: Path
) -> None:
    lines = ["text,label"]
    for number in range(150):
        lines.append(f"मेरा कार्ड {number} कहाँ है,hindi")
        lines.append(f"a sentence number {number * number} of five euros € {number},english")
    lines += ["???,english", ",english", "seldom one,seldom", "seldom two,seldom", "same,a"]
    lines += ["same,b"] * 30 + ["Same!,a"] * 30
    table = tmp_path / "rows.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")

    keys = {"split": "stable", "rare": "merge:other than these"}
    lines += ["third,seldom"]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    expected = run_engine(run, table, "memory", **keys)
    found = run_engine(run, table, "duckdb", **keys)
    for name in ("train.parquet", "val.parquet", "test.parquet"):
        assert pq.read_table(found / name) == pq.read_table(expected / name), name

    ours = read_json(found / "report.json")
    theirs = read_json(expected / "report.json")
    near_ours = ours.pop("leakage")["pairs"]
    near_theirs = theirs.pop("leakage")["pairs"]
    assert ours == theirs
    # Hundreds of texts of one template: some near pairs may be missed, none of the same text.
    for pair, figures in near_theirs.items():
        assert near_ours[pair]["same"] == figures["same"]
        assert 0.9 * figures["near"] <= near_ours[pair]["near"] <= figures["near"]


def test_a_key_that_the_large_engine_does_not_serve_is_one_line(run: Run, source: Path) -> None:
    keys = {"dataset_name": str(source), "engine": "duckdb", "few_shot": 3}
    error = run(etl.main, "--config", write_yaml(Path("data.yaml"), **keys)).one_line_error()
    assert "engine: duckdb does not serve few_shot" in error
    assert not Path("data/processed").exists()


def test_a_format_that_must_be_held_in_memory_is_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "b"}\n')
    keys = {"dataset_name": str(path), "engine": "duckdb"}
    error = run(etl.main, "--config", write_yaml(Path("data.yaml"), **keys)).one_line_error()
    assert "rows.jsonl" in error


def test_auto_takes_the_disk_for_large_tables_alone(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(dataset_name=str(source))
    assert not engine.is_large(config)
    monkeypatch.setattr(engine, "LARGE_BYTES", 1000)
    assert engine.is_large(config)
    assert not engine.is_large(config.model_copy(update={"few_shot": 3}))
    assert not engine.is_large(config.model_copy(update={"engine": "memory"}))


def test_few_rows_of_long_texts_are_cross_validated_in_memory_as_ever(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LARGE_BYTES", 1000)
    monkeypatch.setattr(division, "CROSS_BELOW", 1000)
    table = write_csv(tmp_path / "few.csv", rows())
    config = write_yaml(tmp_path / "c.yaml", dataset_name=str(table), output_dir="out")
    result = run(etl.main, "--config", config)
    assert result.code == 0, result.err
    assert Path("out/folds.parquet").is_file()

    asked = write_yaml(tmp_path / "d.yaml", dataset_name=str(table), engine="duckdb")
    refused = run(etl.main, "--config", asked)
    assert refused.code == 2
    assert "does not cross-validate" in refused.err


def test_minhash_proposes_nearly_all_near_pairs(tmp_path: Path) -> None:
    texts = []
    for number in range(600):
        text = f"please tell me number {number * 7919} why the payment of {number} was refused"
        texts += [text, f"{text}s"]
    texts = sorted(texts)

    exact = set()
    for pairs in near.near_pairs(texts):
        exact.update(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    minhash.write_signatures([texts[:500], texts[500:]], tmp_path)
    proposed = set()
    for first, second in minhash.candidates(tmp_path):
        proposed.update(zip(first.tolist(), second.tolist(), strict=True))

    assert len(exact) >= 600
    planted = {(a, b) for a, b in exact if f"{texts[a]}s" == texts[b]}
    assert len(planted - proposed) <= 2


def test_a_failed_etl_leaves_the_former_output_and_nothing_else(run: Run, source: Path) -> None:
    output = run_engine(run, source, "duckdb", split="stratified")
    before = (output / "manifest.json").read_bytes()
    keys = {"dataset_name": str(source), "engine": "duckdb", "output_dir": str(output)}
    config = write_yaml(Path("fail.yaml"), **keys, split="stratified", leakage="fail")
    error = run(etl.main, "--config", config).one_line_error()
    assert "stand in two splits" in error
    assert (output / "manifest.json").read_bytes() == before
    assert not list(Path().glob("*.work"))


@pytest.mark.scale
def test_300_000_rows_stay_below_the_bound(tmp_path: Path) -> None:
    etl_data.make(300_000, tmp_path / "rows")
    output = tmp_path / "out"
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "rows"), str(output), str(BOUND)]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert usage.ru_maxrss / 1024 < BOUND

    train = pq.ParquetFile(output / "train.parquet")
    assert train.metadata.row_group(0).num_rows == 50_000
    assert (
        train.metadata.num_rows
        + sum(pq.read_metadata(output / f"{name}.parquet").num_rows for name in ("val", "test"))
        == 300_000
    )
