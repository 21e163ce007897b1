"""The files of a model folder that somebody else saved, checked before a library opens them.

transformers fills what a folder lacks: a missing tokenizer by an empty one, weights that an index
or an adapter names elsewhere by those. Here such a folder is refused. A link counts as the file
that it leads to, since the Hub's cache is made of links.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bankintent.errors import ModelError
from bankintent.files import JsonObject

CONFIG = "config.json"
"""The config of transformers in a model folder."""

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""The file that says which of several weight files holds a weight. It is read without `WEIGHTS`."""

ADAPTER_CONFIG = "adapter_config.json"

TOKENIZER_CONFIG = "tokenizer_config.json"

JSON_FILES = (
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
"""Files of a tokenizer that are JSON objects. A folder has some of them."""

TOKENIZER_FILES = (
    "tokenizer*.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.codes",
    "*.tokenizer",
    "dict.txt",
)
"""Patterns of the names under which the tokenizers of transformers are saved."""

COPY_AGAIN = "Copy or download it again"


def require_whole(folder: Path) -> JsonObject:
    """The config of a model folder whose config, weights and tokenizer are there and its own.

    Raises ModelError, which names the first file that is missing, broken or leads elsewhere.
    Weights are not read, but for their headers.
    """
    config = read_config(folder)
    _require_no_adapter(folder)

    for name in _weight_files(folder, config):
        _require_weights(folder, name)
    _require_tokenizer(folder)
    return config


def read_config(folder: Path) -> JsonObject:
    """The config of a model folder; ModelError where it is no JSON object."""
    return _read_object(folder / CONFIG)


def _read_object(path: Path) -> JsonObject:
    """A JSON object from a file; ModelError where it holds anything else or cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror})", "Check the file, its owner and mode"
        ) from None
    # A foreign file may hold no UTF-8, no JSON, or JSON without an end of brackets.
    except (ValueError, RecursionError):
        raise ModelError(f"{path} is no JSON file", COPY_AGAIN) from None

    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object", COPY_AGAIN)
    return content


def _require_no_adapter(folder: Path) -> None:
    if (folder / ADAPTER_CONFIG).exists():
        raise ModelError(
            f"{folder} holds a model and an adapter ({ADAPTER_CONFIG}), made for a base elsewhere",
            "Merge the adapter into the model, or move its files away",
        )


def _weight_files(folder: Path, config: JsonObject) -> list[str]:
    """The names of the weight files that transformers would read, all in the folder itself."""
    if config.get("transformers_weights") is not None:
        raise ModelError(
            f"{folder}/{CONFIG} names a file of weights (transformers_weights)",
            f"Name the weights {WEIGHTS} and take that key out",
        )
    if _is_there(folder / WEIGHTS):
        return [WEIGHTS]
    if _is_there(folder / INDEX):
        return _shards(folder)

    # Only safetensors are read: a pickle can run code.
    raise ModelError(
        f"{folder} holds no safetensors weights ({WEIGHTS} or {INDEX})",
        "Save the model with safe serialization",
    )


def _is_there(path: Path) -> bool:
    """Whether a name is taken, also by a link that leads nowhere."""
    return path.exists() or path.is_symlink()


def _shards(folder: Path) -> list[str]:
    """The files that the index names; ModelError where it names one that is not in the folder."""
    path = folder / INDEX
    index = _read_object(path)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not isinstance(index.get("metadata"), dict):
        raise ModelError(f"{path} is no index of weights", COPY_AGAIN)

    held: dict[Any, set[str]] = {}
    for weight, file in weight_map.items():
        if not _is_plain_name(file):
            raise ModelError(
                f"{path} names weights outside of its folder ({file})",
                "Copy them into the folder and write their names without a path",
            )
        if file not in held:
            held[file] = _require_weights(folder, file)
        if weight not in held[file]:
            raise ModelError(f"{path} names {weight} in {file}, which lacks it", COPY_AGAIN)
    return list(held)


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and name == Path(name).name and name != ".."


def _require_weights(folder: Path, name: str) -> set[str]:
    """The names of the weights in a file; ModelError where it is not there or not whole."""
    path = folder / name
    if not path.is_file():
        raise ModelError(f"{folder} cannot be loaded: {name} is missing or no file", COPY_AGAIN)

    try:
        # It reads the header, and compares it with the size of the file.
        with safe_open(path, framework="np") as file:
            types = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        cause = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"{folder} cannot be loaded: {name} is no whole file of weights ({cause})", COPY_AGAIN
        ) from None

    for key, type_name in types.items():
        # transformers would take whole numbers as they are. Buffers, such as positions, may be.
        if key.endswith(".weight") and not type_name.startswith(("F", "BF")):
            raise ModelError(
                f"{folder} cannot be loaded: {key} in {name} is of {type_name}, no floating point",
                "Save the model in float32, float16 or bfloat16",
            )
    return set(types)


def _require_tokenizer(folder: Path) -> None:
    """Raise ModelError where a folder has no tokenizer, or one that is broken or elsewhere."""
    if next(_tokenizer_files(folder), None) is None:
        raise ModelError(
            f"{folder} holds no tokenizer (such as tokenizer.json)",
            "Save its tokenizer there too, as tokenizer.save_pretrained(folder) does",
        )

    for name in JSON_FILES:
        if _is_there(folder / name):
            content = _read_object(folder / name)
            if name == TOKENIZER_CONFIG:
                _require_own(content, folder / name)


def _tokenizer_files(folder: Path) -> Iterator[Path]:
    for pattern in TOKENIZER_FILES:
        yield from folder.glob(pattern)


def _require_own(settings: JsonObject, path: Path) -> None:
    """Raise ModelError where a tokenizer's settings lead to code, or to files elsewhere."""
    names = settings.get("fast_tokenizer_files") or []
    if not isinstance(names, list) or not all(map(_is_plain_name, names)):
        raise ModelError(
            f"{path} names files outside of its folder (fast_tokenizer_files)",
            "Take that key out",
        )
