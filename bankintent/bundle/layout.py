"""What a bundle holds and where, how it is sealed, and how any checkpoint folder is opened and verified."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bankintent import files
from bankintent.errors import LabelError, ModelError
from bankintent.labels import LabelSchema

MERGED = "merged"
ADAPTER = "adapter"
ONNX = "onnx"
MANIFEST = "manifest.json"
LABELS = "labels.json"
METRICS = "metrics.json"
CONFIG = "config.yaml"
CARD = "README.md"


def base_folder(labels: LabelSchema) -> str:
    """The folder of the adapter's base model: `base_77` for 77 labels."""
    return f"base_{len(labels)}"


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk, ready to load: a plain transformers folder, or a base with an adapter."""

    root: Path
    """What the user named: the bundle (also where its merged/ was named), or the plain folder."""
    labels: LabelSchema
    model: Path
    """The transformers folder: merged, or the adapter's base."""
    adapter: Path | None
    manifest: dict[str, Any] | None
    """The bundle's manifest; None for a plain checkpoint."""

    @property
    def name(self) -> str:
        return self.root.resolve().name

    @property
    def format(self) -> str:
        return (
            ("merged" if self.manifest else "plain checkpoint")
            if self.adapter is None
            else "base + adapter"
        )


def open_checkpoint(path: Path) -> Checkpoint:
    """Find what can be loaded at a path and verify it: merged if present, else base + adapter, else a plain folder.

    Raises ModelError where there is nothing to load or a file was changed, LabelError where labels are missing.
    """
    if not path.exists():
        raise ModelError(
            f"{path} does not exist", "Name a bundle such as artifacts/models/quickstart"
        )
    root = _root(path)
    if (root / MANIFEST).is_file():
        return _open_bundle(root)
    if (path / "config.json").is_file():
        return _open_plain(path)
    if (path / "adapter_config.json").is_file():
        raise ModelError(
            f"{path} is an adapter without its base model",
            "Name the bundle that holds it, or its merged/",
        )
    raise ModelError(
        f"{path} is no bundle (no {MANIFEST}) and no checkpoint (no config.json)",
        "Name another folder",
    )


@dataclass(frozen=True)
class Formats:
    """The exported formats of a bundle, which need neither torch nor transformers."""

    root: Path
    labels: LabelSchema
    manifest: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.root / ONNX

    @property
    def passed(self) -> dict[str, Any]:
        """The formats that passed their gate at publishing, with its figures."""
        return dict(self.manifest.get("parity", {}).get("formats", {}))

    @property
    def left_out(self) -> dict[str, str]:
        """The formats that did not, with the reason."""
        return dict(self.manifest.get("parity", {}).get("left_out", {}))


def open_formats(path: Path) -> Formats | None:
    """The exported formats of the bundle at a path, its labels verified; None where there are none.

    Raises ModelError or LabelError as `open_checkpoint` does. The files of a format are for its loader to verify.
    """
    root = _root(path)
    if not (root / MANIFEST).is_file() or not (root / ONNX).is_dir():
        return None
    manifest = read_manifest(root)
    verify(root, manifest, LABELS)
    return Formats(root, LabelSchema.load(root / LABELS), manifest)


def _root(path: Path) -> Path:
    """The bundle of which a path is one of the formats, or the path itself."""
    parent = path.resolve().parent
    return parent if path.name in (MERGED, ONNX) and (parent / MANIFEST).is_file() else path


def _open_bundle(root: Path) -> Checkpoint:
    manifest = read_manifest(root)
    verify(root, manifest, LABELS)
    labels = LabelSchema.load(root / LABELS)
    base = base_folder(labels)
    if (root / MERGED).is_dir():
        model, adapter = root / MERGED, None
    elif (root / base).is_dir() and (root / ADAPTER).is_dir():
        model, adapter = root / base, root / ADAPTER
        verify(root, manifest, ADAPTER)
    else:
        raise ModelError(
            f"{root} holds neither {MERGED}/ nor {base}/ and {ADAPTER}/", "Copy the whole bundle"
        )
    verify(root, manifest, model.name)
    labels.require_same(_config_labels(model), f"{root}/{LABELS}", f"{model}/config.json")
    return Checkpoint(root, labels, model, adapter, manifest)


def _open_plain(path: Path) -> Checkpoint:
    from_config = _config_labels(path)
    if (path / LABELS).is_file():
        labels = LabelSchema.load(path / LABELS)
        if len(from_config) != len(labels):
            labels.require_same(from_config, f"{path}/{LABELS}", f"{path}/config.json")
    elif from_config.names == tuple(f"LABEL_{i}" for i in range(len(from_config))):
        raise LabelError(
            f"{path} names no labels: its config has LABEL_0, LABEL_1, ...",
            f"Put the labels.json of its data into {path}",
        )
    else:
        labels = from_config
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{path} holds no safetensors weights", "Save the model with safe serialization"
        )
    return Checkpoint(path, labels, path, None, None)


def _config_labels(folder: Path) -> LabelSchema:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # transformers writes no id2label for the two labels it assumes by default.
        names = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
        return LabelSchema(tuple(names[str(index)] for index in range(len(names))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(
            f"{folder}/config.json is not the config of a sequence classifier", "Name another"
        ) from None


def weights_hash(model: Path) -> str:
    """One hash of a model's weights; `model` is a transformers folder or a bundle, whose merged model is meant."""
    folder = model / MERGED if (model / MANIFEST).is_file() else model
    return files.sha256_text(
        " ".join(files.sha256(file) for file in sorted(folder.glob("*.safetensors")))
    )


def read_manifest(root: Path) -> dict[str, Any]:
    """The manifest of a bundle; ModelError where it is not one."""
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest["files"], dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{root}/{MANIFEST} is not a bundle's manifest", "Train again, or name another bundle"
        ) from None
    return dict(manifest)


def verify(root: Path, manifest: dict[str, Any], part: str) -> None:
    """Check one file, or every file of one folder, against the manifest; ModelError names the first that differs.

    Cards are left out: nothing reads them but people, who may fill in what a card cannot know, such as a license.
    """
    path = root / part
    found = {f"{part}/{name}" for name in files.list_files(path)} if path.is_dir() else {part}
    recorded = {name for name in manifest["files"] if name == part or name.startswith(f"{part}/")}
    for name in sorted(name for name in found | recorded if Path(name).name != CARD):
        entry = manifest["files"].get(name)
        if entry is None:
            fault = "was added"
        elif not (root / name).is_file():
            fault = "is missing"
        elif (root / name).stat().st_size != entry["size"] or files.sha256(root / name) != entry[
            "sha256"
        ]:
            fault = "was changed"
        else:
            continue
        raise ModelError(
            f"{root}: {name} {fault} since the bundle was published",
            "Copy or train the bundle again",
        )


def seal(staging: Path, facts: dict[str, Any]) -> None:
    """Write the manifest, last of all: size and sha256 of every file, beside the given facts."""
    contents = {
        name: {"size": (staging / name).stat().st_size, "sha256": files.sha256(staging / name)}
        for name in files.list_files(staging)
    }
    files.write_text(staging / MANIFEST, files.json_text({**facts, "files": contents}))
