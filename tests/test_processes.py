"""What a run on several processes rests on, tried without a second process; with one: test_several_processes."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run, train_config

import bankintent
import multiregime
from bankintent import console, process
from bankintent.config import DistillSection
from bankintent.errors import ConfigError, OutputError, ProcessEnded, UserError
from bankintent.training import checkpoints, processes
from bankintent.training.batch_share import BatchShare, RowsWithFillers, own_share
from bankintent.training.losses import NO_ROW, IntentLoss
from bankintent.training.methods.distillation import TaughtLoss


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has the variables of the second of two."""
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("count", [2, 3, 4, 7])
def test_each_row_of_a_batch_is_of_one_process(count: int) -> None:
    for size in range(1, 12):
        batch = list(range(100, 100 + size))
        shares = [own_share(batch, rank, count) for rank in range(count)]

        rows = [number for share in shares for number in share if number >= 0]
        assert sorted(rows) == batch
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        # One that has no row takes part with a filler.
        assert min(sizes) >= 1
        assert sum(number < 0 for share in shares for number in share) == max(count - size, 0)


def test_the_order_of_an_epoch_is_that_of_its_sampler() -> None:
    share = BatchShare([4, 2, 0, 1, 3], 2)
    assert len(share) == 3
    # Without a second process its share is all.
    assert list(share) == [[4, 2], [0, 1], [3]]


def test_a_filler_is_a_row_without_a_label() -> None:
    rows = RowsWithFillers([{"input_ids": [1], "labels": 0}, {"input_ids": [2, 3], "labels": 1}])
    assert rows[1] == {"input_ids": [2, 3], "labels": 1}
    assert rows[own_share([1], 1, 2)[0]] == {"input_ids": [2, 3], "labels": NO_ROW}
    assert len(rows) == 2


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.0])])
def test_a_filler_changes_no_loss(weights: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 3)
    teacher = torch.randn(4, 3)
    labels = torch.tensor([0, 2, 1, NO_ROW])
    count = torch.tensor(3)

    loss = IntentLoss(0.1, weights)
    whole = loss(SimpleNamespace(logits=logits[:3]), labels[:3], count)
    filled = loss(SimpleNamespace(logits=logits), labels, count)
    assert filled.item() == pytest.approx(whole.item())

    taught = TaughtLoss(loss, DistillSection(layers=1))
    whole = taught(SimpleNamespace(logits=logits[:3]), (labels[:3], teacher[:3]), count)
    filled = taught(SimpleNamespace(logits=logits), (labels, teacher), count)
    assert filled.item() == pytest.approx(whole.item())
    # A process that has nothing but fillers still has something to go backward from.
    nothing = taught(
        SimpleNamespace(logits=logits[3:].requires_grad_()), (labels[3:], teacher[3:]), count
    )
    assert nothing.item() == 0
    nothing.backward()


