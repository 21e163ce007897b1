"""Bundles whose files are changed, cut, removed, added or made links, one at a time.

`verify` must name exactly that file, in one line; a broken manifest must be refused in one line; and
an edited card is a note.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bankintent import files
from bankintent.bundle import layout, verification
from bankintent.errors import ModelError
from bankintent.labels import LabelSchema
from faults.tally import Tally

Alter = Callable[[Path], object]

LABELS = ("card_lost", "Exchange", "top_up")


def write_bundle(folder: Path) -> Path:
    """A bundle with every kind of file; none of them is a model that loads, which verify never does."""
    labels = LabelSchema(LABELS)
    folder.mkdir()
    labels.save(folder / layout.LABELS)
    for part in (layout.MERGED, layout.base_folder(labels)):
        config = {"id2label": {str(index): name for index, name in labels.id2label.items()}}
        files.write_text(folder / part / layout.MODEL_CONFIG, files.json_text(config))
        (folder / part / "model.safetensors").write_bytes(part.encode() * 500)
    files.write_text(folder / layout.ADAPTER / "adapter_config.json", "{}")
    files.write_text(folder / layout.CARD, "# A card\n")
    files.write_text(folder / layout.MERGED / layout.CARD, "# Its card\n")
    files.write_text(folder / layout.METRICS, "{}")
    files.write_text(folder / layout.CONFIG, "regime: lora\n")
    (folder / layout.ONNX).mkdir()
    (folder / layout.ONNX / "model.onnx").write_bytes(b"graph" * 500)
    settings = {"probes": {"onnx": [[0.5]]}}
    files.write_text(folder / layout.ONNX / verification.SETTINGS, files.json_text(settings))
    layout.seal(folder, {"name": "tiny", "parity": {"formats": {"onnx": {"rows": 1}}}})
    return folder


def flip(place: float) -> Alter:
    """Change one bit of a byte."""

    def alter(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[int(place * (len(content) - 1))] ^= 1
        path.write_bytes(content)

    return alter


def cut(path: Path) -> None:
    """Leave half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def lengthen(path: Path) -> None:
    """Add a byte."""
    path.write_bytes(path.read_bytes() + b" ")


def link(path: Path) -> None:
    """Put a link to the same content in the place of a file."""
    [bundle] = [folder for folder in path.parents if (folder / layout.MANIFEST).exists()]
    outside = bundle.with_name("outside")
    shutil.copyfile(path, outside)
    path.unlink()
    path.symlink_to(outside)


def become_a_folder(path: Path) -> None:
    """Put an empty folder in the place of a file."""
    path.unlink()
    path.mkdir()


ALTERATIONS: dict[str, Alter] = {
    "first bit": flip(0.0),
    "middle bit": flip(0.5),
    "last bit": flip(1.0),
    "cut": cut,
    "emptied": lambda path: path.write_bytes(b""),
    "lengthened": lengthen,
    "removed": Path.unlink,
    "a link": link,
    "a folder": become_a_folder,
}

ADDED: dict[str, Alter] = {
    "extra.bin": lambda path: path.write_bytes(b"x"),
    "merged/pytorch_model.bin": lambda path: path.write_bytes(b"x"),
    "merged/.hidden": lambda path: path.touch(),
    "onnx/model_int8.onnx": lambda path: path.write_bytes(b"x"),
    "new/deep/file.txt": lambda path: files.write_text(path, "x"),
    "link-to-a-folder": lambda path: path.symlink_to(Path.cwd()),
    "link-to-nothing": lambda path: path.symlink_to("nowhere"),
    "merged/README.md.bak": lambda path: path.touch(),
    "adapter/README.md": lambda path: path.touch(),
}

MANIFESTS = {
    "no JSON": "{",
    "a list": "[]",
    "no files": '{"name": "x"}',
    "files is a list": '{"files": ["labels.json"]}',
    "a number as record": '{"files": {"labels.json": 7}}',
    "text as size": {"labels.json": {"size": "7", "sha256": "0" * 64}},
    "true as size": {"labels.json": {"size": True, "sha256": "0" * 64}},
    "negative size": {"labels.json": {"size": -1, "sha256": "0" * 64}},
    "a fraction as size": {"labels.json": {"size": 7.5, "sha256": "0" * 64}},
    "a number as hash": {"labels.json": {"size": 7, "sha256": 7}},
    "a short hash": {"labels.json": {"size": 7, "sha256": "abc"}},
    "a file above": {"../secret": {"size": 7, "sha256": "0" * 64}},
    "a file far above": {"merged/../../secret": {"size": 7, "sha256": "0" * 64}},
    "an absolute file": {"/etc/hostname": {"size": 7, "sha256": "0" * 64}},
    "a file of Windows": {"c:\\secret": {"size": 7, "sha256": "0" * 64}},
    "no name": {"": {"size": 7, "sha256": "0" * 64}},
    "a detour": {"./labels.json": {"size": 7, "sha256": "0" * 64}},
    "noise": "\0\1\2",
}
"""Text of a manifest, or its entries."""


