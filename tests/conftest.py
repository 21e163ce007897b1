"""Tiny models, a small dataset, and a way to run a command as a user would, inside the test process."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One thread for each of the processes that `make test` runs side by side: more than cores cost far more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ["HF_HUB_OFFLINE"] = (
    "1"  # the Hub's tests run in processes of their own, against a stand-in
)

import pytest

from bankintent import cli, process

process.quiet_libraries()

REPOSITORY = Path(__file__).parents[1]
DATASETS = Path(os.environ.get("BANKINTENT_DATASETS", REPOSITORY.parent / "shared" / "datasets"))

needs_datasets = pytest.mark.skipif(
    not DATASETS.is_dir(), reason="the real datasets are not at hand (set BANKINTENT_DATASETS)"
)

EXPECTED_SKIPS = ("the real datasets are not at hand",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest comes first, or one of two processes would end long before the other."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    """With REQUIRE_NO_SKIPS set, a test that skips for an unexpected reason is a failure."""
    report = yield
    if report.skipped and os.environ.get("REQUIRE_NO_SKIPS") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr)
        if not any(expected in reason for expected in EXPECTED_SKIPS):
            report.outcome, report.longrepr = "failed", f"unexpected skip: {reason}"
    return report


INTENTS = {
    "card_lost": [
        "i lost my card",
        "my card is gone",
        "card stolen on the train",
        "cannot find my card anywhere",
    ],
    "top_up": [
        "how do i top up",
        "add money to my account",
        "top up with a card",
        "i want to add funds",
    ],
    "Exchange": [
        "what is the exchange rate",
        "change euros to pounds",
        "exchange currency in the app",
        "rate today",
    ],
}


def rows(per_intent: int = 20) -> list[tuple[str, str]]:
    """(text, label) pairs, all different."""
    return [
        (f"{phrases[i % len(phrases)]} number {i}", label)
        for label, phrases in INTENTS.items()
        for i in range(per_intent)
    ]


def write_csv(path: Path, pairs: list[tuple[str, str]], header: str = "text,label") -> Path:
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(pairs)
    return path


def write_yaml(path: Path, **values: Any) -> Path:
    import yaml

    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


@dataclass
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def one_line_error(self) -> str:
        """The error line of a refused command; fails where it was not refused, or not in one clear line."""
        assert self.code == 2, (self.code, self.out, self.err)
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in self.out + self.err
        return lines[0]


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call a command's main with command-line words: `run(etl.main, "--config", path)`."""

    def call(command: Callable[..., Any], *words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.run(command)
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return Result(int(code), captured.out, captured.err)

    return call


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, so that relative outputs never meet."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data_dir(tmp_path: Path, run: Run) -> Path:
    """ETL's output of the small dataset."""
    import etl

    source = write_csv(tmp_path / "small.csv", rows())
    config = write_yaml(
        tmp_path / "data.yaml", dataset_name=str(source), output_dir=str(tmp_path / "data")
    )
    result = run(etl.main, "--config", config)
    assert result.code == 0, result.err
    return tmp_path / "data"


@pytest.fixture(scope="session")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data.yaml`, `data/` and `bundle/`, a small LoRA run that names them relative to the folder."""
    import etl
    import multiregime

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        source = write_csv(folder / "small.csv", rows())
        etl.main(write_yaml(folder / "data.yaml", dataset_name=str(source), output_dir="data"))
        config = train_config(
            folder / "train.yaml", tiny_bert, Path("data"), Path("bundle"), epochs=6, lr=5e-3
        )
        multiregime.main(config, regime="lora")
    return folder


@pytest.fixture
def bundle(trained: Path, tmp_path: Path) -> Path:
    """A copy of the small bundle, with its data beside it, for this test alone."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "bundle"


ARCHITECTURES = ("bert", "roberta", "distilbert", "deberta-v2", "modernbert", "electra")


def tiny_tokenizer(texts: list[str]) -> Any:
    """Every word of `texts` and its characters, with the special tokens that every architecture here can use.

    A trained vocabulary would be another in every process: the trainer breaks ties at random.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = {
        word
        for text in texts
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    }
    characters = {character for word in words for character in word}
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words | characters)]
    pieces += sorted("##" + character for character in characters)
    tokenizer = Tokenizer(
        models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    )


def tiny_encoder(architecture: str, folder: Path, seed: int = 0) -> Path:
    """Save a randomly initialised encoder (no classification head) as its pretrained checkpoint would be."""
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer([text for text, _ in rows()])
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    extra: dict[str, Any] = {
        "intermediate_size": 48,
        "max_position_embeddings": 66,
        "pad_token_id": 0,
    }
    match architecture:
        case "distilbert":
            sizes = {"vocab_size": len(tokenizer), "dim": 32, "n_layers": 2, "n_heads": 4}
            extra = {"hidden_dim": 48, "max_position_embeddings": 66, "pad_token_id": 0}
        case "deberta-v2":
            extra |= {
                "relative_attention": True,
                "position_buckets": 8,
                "pos_att_type": ["p2c", "c2p"],
            }
            extra |= {
                "share_att_key": True,
                "norm_rel_ebd": "layer_norm",
                "type_vocab_size": 0,
                "position_biased_input": False,
            }
        case "electra":
            extra |= {"embedding_size": 16}
        case "modernbert":
            extra |= {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    config = AutoConfig.for_model(architecture, **sizes, **extra)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


NLI_LABELS = ("contradiction", "neutral", "entailment")


def tiny_nli(
    folder: Path, architecture: str = "bert", labels: tuple[str, ...] = NLI_LABELS
) -> Path:
    """Save a random model of natural language inference whose answers differ from pair to pair."""
    import torch
    from tokenizers import processors
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer([text for text, _ in rows()])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.5,
    }
    if architecture == "bart":
        sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.5}
        sizes |= {
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
        }
        sizes |= {"bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 3}
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        max_position_embeddings=66,
        pad_token_id=0,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        **sizes,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder("bert", tmp_path_factory.mktemp("tiny-bert"))


def train_config(path: Path, model: Path, data_dir: Path, output_dir: Path, **more: Any) -> Path:
    """A train.yaml for a tiny run without tracking."""
    settings: dict[str, Any] = {
        "model_name": str(model),
        "data_dir": str(data_dir),
        "output_dir": str(output_dir),
        "epochs": 2,
        "batch_size": 8,
        "max_length": 32,
        "precision": "fp32",
        "lora": {"r": 4},
        "export": {"onnx": False},  # it takes seconds; tests/test_export.py has it on
        "tracking": {"enabled": False},
    }
    return write_yaml(path, **(settings | more))
