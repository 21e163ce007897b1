"""The layout of a bundle: how it is sealed, and how a checkpoint folder is opened and verified."""

from dataclasses import dataclass
from pathlib import Path

from bankintent import files
from bankintent.bundle import config_labels, inside, model_files
from bankintent.bundle.record import FileRecord, Manifest
from bankintent.errors import ModelError
from bankintent.files import JsonObject
from bankintent.labels import LabelSchema

MERGED = "merged"
"""Folder of the plain model, which transformers loads by itself."""

ADAPTER = "adapter"
"""Folder of a LoRA run's adapter and trained head, for PEFT."""

ONNX = "onnx"
"""Folder of the exported formats, which need neither torch nor transformers."""

MANIFEST = "manifest.json"
"""It makes a folder a bundle."""

LABELS = "labels.json"
METRICS = "metrics.json"

CONFIG = "config.yaml"
"""The settings of the run."""

CARD = "README.md"
"""The name under which the Hub shows a model card."""

MODEL_CONFIG = model_files.CONFIG
"""The config of transformers in a model folder; `CONFIG` is that of the run."""


NAME_A_MODEL = (
    "Name a bundle such as artifacts/models/quickstart, its merged/, or a classifier's folder"
)
"""What to do where a path leads to no model."""

DATA_FILE = "train.parquet"
"""A file that ETL's output has and no bundle: both have a manifest and labels."""


def base_folder(labels: LabelSchema) -> str:
    """The folder of the adapter's base model: `base_77` for 77 labels."""
    return f"base_{len(labels)}"


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk, ready to load: a plain transformers folder, or a base with an adapter."""

    root: Path
    """The bundle, also where a path to its merged/ was given; or the plain folder."""
    labels: LabelSchema
    model: Path
    """The transformers folder: merged, or the adapter's base."""
    adapter: Path | None
    manifest: Manifest | None
    """The bundle's manifest; None for a plain checkpoint."""

    @property
    def name(self) -> str:
        """The name of the bundle or of the plain folder."""
        return self.root.resolve().name

    @property
    def format(self) -> str:
        """The form in which the model is saved, for reports."""
        if self.adapter is not None:
            return "base + adapter"
        if self.manifest is not None:
            return "merged"
        return "plain checkpoint"


@dataclass(frozen=True)
class Formats:
    """The exported formats of a bundle, which need neither torch nor transformers."""

    root: Path
    labels: LabelSchema
    manifest: Manifest

    @property
    def folder(self) -> Path:
        """The folder of all formats."""
        return self.root / ONNX

    @property
    def passed(self) -> dict[str, JsonObject]:
        """The formats that passed their gate at publishing, with its figures."""
        return self.manifest.formats

    @property
    def left_out(self) -> dict[str, str]:
        """The formats that did not, with the reason."""
        return self.manifest.left_out


def open_checkpoint(path: Path) -> Checkpoint:
    """Find and verify the model at a path: merged, otherwise base + adapter, or a plain folder.

    Raises ModelError where there is nothing to load, a file was changed, or a plain folder is no
    whole classifier of its own; LabelError where labels are missing or differ.
    """
    if not path.exists():
        raise ModelError(
            f"{path} does not exist", "Name a bundle such as artifacts/models/quickstart"
        )

    # The bundle first: its merged/ is a plain folder too, but only a manifest can verify it.
    root = _root(path)
    if (root / MANIFEST).is_file():
        return _open_bundle(root)
    if (path / MODEL_CONFIG).exists():
        return _open_plain(path)

    if (path / "adapter_config.json").is_file():
        raise ModelError(
            f"{path} is an adapter without its base model",
            "Name the bundle that holds it, or its merged/",
        )
    if path.is_file():
        raise ModelError(f"{path} is a file, and no folder of a model", NAME_A_MODEL)
    raise ModelError(
        f"{path} is no bundle (no {MANIFEST}) and no checkpoint (no {MODEL_CONFIG})", NAME_A_MODEL
    )


def open_formats(path: Path) -> Formats | None:
    """The exported formats of the bundle at a path, its labels verified; None without any.

    Raises ModelError or LabelError as `open_checkpoint` does. The files of a format are for its
    loader to verify.
    """
    # A plain folder may hold onnx/ too, but no manifest that its files could be checked with.
    root = _root(path)
    if not (root / MANIFEST).is_file() or not (root / ONNX).is_dir():
        return None

    manifest = read_manifest(root)
    labels = _read_labels(root, manifest)
    return Formats(root, labels, manifest)


def find_manifest(path: Path) -> Manifest | None:
    """The manifest of the bundle at a path or around it; None for any other folder.

    ModelError where it cannot be read. No file is verified.
    """
    root = _root(path)
    if not (root / MANIFEST).is_file():
        return None
    return read_manifest(root)


def _root(path: Path) -> Path:
    """The bundle of which a path is merged/ or onnx/, otherwise the path itself."""
    parent = path.resolve().parent
    if path.name in (MERGED, ONNX) and (parent / MANIFEST).is_file():
        return parent
    return path


