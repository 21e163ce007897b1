"""Zero-shot classification with a pretrained model: sentence embeddings, and entailment."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from bankintent import hub
from bankintent.config import NliSection
from bankintent.errors import ConfigError, ModelError
from bankintent.inference import loaded
from bankintent.inference.predictor import Predictor
from bankintent.progress import Advance
from bankintent.texts import fold
from bankintent.training import backbones

NAME_NLI_MODEL = "Name a model that was trained for NLI with --set nli.model_name=..."
"""The advice in every message about a model that is no NLI classifier."""


@torch.inference_mode()
def mean_embeddings(
    predictor: Predictor, texts: list[str], batch_size: int, advance: Advance
) -> NDArray[np.float32]:
    """(texts, hidden) of unit length: the mean of the encoder's last layer over a text's tokens.

    `advance` is called with the number of texts of each batch.
    """
    encoder = predictor.model.base_model
    embeddings = np.empty((len(texts), encoder.config.hidden_size), dtype=np.float32)
    for rows, batch in predictor.batches(texts, batch_size):
        hidden = encoder(**batch).last_hidden_state
        # Without padding, with which a text's answer would depend on its batch.
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        total = (hidden * mask).sum(dim=1)
        mean = total / mask.sum(dim=1)
        unit = torch.nn.functional.normalize(mean, dim=1)

        embeddings[rows] = unit.float().cpu().numpy()
        advance(len(rows))
    return embeddings


@dataclass(frozen=True)
class NliModel:
    """A loaded model of natural language inference."""

    model: Any
    tokenizer: Any
    entailment_id: int
    """Id of the label for a premise that entails the hypothesis."""
    max_length: int
    """Longest pair in tokens."""

    @torch.inference_mode()
    def entailment(
        self, texts: list[str], hypotheses: list[str], batch_size: int, advance: Advance
    ) -> NDArray[np.float32]:
        """(texts, hypotheses) entailment logits, each text being the premise of every hypothesis.

        `advance` is called with the number of pairs of each batch. Raises ConfigError where a
        hypothesis leaves no room for a premise.
        """
        texts = list(map(fold, texts))
        hypotheses = list(map(fold, hypotheses))
        # Pairs of similar length share a batch, so that little is padded.
        pair_lengths = np.add.outer(self._token_counts(texts), self._added_tokens(hypotheses))
        # Longer pairs are cut, so that they all have this length.
        pair_lengths = np.minimum(pair_lengths, self.max_length)
        order = np.argsort(pair_lengths, axis=None, kind="stable")

        logits = np.empty(order.size, dtype=np.float32)
        for start in range(0, order.size, batch_size):
            pairs = order[start : start + batch_size]
            # Pair n is of text n // hypotheses and hypothesis n % hypotheses.
            text_indices, hypothesis_indices = np.divmod(pairs, len(hypotheses))
            batch = self.tokenizer(
                [texts[index] for index in text_indices],
                [hypotheses[index] for index in hypothesis_indices],
                # The premise is cut, never the hypothesis.
                truncation="only_first",
                max_length=self.max_length,
                padding=True,
                return_tensors="pt",
            ).to(self.model.device)

            batch_logits = self.model(**batch).logits[:, self.entailment_id]
            logits[pairs] = batch_logits.float().cpu().numpy()
            advance(len(pairs))
        return logits.reshape(len(texts), len(hypotheses))

    def _added_tokens(self, hypotheses: list[str]) -> NDArray[np.int64]:
        """The number of tokens that each hypothesis adds to a premise, special ones included."""
        special_tokens = self.tokenizer.num_special_tokens_to_add(pair=True)
        tokens = self._token_counts(hypotheses) + special_tokens
        longest = int(tokens.argmax())
        if tokens[longest] >= self.max_length:
            raise ConfigError(
                f'"{hypotheses[longest]}" takes {tokens[longest]} of'
                f" nli.max_length {self.max_length} tokens, which leaves none for the sentence",
                "Shorten label_texts or nli.template, or raise nli.max_length",
            )
        return tokens

    def _token_counts(self, texts: list[str]) -> NDArray[np.int64]:
        """The number of tokens of each text, without special ones."""
        # Not verbose: it would warn of texts that are too long, though they are only counted.
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False)
        return np.array([len(token_ids) for token_ids in encoded["input_ids"]])


def locate_nli(config: NliSection) -> tuple[str, str]:
    """As `backbones.locate`; raises ModelError or SourceUnavailable where the model is missing."""
    choices = (
        "name a folder with an NLI model (--set nli.model_name=FOLDER), or take nli out of"
        " references"
    )
    return backbones.locate(config.model_name, choices)


def load_nli(config: NliSection) -> NliModel:
    """Load a classifier with an entailment label, in float32, on the GPU where there is one.

    Raises ModelError where it is unusable, SourceUnavailable where the Hub is needed and cannot be
    reached or has no such model.
    """
    logging.disable_progress_bar()
    source, name = locate_nli(config)
    model, tokenizer, missing_weights = _load_classifier(config, source, name)

    entailment_id = find_entailment_id(model.config.id2label, name)
    # Transformers fills missing weights with random numbers.
    if missing_weights:
        examples = ", ".join(sorted(missing_weights)[:3])
        raise ModelError(f"{name} lacks weights of the classifier ({examples})", NAME_NLI_MODEL)
    loaded.fit(model, tokenizer, name)
    backbones.require_positions(model, config.max_length, name)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return NliModel(model.eval().to(device), tokenizer, entailment_id, config.max_length)


def _load_classifier(config: NliSection, source: str, name: str) -> tuple[Any, Any, list[str]]:
    """(model, tokenizer, names of weights that the files lack)."""
    # No code that a model brings along is run.
    options: dict[str, Any] = {"trust_remote_code": False, "revision": config.revision or "main"}
    with loaded.explained(name), hub.explained(f'the model "{config.model_name}"'):
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            source,
            # Otherwise the weights would stay in half precision where the files have that.
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    return model, tokenizer, list(loading["missing_keys"])


def find_entailment_id(id2label: dict[int, str], model_name: str) -> int:
    """The id of the label whose name starts with "entail": its place differs between models.

    Raises ModelError, which lists the labels, where there is none or more than one.
    """
    label_ids = [
        label_id for label_id, name in id2label.items() if name.casefold().startswith("entail")
    ]
    if len(label_ids) != 1:
        count = "more than one" if label_ids else "no"
        names = ", ".join(id2label.values())
        raise ModelError(
            f"{model_name} has {count} entailment label; its labels are {names}", NAME_NLI_MODEL
        )
    return label_ids[0]