def test_a_batch_that_cannot_be_divided_is_refused_in_one_line(
    run: Run, data_dir: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    config = train_config(tmp_path / "train.yaml", tiny_bert, data_dir, tmp_path / "out")

    said = run(multiregime.main, "--config", config, "--regime", "lora").one_line_error()

    assert "batch_size 8 cannot be divided among 3 processes" in said
    assert "--set batch_size=6 or 9" in said
    assert not (tmp_path / "out.work").exists()


@pytest.mark.usefixtures("second_of_two")
@pytest.mark.parametrize(("variable", "kind"), processes.DIVIDING.items())
def test_weights_are_not_divided(monkeypatch: pytest.MonkeyPatch, variable: str, kind: str) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(ConfigError, match=kind), processes.joined(batch_size=8):
        pass


@pytest.mark.usefixtures("second_of_two")
def test_a_mistake_is_left_to_the_main_process(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)

    # Nobody has ended it: the mistake is this process's own, and is said.
    said = run(multiregime.main, "--config", tmp_path / "none.yaml").one_line_error()

    assert waited == [process.MAIN_SPEAKS]
    assert "none.yaml" in said


@pytest.mark.usefixtures("second_of_two")
def test_a_restart_by_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(ConfigError, match="--max-restarts"), processes.joined(batch_size=8):
        pass


@pytest.mark.usefixtures("second_of_two")
def test_the_python_function_is_for_one_process(tiny_bert: Path) -> None:
    with pytest.raises(UserError, match="one process, and 2 were started"):
        bankintent.train({"model_name": str(tiny_bert), "output_dir": "out"}, regime="lora")


@pytest.mark.usefixtures("second_of_two")
def test_a_process_that_another_has_left_says_nothing(run: Run) -> None:
    def ended() -> None:
        raise ProcessEnded("another process of this run has ended")

    result = run(ended)
    assert (result.code, result.out, result.err) == (2, "", "")


def test_a_fault_of_a_connection_is_said_in_one_line() -> None:
    ended = pytest.raises(ProcessEnded, match="another process of this run has ended")
    with ended, processes._explained():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]")
    with pytest.raises(RuntimeError, match="mat1 and mat2"), processes._explained():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_without_a_launcher_there_is_one_process() -> None:
    assert (processes.count(), processes.rank(), processes.is_main()) == (1, 0, True)
    table = torch.ones(2, 3)
    assert processes.table_from_main(lambda: table) is table
    assert processes.from_main(lambda: Path("as it is")) == Path("as it is")
    assert processes.go_on_alone()
    logits = np.ones((2, 2), dtype=np.float32)
    processes.added(logits)
    assert logits.tolist() == [[1, 1], [1, 1]]
    assert not console.stdout.quiet


def test_a_process_that_a_run_starts_knows_of_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_RUN_ID", "ACCELERATE_USE_FSDP")
    for name in names:
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("KEPT", "yes")
    (tmp_path / "tell.py").write_text("import json, os; print(json.dumps(dict(os.environ)))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert process.run_module("tell", [], tmp_path / "log") is None

    seen = json.loads((tmp_path / "log").read_text())
    assert seen["KEPT"] == "yes"
    assert not set(names) & set(seen)
    process.forget_launch()
    assert not set(names) & set(os.environ)


def test_one_process_of_a_launcher_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with processes.joined(batch_size=8):
        assert processes.count() == 1
        assert "MASTER_PORT" not in os.environ


def test_a_folder_that_is_not_shared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "SEEN_AFTER", 0.0)
    with pytest.raises(OutputError, match="file system that all machines share"):
        processes.require_shared(tmp_path / "out.work" / "run.json", tmp_path / "out")


def test_more_processes_than_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 4)
    processes.require_rows(4, "contrastive.intents")
    with pytest.raises(ConfigError, match="has 3 rows, fewer than the 4 processes"):
        processes.require_rows(3, "contrastive.intents")


@pytest.mark.parametrize(
    ("written", "number", "found"),
    [
        ("rng_state.pth", 1, "rng_state.pth"),
        ("rng_state.pth", 2, "rng_state_0.pth"),
        ("rng_state_0.pth", 1, "rng_state.pth"),
        ("rng_state_0.pth", 3, "rng_state_0.pth"),
    ],
)
def test_the_state_of_random_numbers_is_found_by_any_number_of_processes(
    tmp_path: Path, written: str, number: int, found: str
) -> None:
    (tmp_path / written).write_bytes(b"state")
    with checkpoints.own_random_state(str(tmp_path), number) as folder:
        assert folder is not None
        assert (Path(folder) / found).read_bytes() == b"state"
    # A checkpoint with a file more than it was marked with would not be believed.
    assert [path.name for path in tmp_path.iterdir()] == [written]
    with checkpoints.own_random_state(None, number) as folder:
        assert folder is None


def test_a_model_with_idle_weights_is_told(tiny_bert: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from bankintent.training.forward_check import has_idle_weights

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_bert)
    model: Any = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    assert not has_idle_weights(model, tokenizer)
    model.register_parameter("idle", torch.nn.Parameter(torch.ones(1)))
    assert has_idle_weights(model, tokenizer)