def _open_bundle(root: Path) -> Checkpoint:
    manifest = read_manifest(root)
    labels = _read_labels(root, manifest)
    model, adapter = _find_model(root, labels)

    if adapter is not None:
        verify(root, manifest, adapter.name)
    verify(root, manifest, model.name)

    # Logits have the ids of the model's config, which might be those of other labels.
    named = config_labels.read_names(model, model_files.read_config(model))
    labels.require_same(named, f"{root}/{LABELS}", f"{model}/{MODEL_CONFIG}")
    return Checkpoint(root, labels, model, adapter, manifest)


def _read_labels(root: Path, manifest: Manifest) -> LabelSchema:
    """The labels of a bundle, their file verified."""
    verify(root, manifest, LABELS)
    inside.regular_file(root, LABELS, inside.LARGEST_TEXT)
    return LabelSchema.load(root / LABELS)


def _find_model(root: Path, labels: LabelSchema) -> tuple[Path, Path | None]:
    """The model folder of a bundle and the adapter that goes with it, None for a merged model.

    Raises ModelError where the bundle holds neither form whole.
    """
    merged = root / MERGED
    base = root / base_folder(labels)
    adapter = root / ADAPTER

    # Merged first: it has the same answers, and loads without PEFT.
    if merged.is_dir():
        return merged, None
    if base.is_dir() and adapter.is_dir():
        return base, adapter
    raise ModelError(
        f"{root} is no whole bundle: it holds neither {MERGED}/ nor {base.name}/ and {ADAPTER}/",
        "Copy the whole bundle",
    )


def _open_plain(path: Path) -> Checkpoint:
    config = model_files.require_whole(path)
    labels = config_labels.read_plain(path, config, path / LABELS)
    return Checkpoint(path, labels, model=path, adapter=None, manifest=None)


def weights_hash(model: Path) -> str:
    """One hash of a model's weights, of a transformers folder or of a bundle's merged model.

    ModelError where a file of weights cannot be read.
    """
    is_bundle = (model / MANIFEST).is_file()
    folder = model / MERGED if is_bundle else model
    # Sorted, because the file system's order differs between machines.
    # Not what would hang or has no end: a pipe, a device.
    weights = [file for file in sorted(folder.glob("*.safetensors")) if file.is_file()]
    try:
        hashes = [files.sha256(file) for file in weights]
    # A folder of that name, a link that leads nowhere, a file of somebody else.
    except OSError as error:
        raise ModelError(
            f"the weights of {model} cannot be read ({error.strerror})",
            "Check the files, their owner and mode",
        ) from None
    return files.sha256_text(" ".join(hashes))


def read_manifest(root: Path) -> Manifest:
    """The manifest of a bundle; ModelError where the file is not one."""
    try:
        manifest = Manifest.from_json(inside.read_text(root, MANIFEST))
    except (OSError, ValueError):
        raise ModelError(
            f"{root}/{MANIFEST} is not a bundle's manifest", "Train again, or name another bundle"
        ) from None

    if DATA_FILE in manifest.files:
        raise ModelError(f"{root} is ETL's output, the data and no model", NAME_A_MODEL)
    return manifest


def verify(root: Path, manifest: Manifest, part: str) -> None:
    """Check one file or every file of one folder; ModelError names the first that differs.

    A link is none of the files of a bundle, whatever it leads to.

    Cards are left out: only people read them, and they may fill in what a card cannot know, such
    as a license.
    """
    path = root / part
    # Recorded files may be missing, and files on disk may have been added.
    names = set(manifest.folder(part))
    if path.is_dir():
        names |= {f"{part}/{name}" for name in inside.list_entries(path)}
    # A part that is one file, or that is nowhere, is checked under its own name.
    if part in manifest.files or not path.is_dir():
        names.add(part)

    for name in sorted(names):
        if Path(name).name == CARD:
            continue
        fault = inside.fault(root, name)
        if fault in (None, inside.MISSING):
            changed = _find_fault(root / name, manifest.files.get(name))
            fault = changed and f"{changed} since the bundle was published"
        if fault is not None:
            raise ModelError(f"{root}: {name} {fault}", "Copy or train the bundle again")


def _find_fault(path: Path, record: FileRecord | None) -> str | None:
    """The change of a file since it was recorded, in words; None where it is the same."""
    if record is None:
        return "was added"
    if not path.is_file():
        return "is missing"

    # The size first: it is known without reading a file of hundreds of megabytes.
    if path.stat().st_size != record.size or files.sha256(path) != record.sha256:
        return "was changed"
    return None


def seal(staging: Path, facts: JsonObject) -> None:
    """Write the manifest: the given facts, then size and sha256 of every file.

    It is written last of all, so that a bundle with a manifest is whole.
    """
    records = {}
    for name in files.list_files(staging):
        path = staging / name
        size = path.stat().st_size
        records[name] = {"size": size, "sha256": files.sha256(path)}

    manifest = {**facts, "files": records}
    files.write_text(staging / MANIFEST, files.json_text(manifest))
