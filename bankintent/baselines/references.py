"""Baselines that train no encoder: majority, TF-IDF, random head, zero-shot.

A reference is a function from a `ReferenceTask` to a `ReferenceAnswer`, and a line of `REFERENCES`.
Heavy libraries are imported by the functions that use them, so that a wrong config is refused
first.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bankintent.config import BaselineConfig
from bankintent.errors import ConfigError, LabelError
from bankintent.inference.label_names import find_similar
from bankintent.labels import LabelSchema
from bankintent.progress import Advance

if TYPE_CHECKING:
    from bankintent.corpus.dataset import SplitData
    from bankintent.inference.predictor import Predictor

ReportProgress = Callable[[int, int], None]
"""Called with the units of work that were just finished, and with the units in all."""


@dataclass(frozen=True)
class ReferenceTask:
    """The input of a reference. The labels of `texts` are not in it: no reference can see them."""

    config: BaselineConfig
    labels: LabelSchema
    label_texts: tuple[str, ...]
    """The words for each label, in id order."""
    train: "SplitData"
    texts: Sequence[str]
    progress: ReportProgress

    def advance_of(self, total: int) -> Advance:
        """A function that counts units of work as finished, out of `total`."""
        return lambda units: self.progress(units, total)


@dataclass(frozen=True)
class ReferenceAnswer:
    """The output of a reference."""

    logits: NDArray[np.float32]
    """(texts, labels); their softmax over the labels is the reference's probability."""
    about: str
    """The method in words, with the settings that it chose."""


def majority(task: ReferenceTask) -> ReferenceAnswer:
    """The frequencies of the intents in train, the same for every text."""
    # One more than occur, so that no frequency is zero and no loss infinite.
    counts = np.bincount(task.train.labels, minlength=len(task.labels)) + 1
    frequencies = counts / counts.sum()
    row = np.log(frequencies).astype(np.float32)
    logits = np.tile(row, (len(task.texts), 1))

    most_frequent = task.labels.names[int(counts.argmax())]
    about = f'always "{most_frequent}", the most frequent of {len(counts)} intents in train'
    return ReferenceAnswer(logits, about)


def tfidf(task: ReferenceTask) -> ReferenceAnswer:
    """Logistic regression on TF-IDF of character n-grams, with a regularisation chosen on train."""
    from bankintent.baselines.tfidf import UNITS_OF_WORK, fit_tfidf

    classifier = fit_tfidf(task.train, task.config.seed, task.advance_of(UNITS_OF_WORK))
    logits = classifier.log_probabilities(task.texts, len(task.labels))

    choice = f"by {classifier.folds}-fold cross-validation on train"
    if classifier.folds == 1:
        choice = "one sentence of an intent is too few to choose it"
    about = (
        "logistic regression on TF-IDF of 2 to 4 characters,"
        f" C = {classifier.strength:g} ({choice})"
    )
    return ReferenceAnswer(logits, about)


def untrained(task: ReferenceTask) -> ReferenceAnswer:
    """The backbone with its initial random head: the start of a training run."""
    config = task.config
    predictor = _load_backbone(task)
    advance = task.advance_of(len(task.texts))
    logits = predictor.logits(task.texts, config.batch_size, advance)

    about = f"{config.model_name} with a random head (seed {config.seed})"
    return ReferenceAnswer(logits, about)


def embedding(task: ReferenceTask) -> ReferenceAnswer:
    """Cosine of the text's embedding with those of the label texts; embeddings are token means.

    Sentence encoders are trained for this (Reimers and Gurevych, 2019); a plain masked language
    model is not.
    """
    from bankintent.baselines.zero_shot import mean_embeddings

    config = task.config
    template = config.embedding.template
    phrases = [template.replace("{}", text) for text in task.label_texts]

    predictor = _load_backbone(task)
    advance = task.advance_of(len(phrases) + len(task.texts))
    targets = mean_embeddings(predictor, phrases, config.batch_size, advance)
    texts = mean_embeddings(predictor, task.texts, config.batch_size, advance)

    logits = config.embedding.scale * texts @ targets.T
    about = (
        f"cosine of {config.model_name}'s mean embeddings"
        f" with those of {_first_phrase(task, template)}"
    )
    return ReferenceAnswer(logits, about)


