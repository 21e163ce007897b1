"""Classifying by what a pretrained model makes of the label texts: sentence embeddings, and entailment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from bankintent import hub
from bankintent.config import NliSection
from bankintent.errors import ConfigError, ModelError
from bankintent.inference.predictor import Predictor
from bankintent.training import backbones

Floats = NDArray[np.float32]
Advance = Callable[[int], None]


@torch.inference_mode()
def embed(predictor: Predictor, texts: list[str], batch_size: int, advance: Advance) -> Floats:
    """(texts, hidden) float32 of unit length: the mean of the encoder's last layer over the tokens of each text.

    `advance` is called with the number of texts done after each batch.
    """
    encoder = predictor.model.base_model
    out = np.empty((len(texts), encoder.config.hidden_size), dtype=np.float32)
    for rows, batch in predictor.batches(texts, batch_size):
        hidden = encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
        out[rows] = torch.nn.functional.normalize(mean, dim=1).float().cpu().numpy()
        advance(len(rows))
    return out


@dataclass(frozen=True)
class NliModel:
    """A loaded model of natural language inference."""

    model: Any
    tokenizer: Any
    entailed: int
    """Which of its labels says that the premise entails the hypothesis."""
    max_length: int

    @torch.inference_mode()
    def entailment(
        self, texts: list[str], hypotheses: list[str], batch_size: int, advance: Advance
    ) -> Floats:
        """(texts, hypotheses) float32 entailment logits, each text being the premise of every hypothesis.

        A batch holds pairs of like length, so that little is padded; the result does not depend on it. `advance` is
        called with the number of pairs done after each batch. Raises ConfigError where a hypothesis leaves no room for
        a premise.
        """
        lengths = np.add.outer(self._tokens(texts), self._tokens_beside(hypotheses))
        order = np.argsort(np.minimum(lengths, self.max_length), axis=None, kind="stable")
        out = np.empty(order.size, dtype=np.float32)
        for start in range(0, order.size, batch_size):
            pairs = order[start : start + batch_size]
            premises, labels = np.divmod(pairs, len(hypotheses))
            batch = self.tokenizer(
                [texts[i] for i in premises],
                [hypotheses[i] for i in labels],
                truncation="only_first",
                max_length=self.max_length,
                padding=True,
                return_tensors="pt",
            ).to(self.model.device)
            out[pairs] = self.model(**batch).logits[:, self.entailed].float().cpu().numpy()
            advance(len(pairs))
        return out.reshape(len(texts), len(hypotheses))

    def _tokens_beside(self, hypotheses: list[str]) -> NDArray[np.int64]:
        """The number of tokens that each hypothesis adds to a premise, special ones included."""
        tokens = self._tokens(hypotheses) + self.tokenizer.num_special_tokens_to_add(pair=True)
        longest = int(tokens.argmax())
        if tokens[longest] >= self.max_length:
            raise ConfigError(
                f'"{hypotheses[longest]}" takes {tokens[longest]} of nli.max_length {self.max_length} tokens, which leaves'
                " none for the sentence",
                "Shorten label_texts or nli.template, or raise nli.max_length",
            )
        return tokens

    def _tokens(self, texts: list[str]) -> NDArray[np.int64]:
        """The number of tokens of each text, without special ones."""
        return np.array(
            [
                len(ids)
                for ids in self.tokenizer(texts, add_special_tokens=False, verbose=False)[
                    "input_ids"
                ]
            ]
        )


def locate_nli(config: NliSection) -> tuple[str, str]:
    """As `backbones.locate`: ModelError or SourceUnavailable where the model is not at hand."""
    choices = "name a folder with an NLI model (--set nli.model_name=FOLDER), or take nli out of references"
    return backbones.locate(config.model_name, choices)


def load_nli(config: NliSection) -> NliModel:
    """Load a sequence classifier that has an entailment label, in float32, on the GPU where there is one.

    Raises ModelError where it has no such label or is otherwise unusable, SourceUnavailable where the Hub is needed and
    away or has no such model.
    """
    logging.disable_progress_bar()
    place, where = locate_nli(config)
    common: dict[str, Any] = {"trust_remote_code": False, "revision": config.revision or "main"}
    with hub.explained(f'the model "{config.model_name}"'):
        try:
            tokenizer = AutoTokenizer.from_pretrained(place, **common)
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                place, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **common
            )
        except SafetensorError as error:
            raise ModelError(
                f"{where} cannot be loaded: {error}", "Copy or download it again"
            ) from None
    entailed = entailment_label(model.config.id2label, where)
    if loading["missing_keys"]:  # transformers would fill them with random numbers
        raise ModelError(
            f"{where} lacks weights of the classifier ({', '.join(sorted(loading['missing_keys'])[:3])})",
            "Name a model that was trained for NLI with --set nli.model_name=...",
        )
    if tokenizer.pad_token is None:
        raise ModelError(
            f"the tokenizer of {where} has no padding token",
            "Name an encoder such as BART or DeBERTa",
        )
    backbones.require_positions(model.config, config.max_length, where)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return NliModel(model.eval().to(device), tokenizer, entailed, config.max_length)


def entailment_label(id2label: dict[int, str], where: str) -> int:
    """The label whose name starts with "entail", in any case: its place differs from model to model.

    Raises ModelError, listing the labels, where there is none or more than one.
    """
    found = [index for index, name in id2label.items() if name.casefold().startswith("entail")]
    if len(found) != 1:
        raise ModelError(
            f"{where} has {'more than one' if found else 'no'} entailment label; its labels are"
            f" {', '.join(id2label.values())}",
            "Name a model that was trained for NLI with --set nli.model_name=...",
        )
    return found[0]
