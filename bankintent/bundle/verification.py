"""Every promise of a bundle checked: its files, its labels, the gates of its formats.

Loading a model verifies what it reads; this verifies all.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bankintent import console, files
from bankintent.bundle import inside, layout
from bankintent.bundle.record import FileRecord, Manifest
from bankintent.errors import LabelError, ModelError
from bankintent.labels import LabelSchema

GRAPHS = {"onnx": "model.onnx", "onnx-int8": "model_int8.onnx", "openvino": "model.onnx"}
"""Exported format -> its file in `onnx/`."""

SETTINGS = "runtime.json"
"""File in `onnx/` that tells how the formats are fed, and what each of them answered."""

SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass
class Verdict:
    """What was found in a bundle."""

    files: int
    """Files, the manifest among them."""
    bytes: int
    faults: list[str] = field(default_factory=list)
    """A line for each promise that is broken."""
    notes: list[str] = field(default_factory=list)
    """A line for each card that has been edited, which is allowed."""


def verify(bundle: Path) -> Verdict:
    """Check a bundle as a whole.

    Raises ModelError where it has no manifest, or one that cannot be read.
    """
    if not (bundle / layout.MANIFEST).is_file():
        raise ModelError(
            f"{bundle} is no bundle: it holds no {layout.MANIFEST}",
            "Name a bundle such as artifacts/models/quickstart",
        )
    manifest = layout.read_manifest(bundle)
    _require_sound(bundle, manifest)

    # Links are listed and not followed: what they lead to is no part of the bundle.
    found = {name: bundle / name for name in inside.list_entries(bundle)}
    sizes = [path.stat().st_size for path in found.values() if path.is_file()]
    verdict = Verdict(files=len(sizes), bytes=sum(sizes))
    _check_files(bundle, manifest, found, verdict)
    verdict.faults += _label_faults(bundle, manifest)
    verdict.faults += _format_faults(bundle, manifest)
    return verdict


def show(verdict: Verdict) -> None:
    """Print the notes, then a line for each fault, or the one that says that there is none."""
    for note in verdict.notes:
        console.say(f"note: {note}")
    for fault in verdict.faults:
        console.say(fault)
    if not verdict.faults:
        megabytes = verdict.bytes / 1e6
        console.say(f"{verdict.files} files, {megabytes:,.1f} MB: as published")


def _require_sound(bundle: Path, manifest: Manifest) -> None:
    """Raise ModelError where the manifest's list is not one of files inside the bundle."""
    for name, record in manifest.files.items():
        parts = PurePosixPath(name).parts
        is_inside = parts and ".." not in parts and not name.startswith("/") and "\\" not in name
        if not is_inside or "/".join(parts) != name or ":" in parts[0]:
            raise _no_manifest(bundle, f"it lists {name!r}, which is no file inside the bundle")

        if record.size < 0 or not SHA256.fullmatch(record.sha256):
            raise _no_manifest(bundle, f"it has no size and sha256 of {name}")


def _no_manifest(bundle: Path, why: str) -> ModelError:
    return ModelError(
        f"{bundle}/{layout.MANIFEST} is not a bundle's manifest: {why}",
        "Copy or train the bundle again",
    )


def _check_files(
    bundle: Path, manifest: Manifest, found: dict[str, Path], verdict: Verdict
) -> None:
    for name in sorted({*manifest.files, *found} - {layout.MANIFEST}):
        fault = _file_fault(bundle / name, manifest.files.get(name))
        if fault is None:
            continue

        is_card = Path(name).name == layout.CARD and fault == CHANGED
        if is_card:
            verdict.notes.append(f"{name} was edited, as a card may be")
        else:
            verdict.faults.append(f"{name} {fault}")
    if (bundle / layout.MANIFEST).is_symlink():
        verdict.faults.append(f"{layout.MANIFEST} {LINK}")


CHANGED = "was changed since the bundle was published"
LINK = "is a link, and no file of the bundle"


def _file_fault(path: Path, record: FileRecord | None) -> str | None:
    """What is wrong with a file or its absence, in words; None where it is as published."""
    if path.is_symlink():
        return LINK
    if record is None:
        return "was added since the bundle was published"
    if not path.exists():
        return "is missing"
    if not path.is_file():
        return "is no regular file"

    size = path.stat().st_size
    try:
        # The size first: it is known without reading a file of hundreds of megabytes.
        is_same = size == record.size and files.sha256(path) == record.sha256
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if is_same else CHANGED


def _label_faults(bundle: Path, manifest: Manifest) -> list[str]:
    """Where the labels and the configs of the models do not agree."""
    try:
        labels = LabelSchema.load(bundle / layout.LABELS)
    except (LabelError, OSError) as error:
        # A missing or changed file has its line already.
        return [] if _is_at_fault(bundle, manifest, layout.LABELS) else [str(error)]

    faults = []
    for folder in (layout.MERGED, layout.base_folder(labels)):
        name = f"{folder}/{layout.MODEL_CONFIG}"
        if not (bundle / name).is_file() or _is_at_fault(bundle, manifest, name):
            continue
        if _names_in_config(bundle / name) != list(labels.names):
            faults.append(f"{name} has other labels than {layout.LABELS}")
    return faults


def _names_in_config(path: Path) -> list[str] | None:
    """The labels in a model's config in the order of their ids; None where it has none."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["id2label"]
        return [names[str(index)] for index in range(len(names))]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_at_fault(bundle: Path, manifest: Manifest, name: str) -> bool:
    return _file_fault(bundle / name, manifest.files.get(name)) is not None


def _format_faults(bundle: Path, manifest: Manifest) -> list[str]:
    """Where the formats and the records of their gates do not go together."""
    faults = []
    graphs = {GRAPHS[name] for name in manifest.formats if name in GRAPHS}
    for name in sorted(manifest.folder(layout.ONNX)):
        file = PurePosixPath(name).name
        if file.endswith(".onnx") and file not in graphs:
            faults.append(f"{name} has no record of its gate in {layout.MANIFEST}")

    probes = _probes(bundle)
    for name in sorted(manifest.formats):
        graph = f"{layout.ONNX}/{GRAPHS.get(name, '')}"
        if name not in GRAPHS:
            faults.append(f"{layout.MANIFEST} records a gate of {name}, which is no format")
        elif graph not in manifest.files:
            faults.append(f"{graph}, for which {layout.MANIFEST} records a gate, is not listed")
        elif probes is not None and name not in probes:
            faults.append(f"{layout.ONNX}/{SETTINGS} has no answers of {name} to compare with")
    return faults


def _probes(bundle: Path) -> dict[str, object] | None:
    """The recorded answers of the formats; None where their file cannot be read."""
    path = bundle / layout.ONNX / SETTINGS
    try:
        probes = json.loads(path.read_text(encoding="utf-8"))["probes"]
    except (OSError, ValueError, KeyError, TypeError):
        # A missing or changed file has its line already.
        return None
    return probes if isinstance(probes, dict) else {}
