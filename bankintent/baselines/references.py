"""What is had without training an encoder: trivial and zero-shot references, measured as every trained model is.

A reference is one function from a `Task` to an `Answer` and one line of `REFERENCES`.
"""

import contextlib
import difflib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bankintent import console
from bankintent.config import BaselineConfig
from bankintent.errors import ConfigError, LabelError
from bankintent.labels import LabelSchema

# What is heavy is imported by the references that use it: a wrong config is refused before.
if TYPE_CHECKING:
    from bankintent.corpus.dataset import Dataset, SplitData
    from bankintent.inference.predictor import Predictor

Logits = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Task:
    """What a reference is given. The labels of `texts` are not in it, so that none can look at them."""

    config: BaselineConfig
    labels: LabelSchema
    label_texts: tuple[str, ...]
    """How each label is said, in id order."""
    train: "SplitData"
    texts: list[str]
    progress: Progress
    """Called with how many of how many units of work were just done."""


@dataclass(frozen=True)
class Answer:
    """What a reference gives."""

    logits: Logits
    """(texts, labels); their softmax over the labels is the reference's probability."""
    about: str
    """What was done, in words, with what was chosen on the way."""


def majority(task: Task) -> Answer:
    """The frequencies of the intents in train, whatever the text; each counted once more, so that none is zero."""
    counts = np.bincount(task.train.labels, minlength=len(task.labels)) + 1
    logits = np.tile(np.log(counts / counts.sum()), (len(task.texts), 1))
    most = task.labels.names[int(counts.argmax())]
    return Answer(
        logits.astype(np.float32),
        f'always "{most}", the most frequent of {len(counts)} intents in train',
    )


def tfidf(task: Task) -> Answer:
    """Logistic regression on TF-IDF of character n-grams, fitted and its regularisation chosen on train."""
    from bankintent.baselines import tfidf

    fitted = tfidf.fit(task.train, task.config.seed, lambda done: task.progress(done, tfidf.FITS))
    chosen = f"by {fitted.folds}-fold cross-validation on train"
    if fitted.folds == 1:
        chosen = "one sentence of an intent is too few to choose it"
    about = (
        f"logistic regression on TF-IDF of 2 to 4 characters, C = {fitted.strength:g} ({chosen})"
    )
    return Answer(fitted.log_probabilities(task.texts, len(task.labels)), about)


def untrained(task: Task) -> Answer:
    """The backbone with its classification head as it was initialised: what a training run begins with."""
    predictor = _load_backbone(task)
    total = len(task.texts)
    logits = predictor.logits(
        task.texts, task.config.batch_size, lambda done: task.progress(done, total)
    )
    return Answer(logits, f"{task.config.model_name} with a random head (seed {task.config.seed})")


def embedding(task: Task) -> Answer:
    """Cosine of the text's embedding with those of the label texts, embeddings being means over tokens.

    Sentence encoders are trained for this (Reimers and Gurevych, 2019); a plain masked language model is not.
    """
    from bankintent.baselines import zero_shot

    config, predictor = task.config, _load_backbone(task)
    phrases = [config.embedding.template.replace("{}", text) for text in task.label_texts]
    total = len(phrases) + len(task.texts)
    targets, texts = (
        zero_shot.embed(predictor, part, config.batch_size, lambda done: task.progress(done, total))
        for part in (phrases, task.texts)
    )
    about = f"cosine of {config.model_name}'s mean embeddings with those of {_quoted(task, config.embedding.template)}"
    return Answer(config.embedding.scale * texts @ targets.T, about)


def nli(task: Task) -> Answer:
    """Whether the text entails a hypothesis about each label, by a model of natural language inference.

    The score of a label is the softmax over all labels of the entailment logit (Yin et al., 2019, for exactly one label a
    text, as the zero-shot pipeline of transformers does it); what the model says of contradiction is not used.
    """
    from bankintent.baselines import zero_shot

    config = task.config.nli
    hypotheses = [config.template.replace("{}", text) for text in task.label_texts]
    model = zero_shot.load_nli(config)
    total = len(task.texts) * len(hypotheses)
    logits = model.entailment(
        task.texts, hypotheses, config.batch_size, lambda done: task.progress(done, total)
    )
    return Answer(logits, f"entailment by {config.model_name} of {_quoted(task, config.template)}")


def _load_backbone(task: Task) -> "Predictor":
    import torch
    from transformers import set_seed

    from bankintent.inference.predictor import Predictor
    from bankintent.training import backbones

    config = task.config
    set_seed(config.seed)
    backbone = backbones.load(config.model_name, task.labels, config.max_length, config.revision)
    model = backbone.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(model, backbone.tokenizer, task.labels)