def run(count: int) -> Tally:
    """Try the first `count` situations."""
    tally = Tally("altered_bundles")
    for number, (name, judge) in enumerate(situations()):
        if number == count:
            break
        with tempfile.TemporaryDirectory() as folder:
            tally.add(name, judge(write_bundle(Path(folder) / "bundle")))
    return tally


def situations() -> Iterator[tuple[str, Callable[[Path], str | None]]]:
    """The name of each, and what is wrong after it has been done to a bundle."""
    yield "nothing", lambda bundle: expect(bundle, [])
    for name, content in MANIFESTS.items():
        yield f"manifest: {name}", lambda bundle, content=content: refuse(bundle, content)
    yield "labels of another order", other_labels
    yield "a format without a gate", without_gate
    yield "a gate without a format", without_graph
    yield "a format without answers", without_probes
    for name, alter in ADDED.items():
        yield f"added {name}", lambda bundle, name=name, alter=alter: after(bundle, name, alter)
    with tempfile.TemporaryDirectory() as folder:
        names = sorted(layout.read_manifest(write_bundle(Path(folder) / "bundle")).files)
    for how, alter in ALTERATIONS.items():
        for name in names:
            yield (
                f"{name}: {how}",
                lambda bundle, name=name, alter=alter: after(bundle, name, alter),
            )


def after(bundle: Path, name: str, alter: Alter) -> str | None:
    """What is wrong with the verdict after one file was altered."""
    path = bundle / name
    is_card = path.name == layout.CARD and path.exists()
    alter(path)
    is_edited = is_card and path.is_file() and not path.is_symlink()
    return expect(bundle, [] if is_edited else [name], notes=[name] if is_edited else [])


def expect(bundle: Path, faults: list[str], notes: list[str] | None = None) -> str | None:
    """What is wrong with a verdict that must name these files and no others."""
    verdict = verification.verify(bundle)
    is_right = [line.split()[0] for line in verdict.faults] == faults
    if is_right and [line.split()[0] for line in verdict.notes] == (notes or []):
        return None
    return f"found {verdict.faults} and {verdict.notes}"


def refuse(bundle: Path, content: object) -> str | None:
    """What is wrong where a manifest of this content is not refused in one line."""
    text = content if isinstance(content, str) else json.dumps({"files": content})
    (bundle / layout.MANIFEST).write_text(text)
    try:
        verdict = verification.verify(bundle)
    except ModelError as error:
        return None if "\n" not in str(error) else "more than one line"
    return f"was taken: {verdict.faults}"


@contextlib.contextmanager
def resealed(bundle: Path) -> Iterator[dict[str, object]]:
    """Change the facts or files of a bundle, and seal it again."""
    facts = json.loads((bundle / layout.MANIFEST).read_text())
    del facts["files"]
    (bundle / layout.MANIFEST).unlink()
    yield facts
    layout.seal(bundle, facts)


def other_labels(bundle: Path) -> str | None:
    """The labels of merged/ are not those of the bundle."""
    with resealed(bundle):
        config = {"id2label": {"0": "top_up", "1": "Exchange", "2": "card_lost"}}
        (bundle / "merged/config.json").write_text(json.dumps(config))
    return expect(bundle, ["merged/config.json"])


def without_gate(bundle: Path) -> str | None:
    """A format of which no gate is recorded."""
    with resealed(bundle) as facts:
        facts["parity"] = {"formats": {}}
    return expect(bundle, ["onnx/model.onnx"])


def without_graph(bundle: Path) -> str | None:
    """A gate of a format that is not there."""
    with resealed(bundle):
        (bundle / "onnx/model.onnx").unlink()
    return expect(bundle, ["onnx/model.onnx,"])


def without_probes(bundle: Path) -> str | None:
    """A format without answers to compare with."""
    with resealed(bundle):
        (bundle / "onnx/runtime.json").write_text('{"probes": {}}')
    return expect(bundle, ["onnx/runtime.json"])
