"""Every class of sequence classification, on tiny random models: published, or refused in one line.

What must hold of an architecture and a recipe: the run ends with a bundle, or with a UserError
before the first training step and before the encoder has read the data.
"""

import contextlib
import io
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import checked_in_this_process, train_config, write_csv, write_yaml
from tiny_architectures import architectures, tiny_classifier
from tiny_models import MAX_POSITIONS, rows

from bankintent.errors import UserError
from faults.tally import Tally

CONTRASTIVE = {"steps": 2, "intents": 3, "sentences": 2}

RECIPES: dict[str, dict[str, Any]] = {
    "head-only": {"regime": "head-only"},
    "head-only, probe": {"regime": "head-only", "head_init": "probe"},
    "lora": {"regime": "lora"},
    "lora, probe": {"regime": "lora", "head_init": "probe"},
    "full-ft": {"regime": "full-ft"},
    "full-ft, probe": {"regime": "full-ft", "head_init": "probe"},
    "head-only, mean": {"regime": "head-only", "pooling": "mean"},
    "lora, contrastive": {"regime": "lora", "contrastive": CONTRASTIVE},
    "full-ft, contrastive": {"regime": "full-ft", "contrastive": CONTRASTIVE | {"hard": 1}},
    "lora, no such module": {"regime": "lora", "lora": {"target_modules": ["nothing"]}},
    "max_length above the positions": {
        "regime": "full-ft",
        "max_length": MAX_POSITIONS + 1,
        "long": True,
    },
    "full-ft, exported": {"regime": "full-ft", "export": {"onnx": True, "int8": False}},
}
"""What is tried of each architecture; `long` adds a sentence of that many tokens."""

PUBLISHED = "published"


@dataclass(frozen=True)
class Outcome:
    """How one run ended."""

    ending: str
    """PUBLISHED, the one line of a refusal, or the fault."""
    is_fault: bool
    left_out: dict[str, str]
    """Formats of a published bundle that were left out, each with its reason."""


class Watch:
    """Counts what takes long: training steps and readings of the data by a frozen encoder."""

    def __init__(self) -> None:
        self.begun = 0

    def watch(self, patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        """Count each call of `owner.name` until the patch is undone."""
        original = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.begun += 1
            return original(*arguments, **options)

        patch.setattr(owner, name, counted)


def run(count: int) -> Tally:
    """Every recipe on every architecture, at most `count` of them."""
    tally = Tally("architectures")
    for architecture, recipe, outcome in outcomes(architectures(), tuple(RECIPES), count):
        fault = outcome.ending if outcome.is_fault else None
        tally.add(f"{architecture}, {recipe}", fault)
    return tally


def outcomes(
    names: list[str], recipes: tuple[str, ...], count: int = 10_000
) -> Iterator[tuple[str, str, Outcome]]:
    """The outcome of each recipe on each architecture, at most `count` of them."""
    tried = 0
    with workplace() as folder:
        for architecture in names:
            model = folder / architecture
            tiny_classifier(architecture, model, **tokenizer_options(architecture))
            for recipe in recipes:
                if tried == count:
                    return
                tried += 1
                yield architecture, recipe, attempt(folder, model, RECIPES[recipe])
            shutil.rmtree(model)


def tokenizer_options(architecture: str) -> dict[str, Any]:
    """How the real tokenizers of an architecture differ from the tiny one."""
    return {"padding_side": "left"} if architecture == "xlnet" else {}


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder with the small dataset in `data` and, with one long sentence more, in `long`."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(checked_in_this_process())
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("bankintent.corpus.division.CROSS_BELOW", 0)
        patch.setenv("HF_HUB_OFFLINE", "1")
        # They take half of the time, and no architecture makes a difference to them.
        patch.setattr("bankintent.bundle.card.write", lambda *_: None)
        patch.setattr("accelerate.utils.memory.gc.collect", lambda *_: 0)

        small = rows(8)
        long_texts = [
            (" ".join(["card"] * (MAX_POSITIONS + number)), "top_up") for number in range(8)
        ]
        write_dataset(folder / "data", small)
        write_dataset(folder / "long", small + long_texts)
        yield folder


def write_dataset(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """ETL's output of (text, label) pairs."""
    import etl

    source = write_csv(folder.with_suffix(".csv"), pairs)
    config = write_yaml(
        folder.with_suffix(".yaml"), dataset_name=str(source), output_dir=str(folder)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        etl.main(config)


def attempt(folder: Path, model: Path, settings: dict[str, Any]) -> Outcome:
    """Train and publish as `multiregime` does; what it prints is not shown."""
    import torch
    from transformers import Trainer

    from bankintent.config import TrainConfig
    from bankintent.configfile import load
    from bankintent.corpus import dataset
    from bankintent.training import features, run

    settings = dict(settings)
    data = folder / ("long" if settings.pop("long", False) else "data")
    bundle = folder / "bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    settings |= {"epochs": 1, "cache_dir": str(folder / "cache")}
    config = load(TrainConfig, train_config(folder / "train.yaml", model, data, bundle, **settings))

    watch = Watch()
    torch.manual_seed(0)
    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(output):
        watch.watch(patch, Trainer, "training_step")
        watch.watch(patch, features, "compute")
        try:
            run.train(config, dataset.load(config.data_dir), overwrite=True)
        except UserError as refusal:
            return judge_refusal(str(refusal), watch)
        except Exception as error:  # noqa: BLE001 (any other is what is looked for)
            return Outcome(describe(error), True, {})
    return Outcome(PUBLISHED, False, left_out(bundle))


def judge_refusal(line: str, watch: Watch) -> Outcome:
    """A refusal holds where nothing long was begun before it."""
    if watch.begun:
        return Outcome(f"refused after {watch.begun} steps: {line}", True, {})
    return Outcome(line, False, {})


def describe(error: Exception) -> str:
    """An error that is no UserError, in one line, with the place that it comes from."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    cause = " ".join(str(error).split())[:200]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {cause}"


def left_out(bundle: Path) -> dict[str, str]:
    """The formats that a published bundle lacks, with the reasons."""
    from bankintent.bundle import layout

    return layout.read_manifest(bundle).left_out