def _quoted(task: Task, template: str) -> str:
    return f'"{template.replace("{}", task.label_texts[0])}", ...'


def _backbone_at_hand(config: BaselineConfig) -> None:
    from bankintent.training import backbones

    backbones.locate(config.model_name)


def _nli_at_hand(config: BaselineConfig) -> None:
    from bankintent.baselines import zero_shot

    zero_shot.locate_nli(config.nli)


@dataclass(frozen=True)
class Reference:
    """How a reference answers, and a check that fails at once where a model that it needs is not at hand."""

    answer: Callable[[Task], Answer]
    require: Callable[[BaselineConfig], None] = lambda config: None


REFERENCES = {
    "majority": Reference(majority),
    "tfidf": Reference(tfidf),
    "untrained": Reference(untrained, _backbone_at_hand),
    "embedding": Reference(embedding, _backbone_at_hand),
    "nli": Reference(nli, _nli_at_hand),
}


def require(config: BaselineConfig) -> None:
    """Refuse unknown references, and models that are not at hand, before any work is done."""
    for name in config.references:
        if name not in REFERENCES:
            near = difflib.get_close_matches(name, REFERENCES, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(REFERENCES)}"
            raise ConfigError(
                f'references: unknown reference "{name}", {hint}',
                "Correct the file or the --set option",
            )
    for name in config.references:
        REFERENCES[name].require(config)


def label_texts(labels: LabelSchema, given: dict[str, str]) -> tuple[str, ...]:
    """The text of each label in id order: as given, else its name with spaces for underscores.

    Raises LabelError where a text is given for what is no label.
    """
    for name in given:
        if name not in labels.label2id:
            near = difflib.get_close_matches(name, labels.names, n=1)
            hint = f'Did you mean "{near[0]}"?' if near else "labels.json of the data lists them"
            raise LabelError(f'label_texts names "{name}", which is no intent of this data', hint)
    return tuple(
        given.get(name, phrase) for name, phrase in zip(labels.names, labels.phrases, strict=True)
    )


def measure(data: "Dataset", config: BaselineConfig) -> Iterator[dict[str, Any]]:
    """Run the references one after the other; each one's result is written and logged, then yielded."""
    from bankintent.inference import evaluation

    train, rows = data.read("train"), data.read(config.split)
    prepare = partial(
        Task, config, data.labels, label_texts(data.labels, config.label_texts), train, rows.texts
    )
    subjects = {name: _Subject(f"{config.name}-{name}") for name in config.references}
    folders = {
        n: evaluation.default_folder(s, config.split, config.output_dir)
        for n, s in subjects.items()
    }
    for folder in folders.values():
        evaluation.require_free(folder)
    for name, subject in subjects.items():
        started = time.perf_counter()
        with _progress(name) as progress:
            answer = REFERENCES[name].answer(prepare(progress))
        seconds = time.perf_counter() - started
        result = evaluation.evaluate(answer.logits, rows, subject, data, config)
        settings = config.model_dump(mode="json", exclude={"tracking"})
        result["reference"] = {
            "name": name,
            "about": answer.about,
            "seconds": round(seconds, 3),
            "config": settings,
        }
        evaluation.write(folders[name], result, answer.logits, rows, data.labels)
        evaluation.log(result, folders[name], config)
        yield result


def show(results: list[dict[str, Any]], config: BaselineConfig) -> None:
    """Print all results in one table, and where their reports are."""
    body = []
    for result in results:
        quality = [
            f"{100 * result['metrics'][key]:.2f} ({100 * low:.2f} to {100 * high:.2f})"
            for key, (low, high) in result["intervals"].items()
        ]
        body.append(
            [result["reference"]["name"], *quality, f"{result['reference']['seconds']:.1f}"]
        )
    first = results[0]
    title = f"References on {first['rows']:,} {config.split} rows of {first['data']['name']}, with 95 % intervals"
    console.print_table(title, ["reference", "accuracy, %", "macro-F1, %", "seconds"], body)
    console.say(
        f"Reports: {console.show_path(config.output_dir)}/{config.name}-<reference> (report.md, confusion.png, ...)"
    )


@dataclass(frozen=True)
class _Subject:
    name: str
    format: str = "reference"


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Progress]:
    """A bar in a terminal, gone when the work is done."""
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console.stdout, transient=True, disable=not console.stdout.is_terminal
    ) as bar:
        line = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(line, total=total, advance=done)
