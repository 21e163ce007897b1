"""Which bundles share a base: those whose trunks answer alike.

The trunk is a model without its head: its tensors, its settings and its tokenizer. Heads differ in
size with the number of labels.
"""

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from bankintent import files
from bankintent.bundle import inside, layout
from bankintent.bundle.record import Manifest
from bankintent.errors import ModelError
from bankintent.inference.adapters.reading import Unsuited, read_head_modules
from bankintent.labels import LabelSchema

WEIGHTS = "model.safetensors"

SETTINGS = "config.json"

OF_LABELS = ("id2label", "label2id", "num_labels")
"""Keys of config.json that differ with the labels alone."""

OF_SAVING = (
    "_name_or_path",
    "name_or_path",
    "transformers_version",
    "is_local",
    "local_files_only",
)
"""Keys of JSON files that say where and by what they were written, and change no answer."""

Hashes = dict[tuple[str, tuple[str, ...]], str]
"""(sha256 of a file of weights, modules of its head) -> the hash of its tensors."""

SHOWN = 12
"""Hex digits of a hash in a message."""


@dataclass(frozen=True, slots=True)
class Trunk:
    """What two bundles have in common that share a base, as hashes."""

    weights: str
    """Names, types, shapes and values of the tensors."""
    settings: str
    """Of the model, without its labels."""
    tokenizer: str
    """Every other file of the base, among them the longest input."""


def read_trunk(root: Path, known: Hashes | None = None) -> Trunk:
    """The trunk under a bundle's adapter.

    `known` are weights whose files were hashed before, and takes these. ModelError where a file
    that is read was changed since the bundle was published, or cannot be read.
    """
    folder = layout.base_folder(LabelSchema.load(root / layout.LABELS))
    manifest = layout.read_manifest(root)

    weights = _hash_weights(root, folder, manifest, {} if known is None else known)
    others = {}
    for name in _file_names(manifest, folder):
        if name not in (WEIGHTS, SETTINGS):
            others[name] = _content(root, f"{folder}/{name}", manifest)
    return Trunk(
        weights=weights,
        settings=_hash(_content(root, f"{folder}/{SETTINGS}", manifest)),
        tokenizer=_hash(others),
    )


def require_same_base(root: Path, expected: Trunk, known: Hashes | None = None) -> None:
    """Unsuited where the bundle's adapter was trained on another trunk; says what differs."""
    found = read_trunk(root, known)
    for part in fields(Trunk):
        own = getattr(found, part.name)
        shared = getattr(expected, part.name)
        if own != shared:
            raise Unsuited(
                f"{root} was trained on a base with other {part.name} ({own[:SHOWN]}; the shared"
                f" base has {shared[:SHOWN]})",
                "Name a bundle that was trained on the shared base",
            )


def _file_names(manifest: Manifest, folder: str) -> list[str]:
    start = f"{folder}/"
    return [name.removeprefix(start) for name in manifest.files if name.startswith(start)]


def _content(root: Path, name: str, manifest: Manifest) -> Any:
    """What counts of a file: its values where it is JSON of settings, otherwise its hash."""
    if name not in manifest.files:
        return None
    if not name.endswith("config.json"):
        return manifest.files[name].sha256

    try:
        values = json.loads(inside.read_text(root, name))
    except ValueError:
        raise ModelError(f"{root}/{name} is no JSON", "Copy or train the bundle again") from None
    return {key: values[key] for key in values if key not in (*OF_LABELS, *OF_SAVING)}


def _hash(content: Any) -> str:
    return files.sha256_text(json.dumps(content, sort_keys=True))


def _hash_weights(root: Path, folder: str, manifest: Manifest, known: Hashes) -> str:
    """The hash of the tensors; what is read of the base is verified.

    Weights that are known are not read, and the other files then verified alone.
    """
    name = f"{folder}/{WEIGHTS}"
    if name not in manifest.files:
        raise ModelError(f"{root} holds no {name}", "Copy or train the bundle again")

    head = read_head_modules(root)
    file = (manifest.files[name].sha256, head)
    if file in known:
        for other in _file_names(manifest, folder):
            if other != WEIGHTS:
                layout.verify(root, manifest, f"{folder}/{other}")
        return known[file]

    layout.verify(root, manifest, folder)
    known[file] = _hash_tensors(root / name, head)
    return known[file]


def _hash_tensors(path: Path, head: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    try:
        with safe_open(path, framework="numpy") as weights:
            # Sorted: the order in the file says nothing about the model.
            for name in sorted(weights.keys()):
                if name.split(".")[0] in head:
                    continue
                tensor = weights.get_tensor(name)
                digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
                digest.update(tensor.tobytes())
    except (OSError, SafetensorError):
        raise ModelError(f"{path} cannot be read", "Copy or train the bundle again") from None
    return digest.hexdigest()
