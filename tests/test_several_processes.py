"""Training on several processes: the same run as on one, whatever is turned on, killed or wrong."""

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, Run, train_config, write_csv, write_yaml
from recorded_training import record
from safetensors.numpy import load_file
from tiny_models import rows, tiny_encoder

import multiregime
from bankintent.bundle import layout
from bankintent.training.methods.contrastive import ContrastiveTrainer
from bankintent.training.trainer import IntentTrainer

RECORDED = REPOSITORY / "tests" / "recorded_training.py"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
FIRST_STEPS = 20
NOISE = 1e-4
"""Largest difference between the losses, and the weights, of one process and of several."""


@dataclass
class Ended:
    """How a launched run ended."""

    code: int
    output: str
    losses: list[float] = field(default_factory=list)


class Place:
    """A small dataset, an encoder without dropout, and runs of them on as many processes as asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.encoder = tiny_encoder(
            "bert",
            folder / "encoder",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )

    def config(self, **more: Any) -> Path:
        """A train.yaml without dropout and formats; batches of 8, of which the last has 3 rows."""
        settings: dict[str, Any] = {
            "epochs": 4,
            "lr": 3e-3,
            "precision": "fp32",
            "lora": {"dropout": 0.0},
            "export": {"onnx": False, "int8": False},
            "cache_dir": str(self.folder / "cache"),
        }
        model = Path(more.pop("model_name", self.encoder))
        data = Path(more.pop("data_dir", self.data))
        path = self.folder / "train.yaml"
        return train_config(path, model, data, self.folder / "out", **(settings | more))

    def run(
        self,
        output: str,
        processes: int,
        *words: str,
        kill: str = "-",
        launcher: tuple[str, ...] = (),
        is_recorded: bool = True,
        **settings: Any,
    ) -> Ended:
        """Train on so many processes into the folder `output`."""
        losses = self.folder / f"{output}.losses.json"
        start: tuple[str, ...] = (sys.executable,)
        if processes > 1:
            start = launcher or (*TORCHRUN, str(processes))
        command = [*start, RECORDED, losses if is_recorded else "-", kill]
        command += ["--config", self.config(**settings)]
        command += ["--set", f"output_dir={self.folder / output}", *words]

        done = subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
            check=False,
        )
        seen = json.loads(losses.read_text()) if losses.is_file() else []
        return Ended(done.returncode, done.stdout, seen)

    def figures(self, output: str) -> Any:
        """The content of a bundle's metrics.json."""
        return json.loads((self.folder / output / layout.METRICS).read_text())

    def weights(self, output: str) -> dict[str, Any]:
        return load_file(self.folder / output / layout.MERGED / "model.safetensors")

    def require_whole(self, output: str, run: Run) -> None:
        """Fail where `verify` does not find the bundle whole, or something else was left beside it."""
        from bankintent.commands.verify import verify

        result = run(verify, self.folder / output)
        assert result.code == 0, result.out + result.err
        assert not (self.folder / f"{output}.work").exists()
        assert not (self.folder / f".{output}.lock").exists()

    def require_same(self, first: str, second: str) -> None:
        """Fail where two bundles have other weights, epochs or figures."""
        mine = self.weights(first)
        for name, tensor in self.weights(second).items():
            assert np.abs(tensor - mine[name]).max() < NOISE, name

        one = self.figures(first)
        other = self.figures(second)
        assert one["metrics"]["val"] == pytest.approx(other["metrics"]["val"], abs=NOISE)
        assert one["training"]["published"]["epoch"] == other["training"]["published"]["epoch"]

    def require_same_steps(self, first: Ended, second: Ended) -> None:
        """Fail where the losses of two runs are not the same."""
        assert first.code == second.code == 0, first.output + second.output
        assert len(first.losses) == len(second.losses) >= FIRST_STEPS
        assert np.abs(np.subtract(first.losses, second.losses)).max() < NOISE


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The data and the encoder of all tests of this file."""
    import etl

    place = Place(tmp_path_factory.mktemp("several"))
    source = write_csv(place.folder / "small.csv", rows(21))
    etl.main(
        write_yaml(place.folder / "data.yaml", dataset_name=str(source), output_dir=str(place.data))
    )
    return place


def run_here(place: Place, run: Run, output: str, **settings: Any) -> Ended:
    """The same as `Place.run` with one process, which is this one: it saves a start."""
    losses = place.folder / f"{output}.losses.json"
    with pytest.MonkeyPatch.context() as patch:
        for kind in (IntentTrainer, ContrastiveTrainer):
            # Named here so that it is put back.
            patch.setattr(kind, "training_step", kind.training_step)
        record(losses, "-")
        config = place.config(**settings)
        where = f"output_dir={place.folder / output}"
        result = run(multiregime.main, "--config", config, "--set", where)
    return Ended(result.code, result.out + result.err, json.loads(losses.read_text()))


def test_two_processes_train_as_one(place: Place, run: Run) -> None:
    settings = {"regime": "full-ft", "gradient_accumulation": 2}
    together = place.run("quick-2", 2, **settings)
    assert together.code == 0, together.output

    alone = run_here(place, run, "quick-1", **settings)
    place.require_same_steps(alone, together)
    place.require_same("quick-1", "quick-2")
    place.require_whole("quick-2", run)

    training = place.figures("quick-2")["training"]
    assert (training["processes"], training["effective_batch"]) == (2, 16)
    assert "16 sentences in a step: 2 processes x 4 x 2 passes" in together.output
    # The main process alone speaks.
    assert together.output.count("The bundle is") == 1
    assert together.output.count("51 sentences of 3 intents") == 1


@pytest.mark.scale
@pytest.mark.parametrize("regime", ["head-only", "lora", "full-ft"])
@pytest.mark.parametrize("passes", [1, 2])
def test_every_regime_learns_the_same_on_two_processes(
    place: Place, run: Run, regime: str, passes: int
) -> None:
    name = f"{regime}-{passes}"
    words = ("--regime", regime)
    alone = place.run(f"{name}-1", 1, *words, gradient_accumulation=passes)
    together = place.run(f"{name}-2", 2, *words, gradient_accumulation=passes)

    place.require_same_steps(alone, together)
    place.require_same(f"{name}-1", f"{name}-2")
    place.require_whole(f"{name}-2", run)


@pytest.mark.scale
def test_a_last_batch_smaller_than_the_processes_loses_nothing(place: Place) -> None:
    # The last batch of each epoch has three rows.
    words = ("--regime", "full-ft")
    weights = {"class_weights": "balanced", "label_smoothing": 0.1}
    alone = place.run("few-1", 1, *words, **weights)
    together = place.run("few-4", 4, *words, **weights)

    place.require_same_steps(alone, together)
    place.require_same("few-1", "few-4")


METHODS: dict[str, dict[str, Any]] = {
    "probe": {"regime": "lora", "head_init": "probe", "label_names": True},
    "contrastive": {
        "regime": "lora",
        "head_init": "probe",
        "contrastive": {"steps": 24, "intents": 3, "sentences": 4, "hard": 1},
    },
    "contrastive on all weights": {
        "regime": "full-ft",
        "contrastive": {"steps": 24, "intents": 3, "sentences": 5},
    },
    "pseudo-labels": {
        "regime": "head-only",
        "few_shot": 6,
        "pseudo_labels": {"neighbours": 3},
    },
    "stopping early": {"regime": "full-ft", "early_stopping": 1, "epochs": 8, "keep": "best"},
}


@pytest.mark.scale
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_the_same_on_two_processes(place: Place, method: str) -> None:
    name = method.replace(" ", "-")
    alone = place.run(f"{name}-1", 1, **METHODS[method])
    together = place.run(f"{name}-2", 2, **METHODS[method])

    assert alone.code == together.code == 0, alone.output + together.output
    assert len(alone.losses) == len(together.losses) > 0
    assert np.abs(np.subtract(alone.losses, together.losses)).max() < NOISE
    place.require_same(f"{name}-1", f"{name}-2")
    tables = sorted(path.name for path in place.folder.glob(f"{name}-?.*.csv"))
    assert len(tables) in (0, 2)
    texts = {(place.folder / table).read_text() for table in tables}
    assert len(texts) <= 1


@pytest.mark.scale
def test_a_student_learns_the_same_on_two_processes(place: Place) -> None:
    taught = place.run("teacher", 1, "--regime", "full-ft")
    assert taught.code == 0, taught.output
    student: dict[str, Any] = {
        "regime": "full-ft",
        "model_name": place.folder / "teacher",
        "distill": {"layers": 1},
    }
    alone = place.run("student-1", 1, **student)
    # Three rows in the last batch: one of the processes has a filler there.
    together = place.run("student-4", 4, **student)

    place.require_same_steps(alone, together)
    place.require_same("student-1", "student-4")


@pytest.mark.scale
def test_folds_are_judged_the_same_on_two_processes(place: Place) -> None:
    import etl
    from bankintent.corpus import division

    folder = place.folder / "cross"
    folder.mkdir()
    source = write_csv(folder / "small.csv", rows(8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(division, "CROSS_BELOW", 1000)
        etl.main(
            write_yaml(
                folder / "data.yaml", dataset_name=str(source), output_dir=str(folder / "data")
            )
        )

    cross = {"data_dir": str(folder / "data"), "epochs": 2, "regime": "lora"}
    alone = place.run("cross-1", 1, **cross)
    together = place.run("cross-2", 2, **cross)
    assert alone.code == together.code == 0, alone.output + together.output
    assert np.abs(np.subtract(alone.losses, together.losses)).max() < NOISE
    place.require_same("cross-1", "cross-2")


@pytest.mark.scale
def test_further_trainings_for_a_policy_are_the_same_on_two_processes(tmp_path: Path) -> None:
    import etl

    place = Place(tmp_path)
    source = write_csv(tmp_path / "small.csv", rows(60))
    etl.main(
        write_yaml(tmp_path / "data.yaml", dataset_name=str(source), output_dir=str(place.data))
    )
    policies = []
    for processes in (1, 2):
        output = f"fitted-{processes}"
        ended = place.run(output, processes, regime="head-only", head_init="probe", epochs=1)
        assert ended.code == 0, ended.output
        assert "5 further trainings" in ended.output
        policy = tmp_path / output / "policy.json"
        policies.append(json.loads(policy.read_text()))
    assert policies[0].keys() == policies[1].keys()
    place.require_same("fitted-1", "fitted-2")


@pytest.mark.scale
@pytest.mark.parametrize("killed", [0, 1])
def test_a_run_of_which_a_process_is_killed_ends_and_goes_on(
    place: Place, run: Run, killed: int
) -> None:
    output = f"killed-{killed}"
    # In the third of four epochs of seven steps.
    cut = place.run(output, 2, "--regime", "lora", kill=f"{killed}:17")
    assert cut.code != 0
    assert not (place.folder / output).exists()

    resumed = place.run(output, 2, "--regime", "lora")
    assert resumed.code == 0, resumed.output
    assert "Going on from" in resumed.output
    assert len(resumed.losses) == 2 * 7
    place.require_whole(output, run)
    whole = place.run(f"whole-{killed}", 2, "--regime", "lora")
    assert whole.code == 0
    place.require_same(f"whole-{killed}", output)


@pytest.mark.scale
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (4, 2)])
def test_a_run_goes_on_with_another_number_of_processes(
    place: Place, before: int, after: int
) -> None:
    output = f"changed-{before}-{after}"
    cut = place.run(output, before, "--regime", "full-ft", kill="0:17")
    assert cut.code != 0

    resumed = place.run(output, after, "--regime", "full-ft")
    assert resumed.code == 0, resumed.output
    assert "Going on from" in resumed.output
    whole = place.run(f"{output}-whole", 1, "--regime", "full-ft")
    assert whole.losses[14:] == pytest.approx(resumed.losses, abs=NOISE)
    place.require_same(f"{output}-whole", output)


@pytest.mark.scale
def test_accelerate_launches_the_same_run(place: Place, run: Run) -> None:
    settings = REPOSITORY / "configs" / "accelerate" / "gpus.yml"
    launch = "from accelerate.commands.launch import main; main()"
    launcher = (sys.executable, "-c", launch, "--config_file", str(settings))

    # Without a GPU the processes are those of a CPU.
    launched = place.run("launched-2", 2, "--regime", "lora", launcher=launcher)
    alone = place.run("launched-1", 1, "--regime", "lora")
    place.require_same_steps(alone, launched)
    place.require_same("launched-1", "launched-2")
    place.require_whole("launched-2", run)


@pytest.mark.scale
def test_a_mistake_is_said_once_and_ends_all(place: Place) -> None:
    for words, said in (
        (("--set", "batch_size=7"), "batch_size 7 cannot be divided among 2 processes"),
        (("--set", "model_name=/nowhere/at/all"), "/nowhere/at/all"),
        (("--set", "data_dir=/nowhere/at/all"), "/nowhere/at/all"),
        (("--set", "epochs=none"), "epochs"),
    ):
        ended = place.run("wrong", 2, "--regime", "lora", *words)
        assert ended.code != 0
        errors = [line for line in ended.output.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, ended.output
        assert said in errors[0]
        assert "site-packages/torch/nn" not in ended.output
        assert not (place.folder / "wrong").exists()
        assert not (place.folder / "wrong.work").exists()


@pytest.mark.scale
def test_a_batch_of_the_contrastive_stage_has_a_row_for_each_process(place: Place) -> None:
    ended = place.run("rows", 4, regime="lora", contrastive={"steps": 2, "intents": 2})
    assert ended.code != 0
    assert "a batch of the contrastive stage has 2 rows, fewer than the 4 processes" in ended.output


@pytest.mark.scale
def test_a_finished_run_is_left_as_it_is_by_all(place: Place) -> None:
    first = place.run("finished", 2, "--regime", "lora")
    assert first.code == 0, first.output
    before = (place.folder / "finished" / layout.MANIFEST).read_bytes()

    again = place.run("finished", 2, "--regime", "lora", is_recorded=False)
    assert again.code == 0, again.output
    assert again.output.count("nothing to do") == 1
    assert (place.folder / "finished" / layout.MANIFEST).read_bytes() == before


@pytest.mark.scale
@pytest.mark.fresh_process
def test_what_a_run_starts_and_tracks_is_of_one_process(place: Place, run: Run) -> None:
    """The command as users have it: formats, a fresh process for the check, MLflow."""
    tracking = {
        "enabled": True,
        "uri": f"sqlite:///{place.folder}/mlflow.db",
        "artifacts": str(place.folder / "mlruns"),
    }
    config = place.config(export={"onnx": True, "int8": True}, tracking=tracking)
    command = [*TORCHRUN, "2", "-m", "multiregime", "--config", str(config), "--regime", "lora"]
    command += ["--set", f"output_dir={place.folder / 'tracked'}"]
    done = subprocess.run(
        command,
        cwd=place.folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (place.folder / "tracked" / layout.ONNX).is_dir()
    place.require_whole("tracked", run)

    with sqlite3.connect(place.folder / "mlflow.db") as store:
        statuses = store.execute("select status from runs").fetchall()
    assert statuses == [("FINISHED",)]