def nli(task: ReferenceTask) -> ReferenceAnswer:
    """Entailment of a hypothesis about each label, by a model of natural language inference.

    The score of a label is the softmax over all labels of the entailment logit (Yin et al., 2019,
    for exactly one label a text, as in the zero-shot pipeline of transformers). The logits of
    contradiction are not used.
    """
    from bankintent.baselines.zero_shot import load_nli

    config = task.config.nli
    hypotheses = [config.template.replace("{}", text) for text in task.label_texts]

    model = load_nli(config)
    advance = task.advance_of(len(task.texts) * len(hypotheses))
    logits = model.entailment(task.texts, hypotheses, config.batch_size, advance)

    about = f"entailment by {config.model_name} of {_first_phrase(task, config.template)}"
    return ReferenceAnswer(logits, about)


def _load_backbone(task: ReferenceTask) -> "Predictor":
    import torch
    from transformers import set_seed

    from bankintent.inference.predictor import Predictor
    from bankintent.training import backbones

    config = task.config
    # Before loading, which draws the random head.
    set_seed(config.seed)

    backbone = backbones.load_backbone(
        config.model_name, task.labels, config.max_length, config.revision
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Predictor(backbone.model.to(device), backbone.tokenizer, task.labels)


def _first_phrase(task: ReferenceTask, template: str) -> str:
    phrase = template.replace("{}", task.label_texts[0])
    return f'"{phrase}", ...'


def _needs_nothing(config: BaselineConfig) -> None:
    """The check of a method without a pretrained model."""


def _needs_backbone(config: BaselineConfig) -> None:
    from bankintent.training import backbones

    backbones.locate(config.model_name)


def _needs_nli_model(config: BaselineConfig) -> None:
    from bankintent.baselines.zero_shot import locate_nli

    locate_nli(config.nli)


@dataclass(frozen=True)
class ReferenceMethod:
    """A reference's function, and a check that fails early where its model is missing."""

    answer: Callable[[ReferenceTask], ReferenceAnswer]
    require: Callable[[BaselineConfig], None]


REFERENCES = {
    "majority": ReferenceMethod(majority, _needs_nothing),
    "tfidf": ReferenceMethod(tfidf, _needs_nothing),
    "untrained": ReferenceMethod(untrained, _needs_backbone),
    "embedding": ReferenceMethod(embedding, _needs_backbone),
    "nli": ReferenceMethod(nli, _needs_nli_model),
}


def require_references(config: BaselineConfig) -> None:
    """Refuse unknown references and missing models before any work.

    Raises ConfigError, or what locating a model raises.
    """
    # All names first: a look for a model may ask the Hub.
    for name in config.references:
        if name not in REFERENCES:
            hint = f"there are {', '.join(REFERENCES)}"
            similar = difflib.get_close_matches(name, REFERENCES, n=1)
            if similar:
                hint = f'did you mean "{similar[0]}"?'
            raise ConfigError(
                f'references: unknown reference "{name}", {hint}',
                "Correct the file or the --set option",
            )

    for name in config.references:
        REFERENCES[name].require(config)


def label_phrases(labels: LabelSchema, texts: dict[str, str]) -> tuple[str, ...]:
    """The words for each label in id order: from `texts`, otherwise its name without underscores.

    Raises LabelError where a name in `texts` is no label.
    """
    for name in texts:
        if name not in labels.label2id:
            hint = "labels.json of the data lists them"
            similar = find_similar(name, labels)
            if similar is not None:
                hint = f'Did you mean "{similar}"?'
            raise LabelError(f'label_texts names "{name}", which is no intent of this data', hint)

    names_and_phrases = zip(labels.names, labels.phrases, strict=True)
    return tuple(texts.get(name, phrase) for name, phrase in names_and_phrases)
