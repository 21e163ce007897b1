"""Which bundles share a base: those whose trunks hold the same tensors.

The trunk is a model without its head. Heads differ in size with the number of labels.
"""

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open

from bankintent.bundle import layout
from bankintent.errors import ModelError
from bankintent.inference.adapters.reading import Unsuited, read_head_modules
from bankintent.labels import LabelSchema

WEIGHTS = "model.safetensors"

Hashes = dict[tuple[str, tuple[str, ...]], str]
"""(sha256 of a file of weights, modules of its head) -> the hash of its trunk."""

SHOWN = 12
"""Hex digits of a hash in a message."""


def trunk_hash(root: Path, known: Hashes | None = None) -> str:
    """The sha256 of the trunk under a bundle's adapter: names, types, shapes and values.

    `known` are trunks whose files were hashed before, and takes this one. ModelError where the base
    was changed since the bundle was published, or cannot be read.
    """
    folder = layout.base_folder(LabelSchema.load(root / layout.LABELS))
    manifest = layout.read_manifest(root)
    layout.verify(root, manifest, folder)
    hashes: Hashes = {} if known is None else known

    head = read_head_modules(root)
    # The file is what the manifest says: it was just verified.
    file = (manifest.files[f"{folder}/{WEIGHTS}"].sha256, head)
    if file not in hashes:
        hashes[file] = _hash_tensors(root / folder / WEIGHTS, head)
    return hashes[file]


def require_same_base(root: Path, expected: str, known: Hashes | None = None) -> None:
    """Unsuited where the bundle's adapter was trained on another trunk than `expected`."""
    found = trunk_hash(root, known)
    if found != expected:
        raise Unsuited(
            f"{root} was trained on base {found[:SHOWN]}, and the shared base is "
            f"{expected[:SHOWN]}",
            "Name a bundle that was trained on the shared base",
        )


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
