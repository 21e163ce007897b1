"""The real Hub loading code, in processes of its own, against a stand-in on loopback."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, train_config, write_yaml
from fake_hub import running_hub
from tiny_models import rows, tiny_encoder, tiny_nli

from bankintent.corpus import dataset
from bankintent.corpus.sources import HUB_ALIASES
from bankintent.process import free_port


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """(folder that the stand-in serves, its address)."""
    root = tmp_path_factory.mktemp("hub")
    with running_hub(root, tmp_path_factory.mktemp("hub-log")) as address:
        yield root, address


def python(
    *words: str, cwd: Path, address: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in a process that asks the Hub at `address`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env = inherited | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(cwd / "hf"),
        "PYTHONPATH": str(REPOSITORY),
        **variables,
    }
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=cwd, env=env
    )


def command(
    module: str, *words: object, cwd: Path, address: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run one of the commands in such a process."""
    return python("-m", module, *map(str, words), cwd=cwd, address=address, **variables)


def publish_banking77(root: Path, commit: str, note: str = "") -> None:
    """A dataset shaped as the pinned copy: JSONL with text, an integer label and label_text."""
    repository, _ = HUB_ALIASES["banking77"]
    folder = root / "datasets" / repository / commit
    folder.mkdir(parents=True)
    for split, count in (("train", 20), ("test", 5)):
        lines = [
            {"text": f"{t} {split}{note}", "label": 0, "label_text": label}
            for t, label in rows(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def test_the_name_banking77_loads_its_pinned_revision_and_no_other(
    hub: tuple[Path, str], tmp_path: Path
) -> None:
    root, address = hub
    repository, pinned = HUB_ALIASES["banking77"]
    publish_banking77(root, pinned)
    publish_banking77(root, "main", note=" newer")
    config = write_yaml(
        tmp_path / "data.yaml", dataset_name="banking77", split="official", output_dir="out"
    )
    done = command("etl", "--cfg-path", config, cwd=tmp_path, address=address)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["source"]["repository"] == repository
    assert manifest["source"]["revision"] == pinned
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["id2label"]["1"] == "Exchange"

    # The Hub goes away: the cache must not stand in for another revision without a word.
    other = "f" * 40
    gone = f"http://127.0.0.1:{free_port()}"
    words = ("--config", config, "--set", f"revision={other}", "--set", "output_dir=out2")
    stale = command("etl", *words, cwd=tmp_path, address=gone, HF_HUB_OFFLINE="1")
    assert stale.returncode == 2, stale.stdout
    assert f"expected {other}" in stale.stderr
    assert len(stale.stderr.strip().splitlines()) == 1, stale.stderr
    assert not (tmp_path / "out2").exists()
    cached = command(
        "etl",
        "--config",
        config,
        "--set",
        "output_dir=out3",
        cwd=tmp_path,
        address=gone,
        HF_HUB_OFFLINE="1",
    )
    assert cached.returncode == 0, cached.stderr
    assert (tmp_path / "out3" / "train.parquet").read_bytes() == (
        tmp_path / "out" / "train.parquet"
    ).read_bytes()


def test_a_class_label_keeps_its_order(hub: tuple[Path, str], tmp_path: Path) -> None:
    import datasets

    root, address = hub
    names = ["top_up", "Exchange", "card_lost"]
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=names),
            "via": datasets.ClassLabel(names=["app", "web"]),
        }
    )
    folder = root / "datasets" / "someone" / "intents" / "main"
    folder.mkdir(parents=True)
    table = {"text": [t for t, _ in rows()], "label": [names.index(label) for _, label in rows()]}
    table["via"] = [1] * len(rows())
    datasets.Dataset.from_dict(table, features=features).to_parquet(folder / "train.parquet")
    more = {"output_dir": "out", "keep_columns": ["via"]}
    config = write_yaml(tmp_path / "data.yaml", dataset_name="someone/intents", **more)
    done = command("etl", "--config", config, cwd=tmp_path, address=address)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "labels.json").read_text())["label2id"] == {
        n: i for i, n in enumerate(names)
    }
    train = dataset.load(tmp_path / "out").read("train")
    assert set(train.columns["via"]) == {"web"}


def test_a_hub_dataset_is_the_same_with_its_rows_on_disk(
    hub: tuple[Path, str], tmp_path: Path
) -> None:
    root, address = hub
    folder = root / "datasets" / "someone" / "plenty" / "main"
    folder.mkdir(parents=True)
    lines = []
    for number in range(600):
        row = {"text": f"sentence {number * number} é", "label": f"intent {number % 3}"}
        lines.append(json.dumps(row))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")

    reports = []
    for engine in ("memory", "duckdb"):
        keys = {"dataset_name": "someone/plenty", "split": "stable", "output_dir": engine}
        config = write_yaml(tmp_path / f"{engine}.yaml", **keys, engine=engine)
        done = command("etl", "--config", config, cwd=tmp_path, address=address)
        assert done.returncode == 0, done.stderr
        reports.append(json.loads((tmp_path / engine / "report.json").read_text()))
    assert reports[0] == reports[1]
    assert (tmp_path / "duckdb" / "labels.json").read_bytes() == (
        tmp_path / "memory" / "labels.json"
    ).read_bytes()


