"""The process boundary: errors of the machine, places to write to, records of wrong types, scores that are no numbers."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
from conftest import REPOSITORY, Run, write_csv, write_yaml
from faults import full_disks, records
from servers import environment
from tiny_models import rows

import etl
from bankintent import machine_errors, typed_json
from bankintent.bundle.record import Manifest
from bankintent.config.places import OutputPath
from bankintent.errors import ModelError


def test_records_of_wrong_types_are_refused_in_one_line() -> None:
    tally = records.run(25)
    assert tally.tried == 150
    assert tally.gave_way == []


@pytest.mark.proof
def test_commands_on_a_full_disk_end_with_one_line_and_can_be_run_again() -> None:
    tally = full_disks.run(1)
    assert tally.tried == 4
    assert tally.gave_way == []


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/a"), "out/a: No space left"),
        (OSError("[Errno 28] Error writing bytes to file"), "No space left on device"),
        (RuntimeError("Error while serializing: I/O error (os error 28)"), "No space left"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "could not be written"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "too little memory"),
        (MemoryError(), "too little memory"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied"),
    ],
)
def test_errors_of_the_machine_are_explained(error: Exception, found: str) -> None:
    explanation = machine_errors.explain(error)
    assert explanation is not None
    assert found in explanation[0]
    assert explanation[1]


def test_an_error_of_the_machine_is_found_behind_the_error_that_it_caused() -> None:
    error = ValueError("cannot save")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert machine_errors.explain(error) is not None


def test_an_error_of_the_program_keeps_its_traceback() -> None:
    assert machine_errors.explain(KeyError("x")) is None
    assert machine_errors.explain(FileNotFoundError(errno.ENOENT, "gone", "x")) is None


def test_a_command_turns_a_full_disk_into_one_line(run: Run) -> None:
    def main() -> None:
        """Fail."""
        raise RuntimeError("No space left on device (os error 28)")

    assert "No space left on device" in run(main).one_line_error()


LONG = "a" * 250


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (".", "names no folder of its own"),
        ("..", "names no folder of its own"),
        ("/", "names no folder of its own"),
        ("file/below", "is no folder"),
        (LONG, "the name has 250 bytes"),
        ("/".join([LONG[:100]] * 40), "the path has"),
        ("loop/below", "is no folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_with_the_config(
    run: Run, tmp_path: Path, place: str, says: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    source = write_csv(tmp_path / "small.csv", rows())
    config = write_yaml(tmp_path / "data.yaml", dataset_name=str(source))
    before = sorted(tmp_path.iterdir())

    error = run(etl.main, "--config", config, "--set", f"output_dir={place}").one_line_error()
    assert "output_dir: " in error
    assert says in error
    assert sorted(tmp_path.iterdir()) == before


def test_every_output_of_a_config_is_of_the_type_that_is_checked() -> None:
    from bankintent import config

    outputs = {}
    for section in vars(config).values():
        for name in getattr(section, "model_fields", {}):
            if name in ("output_dir", "output"):
                outputs[section.__name__] = get_type_hints(section, include_extras=True)[name]

    assert "TrainConfig" in outputs
    assert len(outputs) >= 6
    for owner, hint in outputs.items():
        assert hint in (OutputPath, OutputPath | None), owner


def test_a_record_is_read_strictly() -> None:
    text = '{"files": {"a": {"size": 3, "sha256": "x"}}, "more": 1}'
    assert typed_json.parse(Manifest, text).files["a"].size == 3
    for wrong in (text.replace("3", '"3"'), text.replace("3", "true"), "[]", "", "{}"):
        with pytest.raises(ValueError, match="Manifest"):
            typed_json.parse(Manifest, wrong)


def test_scores_that_are_not_finite_are_counted() -> None:
    from bankintent.inference.runtime import require_finite

    logits = np.zeros((3, 2), dtype=np.float32)
    assert require_finite(logits, "m") is logits
    logits[1, 0] = np.nan
    logits[2, 1] = np.inf
    with pytest.raises(ModelError, match="m gives scores that are not finite for 2 of 3"):
        require_finite(logits, "m")


@pytest.fixture
def nan_bundle(tmp_path: Path) -> Path:
    """A sealed bundle whose head holds NaN."""
    from safetensors.numpy import load_file, save_file
    from serving_fixtures import write_tiny_bundle

    from bankintent.bundle import layout

    bundle = write_tiny_bundle(tmp_path / "nan")
    weights = bundle / layout.MERGED / "model.safetensors"
    tensors = load_file(weights)
    tensors["classifier.weight"][0, 0] = np.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    layout.seal(bundle, {"name": "nan", "base_model": "tiny-bert"})
    return bundle


def test_a_server_of_a_broken_model_ends_with_code_2(nan_bundle: Path) -> None:
    for _ in range(3):
        result = subprocess.run(
            [sys.executable, "-m", "uvicorn", "backend:app", "--port", "0"],
            cwd=REPOSITORY,
            env=environment(MODEL_DIR=str(nan_bundle)),
            capture_output=True,
            text=True,
            timeout=120,
        )
        lines = [line for line in result.stderr.splitlines() if not line.startswith("INFO:")]
        assert result.returncode == 2, result.stderr
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("error: ")
        assert "no finite number" in lines[0]


def test_an_evaluation_of_a_broken_model_is_one_line(
    run: Run, nan_bundle: Path, tmp_path: Path
) -> None:
    from serving_fixtures import LABELS

    import eval as evaluate

    table = write_csv(tmp_path / "table.csv", [(f"card {name}", name) for name in LABELS])
    words = ("--checkpoint-path", nan_bundle, "--data", table, "--set", "tracking.enabled=false")
    error = run(evaluate.main, *words).one_line_error()
    assert "no finite number" in error
    assert not (tmp_path / "artifacts" / "evals").exists()
