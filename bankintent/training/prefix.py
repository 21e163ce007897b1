"""A text before every sentence, kept in the tokenizer itself.

E5 and BGE encoders were trained with one, such as "query: ". As the first step of the tokenizer's
normalisation it stands in tokenizer.json, which every form of a model carries, so that nothing else
has to know of it. A text of no characters stays one.

It is put before each piece between special tokens, also where a text has those written out.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import normalizers
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers import PreTrainedTokenizerFast

from bankintent.errors import ModelError

BLANK_MARK = "\u2581"
"""SentencePiece's mark of a blank. Some tokenizers put it before a text, which is no prefix."""

PROBE = "a short text"
"""A text that is tokenized with the prefix in front by hand, and by the tokenizer."""

CLASS_SETTINGS = "tokenizer_config.json"
"""The file that names a tokenizer's class."""


def prefix_of(tokenizer: Tokenizer) -> str | None:
    """The text that the tokenizer puts before every sentence; None where it puts none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    steps = _steps(backend)
    if not steps or not isinstance(steps[0], normalizers.Prepend):
        return None
    prefix = str(steps[0].prepend)
    return None if prefix == BLANK_MARK else prefix


def with_prefix(tokenizer: Tokenizer, prefix: str, name: str) -> Tokenizer:
    """A tokenizer like this one that puts `prefix` before every sentence, in place of another.

    Raises ModelError for a tokenizer that is written in Python, and for one that would read a
    prefix differently from the start of a text.
    """
    earlier = prefix_of(tokenizer)
    if earlier == prefix:
        return tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"the tokenizer of {name} is written in Python, and takes no prefix",
            "Remove prefix, or name a model with a tokenizer.json",
        )

    steps = _steps(backend)
    if earlier is not None:
        # The sentence has one prefix, not two.
        steps = steps[1:]
        backend.normalizer = normalizers.Sequence(steps)
    expected = tokenizer(prefix + PROBE)["input_ids"]
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(prefix), *steps])

    changed = _as_plain_class(tokenizer)
    if changed(PROBE)["input_ids"] != expected or prefix_of(changed) != prefix:
        raise ModelError(
            f"the tokenizer of {name} reads prefix {prefix!r} otherwise than a text that begins"
            " with it",
            "Remove prefix, or write one without special tokens",
        )
    return changed


def require_room(tokenizer: Tokenizer, max_length: int, name: str) -> None:
    """Raise ModelError where the prefix leaves no token for a text."""
    prefix = prefix_of(tokenizer)
    if prefix is None:
        return
    needed = len(tokenizer(PROBE)["input_ids"])
    if needed > max_length:
        raise ModelError(
            f"max_length {max_length} leaves no room behind the prefix {prefix!r} of {name}: with"
            f" a text of three words it has {needed} tokens",
            "Raise max_length",
        )


def _steps(backend: Any) -> list[Any]:
    """The steps of a tokenizer's normalisation, in order."""
    normalizer = backend.normalizer
    if normalizer is None:
        return []
    if not isinstance(normalizer, normalizers.Sequence):
        return [normalizer]
    return [normalizer[index] for index in range(len(normalizer))]


def _as_plain_class(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer as transformers loads it from its tokenizer.json alone.

    Classes of architectures make the normalisation anew where they are loaded, without the prefix.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder) / CLASS_SETTINGS
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["tokenizer_class"] = PreTrainedTokenizerFast.__name__
        path.write_text(json.dumps(settings), encoding="utf-8")
        plain: Tokenizer = PreTrainedTokenizerFast.from_pretrained(
            # These come from the class, not from its files.
            folder,
            model_input_names=tokenizer.model_input_names,
            split_special_tokens=tokenizer.split_special_tokens,
        )
    return plain