def test_what_the_hub_does_not_have_is_one_line(hub: tuple[Path, str], tmp_path: Path) -> None:
    root, address = hub
    folder = root / "datasets" / "someone" / "scripted" / "main"
    folder.mkdir(parents=True)
    (folder / "scripted.py").write_text("raise SystemExit\n")
    for name, expected in (
        ("someone/nothing", "cannot be loaded"),
        ("someone/scripted", "loading script"),
    ):
        config = write_yaml(tmp_path / "data.yaml", dataset_name=name, output_dir="out")
        done = command("etl", "--config", config, cwd=tmp_path, address=address)
        assert done.returncode == 2
        assert expected in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


def test_an_unreachable_hub_is_said_at_once_with_the_local_choices(
    data_dir: Path, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    config = write_yaml(tmp_path / "hub.yaml", dataset_name="banking77", output_dir="out")
    started = time.monotonic()
    data = command("etl", "--config", config, cwd=tmp_path, address=address)
    train = train_config(
        tmp_path / "train.yaml", Path("microsoft/deberta-v3-base"), data_dir, tmp_path / "bundle"
    )
    model = command(
        "multiregime", "--config", train, "--regime", "lora", cwd=tmp_path, address=address
    )
    # The Hub's own client would take 23 to 47 seconds for each; this bound only tells the two apart on a busy machine.
    assert time.monotonic() - started < 80
    shipped = (
        "--config",
        REPOSITORY / "configs" / "baseline.yaml",
        "--set",
        f"data_dir={data_dir}",
    )
    nli = command("baseline", *shipped, cwd=tmp_path, address=address)
    choices = {
        "dataset_name=bundled": data,
        "model_name=bundled/all-MiniLM-L6-v2": model,
        "--set nli.model_name=FOLDER": nli,
    }
    for choice, done in choices.items():
        assert done.returncode == 2
        assert "cannot be reached" in done.stderr
        assert choice in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "bundle").exists()
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.proof
def test_the_shipped_baseline_takes_its_nli_model_from_the_hub(
    hub: tuple[Path, str], data_dir: Path, tmp_path: Path
) -> None:
    root, address = hub
    tiny_nli(root / "models" / "facebook" / "bart-large-mnli" / "main", "bart")
    words = ["--config", REPOSITORY / "configs" / "baseline.yaml"]
    for setting in (
        "references=[nli]",
        f"data_dir={data_dir}",
        "nli.max_length=64",
        "tracking.enabled=false",
    ):
        words += ["--set", setting]
    done = command("baseline", *words, cwd=tmp_path, address=address)
    assert done.returncode == 0, done.stderr
    assert "nli: entailment by facebook/bart-large-mnli" in done.stdout
    assert (tmp_path / "artifacts" / "evals" / "banking77-baseline-nli" / "metrics.json").is_file()


@pytest.fixture(scope="module")
def deberta(hub: tuple[Path, str]) -> str:
    """The name of a tiny DeBERTa on the stand-in.

    As on the Hub, its main branch holds a pickle only, which is not read, and the Hub's bot offers safetensors in a
    pull request; here those are in fp16, which must not become the precision of training.
    """
    import torch
    from transformers import AutoModel

    name = "microsoft/deberta-v3-base"
    folder = hub[0] / "models" / name / "main"
    tiny_encoder("deberta-v2", folder)
    offered = folder.with_name("refs%pr%1")
    AutoModel.from_pretrained(folder).to(torch.float16).save_pretrained(offered)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never to be opened")
    return name


def test_weights_that_are_offered_in_a_pull_request_are_read_as_float32(
    hub: tuple[Path, str], deberta: str, tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        "from bankintent.labels import LabelSchema\n"
        "from bankintent.training import backbones\n"
        "backbone = backbones.load_backbone(sys.argv[1], LabelSchema(('a', 'b')), 32)\n"
        "print({str(weight.dtype) for weight in backbone.model.parameters()})\n"
    )
    done = python("-c", program, deberta, cwd=tmp_path, address=hub[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'torch.float32'}\n"


@pytest.mark.proof
def test_the_original_configs_run_unchanged_where_the_hub_can_be_reached(
    hub: tuple[Path, str], deberta: str, tmp_path: Path
) -> None:
    """configs/data.yaml and configs/train.yaml, the latter on a tiny DeBERTa of the same name."""
    root, address = hub
    if not (root / "datasets" / HUB_ALIASES["banking77"][0]).exists():
        publish_banking77(root, HUB_ALIASES["banking77"][1])
    data = command(
        "etl", "--cfg-path", REPOSITORY / "configs" / "data.yaml", cwd=tmp_path, address=address
    )
    assert data.returncode == 0, data.stderr
    words = (
        "--train-config",
        REPOSITORY / "configs" / "train.yaml",
        "--regime",
        "lora",
        "--set",
        "max_length=64",
        "--set",
        "epochs=2",
    )
    train = command("multiregime", *words, cwd=tmp_path, address=address)
    assert train.returncode == 0, train.stderr
    assert '"output_proj", which matches nothing' in train.stdout
    bundle = tmp_path / "artifacts" / "models" / "deberta_lora"
    from safetensors.numpy import load_file

    assert {
        tensor.dtype.name for tensor in load_file(bundle / "merged" / "model.safetensors").values()
    } == {"float32"}
    adapter = json.loads((bundle / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == deberta
    assert set(adapter["modules_to_save"]) >= {"classifier", "pooler"}
    done = command("eval", "--checkpoint_path", bundle, cwd=tmp_path, address=address)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "artifacts" / "mlflow.db").is_file()
