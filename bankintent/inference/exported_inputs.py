"""What an exported graph reads of texts, made by `tokenizers` itself without transformers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from bankintent import files, typed_json
from bankintent.errors import ModelError
from bankintent.inference.engines import Feeds
from bankintent.inference.runtime import Tokens, never_empty
from bankintent.texts import fold

TOKENIZER = "tokenizer.json"
"""The tokenizer's file in `onnx/`, in the format of `tokenizers`."""

SETTINGS = "runtime.json"
"""The file of FormatSettings in `onnx/`."""

LOGITS = "logits"
"""The first output of a graph, (items, labels)."""

FEATURES = "features"
"""The second one, (items, width), where there is one: what the last layer reads."""

PROBES = (
    "a short text",
    "a text of middling length, as people write it, with some words more",
    "a long text " * 30,
)
"""Texts whose logits are recorded at publishing: a machine that loads the format must agree.

They are part of published bundles, the blank at the end of the last one too, so they are encoded
without folding: with other texts, no bundle that exists would pass.
"""

LENGTH_STEP = 4
"""Texts are padded to a multiple of this: a runtime keeps memory for every shape of input.

After some thousand requests OpenVINO took 460 MB without it and 360 with it, at the same speed.
"""

ENCODING_FIELDS = {
    "input_ids": "ids",
    "token_type_ids": "type_ids",
    "attention_mask": "attention_mask",
}
"""Key of transformers -> attribute of an `Encoding` of `tokenizers`."""


@dataclass(frozen=True, slots=True)
class FormatSettings:
    """runtime.json: everything that is needed to feed the model."""

    inputs: list[str]
    """The model's inputs, named as the tokenizer's keys."""
    padding: dict[str, int]
    """Input -> the number that pads it."""
    padding_side: str
    max_length: int
    """Longest input in tokens."""
    parameters: int
    backbone: str
    probes: dict[str, list[list[float]]]
    """Verified kind -> its logits of PROBES."""
    features: int = 0
    """Width of the features that every graph gives; 0 where they give logits alone."""

    @property
    def outputs(self) -> list[str]:
        """The names of the graphs' outputs."""
        return [LOGITS, FEATURES] if self.features > 0 else [LOGITS]

    @classmethod
    def load(cls, folder: Path) -> "FormatSettings":
        """The settings in `onnx/`; ModelError where the file is not one."""
        try:
            return typed_json.parse(cls, (folder / SETTINGS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ModelError(
                f"{folder / SETTINGS} is not what publishing writes", "Train again"
            ) from None

    def save(self, folder: Path) -> None:
        values = {name: getattr(self, name) for name in self.__slots__}
        files.write_text(folder / SETTINGS, files.json_text(values))


class ExportedInputs:
    """The tokenizer of an exported graph, and the inputs that it makes of tokens."""

    def __init__(self, folder: Path) -> None:
        self.settings = FormatSettings.load(folder)
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.enable_truncation(self.settings.max_length)

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each folded text, cut to the model's longest input."""
        return self.encode(list(map(fold, texts)))

    def encode(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each text as it stands, cut to the model's longest input."""
        items = []
        # The fast form leaves out the offsets of tokens, which nothing here reads.
        for encoding in self._tokenizer.encode_batch_fast(texts):
            features = {}
            for name in self.settings.inputs:
                features[name] = list(getattr(encoding, ENCODING_FIELDS[name]))

            items.append(Tokens(features, truncated=bool(encoding.overflowing)))
        return items

    def feeds(self, items: Sequence[Tokens]) -> Feeds:
        """The model's inputs, padded to the longest item or a little more, and masked."""
        settings = self.settings

        padding = settings.padding["input_ids"]
        features = [never_empty(item.features, padding) for item in items]
        lengths = [len(row["input_ids"]) for row in features]
        longest = max(lengths)
        steps = -(-longest // LENGTH_STEP)  # rounded up
        length = min(steps * LENGTH_STEP, settings.max_length)

        feeds = {}
        for name in settings.inputs:
            feeds[name] = np.full((len(items), length), settings.padding[name])

        for row, own_length in enumerate(lengths):
            start = 0
            if settings.padding_side == "left":
                start = length - own_length
            end = start + own_length

            for name, values in features[row].items():
                feeds[name][row, start:end] = values

        return feeds
