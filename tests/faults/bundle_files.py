"""Links, pipes, devices and folders in place of each file that is read from a bundle.

What must hold: the file is refused or not shown, within seconds, and no content of a file outside
of the bundle is in any answer. All situations are tried in one child process, whose alarm ends a
read that would wait for ever.
"""

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bankintent.bundle.layout import Checkpoint, find_manifest
from bankintent.labels import LabelSchema
from faults.tally import Tally

TESTS = Path(__file__).parents[1]

SECONDS = 10
"""Longest time of one read."""

MEMORY = 3 << 30
"""Bytes of address space of the child."""

SECRET = "the-content-of-a-file-outside"

LABELS = ("card_lost", "top_up")

CARD = "# A card\n\nIts own text.\n"

CHILD = "import sys; from faults import bundle_files; bundle_files.try_all(int(sys.argv[1]))"


def run(count: int) -> Tally:
    """Try at most `count` files and replacements."""
    tally = Tally("bundle_files")
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(count)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    for line in child.stdout.splitlines():
        situation, fault = json.loads(line)
        tally.add(situation, fault)
    if child.returncode != 0:
        tally.add("the child", child.stderr[-300:])
    return tally


def try_all(count: int) -> None:
    """Print a line for each situation: what it is, and what came out where it did not hold."""
    signal.signal(signal.SIGALRM, _give_up)
    # A device has no end: it must not take this machine's memory.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    pairs = itertools.product(READS, REPLACEMENTS)
    for name, replacement in itertools.islice(pairs, count):
        with tempfile.TemporaryDirectory() as folder:
            fault = try_one(Path(folder), name, replacement)
        print(json.dumps([f"{name} as {replacement}", fault]), flush=True)


def try_one(folder: Path, name: str, replacement: str) -> str | None:
    """What came out of reading a bundle with one file replaced; None where it held."""
    bundle = write_bundle(folder / "bundle")
    original = folder / "original"
    target = bundle / name

    # The same content outside: its hash is the recorded one.
    if target.is_dir():
        shutil.copytree(target, original)
        shutil.rmtree(target)
    else:
        shutil.copy(target, original)
        target.unlink()
    (folder / "secret").write_text(SECRET)
    REPLACEMENTS[replacement](target, folder)

    signal.alarm(SECONDS)
    try:
        shown = READS[name](bundle)
    except Exception as error:  # noqa: BLE001 (what it is decides)
        return _judge_error(error)
    finally:
        signal.alarm(0)
    if SECRET in shown:
        return "shows the content of a file outside"
    return None if shown == "nothing" else f"was read: {shown[:100]}"


def _judge_error(error: Exception) -> str | None:
    from bankintent.errors import UserError

    if SECRET in str(error):
        return "an error shows the content of a file outside"
    if isinstance(error, UserError):
        return None
    return f"{type(error).__name__}: {error}"[:200]


def _give_up(number: int, frame: object) -> None:
    raise TimeoutError("did not end")


def write_bundle(bundle: Path) -> Path:
    """A sealed bundle of files that have the right names; no model is in it."""
    import numpy as np

    from bankintent.bundle import index, layout, out_of_fold
    from bankintent.corpus.dataset import SplitData

    labels = LabelSchema(LABELS)
    config = {"id2label": dict(enumerate(LABELS))}
    for part in (layout.MERGED, layout.ONNX):
        (bundle / part).mkdir(parents=True)
    (bundle / "merged/config.json").write_text(json.dumps(config))
    (bundle / "merged/tokenizer.json").write_text("{}")
    (bundle / "merged/model.safetensors").write_bytes(b"weights")
    for name in ("runtime.json", "tokenizer.json", "model.onnx"):
        (bundle / "onnx" / name).write_text("{}")

    labels.save(bundle / layout.LABELS)
    (bundle / layout.CARD).write_text(CARD)
    point = {"rows": 8, "accuracy": 0.5}
    cross = {"validation": {"cross": {"learning_curve": [point]}}}
    (bundle / layout.METRICS).write_text(json.dumps(cross))
    out_of_fold.write(bundle, labels, ["a"], np.array([0]), np.zeros((1, 1, 2), np.float32))
    row = SplitData(["a"], ["a text"], [0])
    features = np.ones((1, 2), np.float32)
    index.write(bundle, labels, row, features, trained_on=1, with_texts=True)
    layout.seal(bundle, {"name": "tiny"})

    evals = bundle / "evals"
    evals.mkdir()
    (evals / "confusion.png").write_bytes(b"\x89PNG")
    (evals / "metrics.json").write_text(json.dumps({"checkpoint": {"labels_hash": labels.hash}}))
    return bundle


def read_model(bundle: Path) -> str:
    """Open the model, as a server does."""
    from bankintent.bundle import layout

    return f"opened {layout.open_checkpoint(bundle).labels.names}"


def read_manifest(bundle: Path) -> str:
    """Open the model, and look for the manifest, as an evaluation does."""
    from bankintent.bundle import layout

    if layout.find_manifest(bundle) is None:
        layout.open_checkpoint(bundle)
        return "opened without its manifest"
    return read_model(bundle)


def read_format(bundle: Path) -> str:
    """Open an exported format, as a server does."""
    from bankintent.bundle import layout
    from bankintent.inference import exported_runtime

    formats = layout.open_formats(bundle)
    if formats is None:
        return "nothing"
    exported_runtime.verify_format(formats, "onnx")
    return "opened"


def read_card(bundle: Path) -> str:
    """The card, as `/card` shows it."""
    from bankintent.serving.page.card import read_card as read

    text = read(bundle)
    return "nothing" if text.startswith("This model has no card") else text


def read_figures(bundle: Path) -> str:
    """The figures of a bundle, as an evaluation shows them."""
    from bankintent.inference import cross_record

    return str(cross_record._read_curve(_checkpoint(bundle)) or "nothing")


def read_answers(bundle: Path) -> str:
    """The answers out of fold."""
    from bankintent.bundle import out_of_fold

    return str(out_of_fold.read(_checkpoint(bundle)).ids)


def read_index(bundle: Path) -> str:
    """The index of training sentences, as an explanation reads it."""
    from bankintent.bundle import index

    found = index.read(bundle, find_manifest(bundle), LabelSchema(LABELS))
    return "nothing" if found is None else str(found.rows)


def _checkpoint(bundle: Path) -> Checkpoint:
    """The bundle without a look at its model."""
    manifest = find_manifest(bundle)
    return Checkpoint(bundle, LabelSchema(LABELS), bundle / "merged", None, manifest)


def read_plots(bundle: Path) -> str:
    """The plots of an evaluation, as `/card` shows them."""
    from bankintent.serving.page.card import find_plots

    plots = find_plots(bundle / "evals", LabelSchema(LABELS).hash)
    return " ".join(path.read_text(errors="replace") for path in plots.values()) or "nothing"


READS: dict[str, Callable[[Path], str]] = {
    "README.md": read_card,
    "manifest.json": read_manifest,
    "labels.json": read_model,
    "merged": read_model,
    "merged/config.json": read_model,
    "merged/tokenizer.json": read_model,
    "merged/model.safetensors": read_model,
    "onnx": read_format,
    "onnx/runtime.json": read_format,
    "onnx/tokenizer.json": read_format,
    "onnx/model.onnx": read_format,
    "metrics.json": read_figures,
    "out_of_fold.parquet": read_answers,
    "index": read_index,
    "index/rows.json": read_index,
    "index/vectors.safetensors": read_index,
    "evals/metrics.json": read_plots,
    "evals/confusion.png": read_plots,
}
"""Each file of a bundle, and what reads it."""


def _link(to: str) -> Callable[[Path, Path], Any]:
    return lambda target, folder: target.symlink_to(folder / to)


def _huge(target: Path, folder: Path) -> None:
    with target.open("wb") as file:
        file.write(SECRET.encode())
        file.truncate(2 << 30)


REPLACEMENTS: dict[str, Callable[[Path, Path], Any]] = {
    "a link to a secret": _link("secret"),
    "a link to the same content": _link("original"),
    "a pipe": lambda target, folder: os.mkfifo(target),
    "a link to itself": lambda target, folder: target.symlink_to(target),
    "a link to nothing": _link("nothing"),
    "a link upwards": lambda target, folder: target.symlink_to(Path("..")),
    "a relative link": lambda target, folder: target.symlink_to(
        os.path.relpath(folder / "secret", target.parent)
    ),
    "a link to a device": lambda target, folder: target.symlink_to("/dev/zero"),
    "a link to a pipe": lambda target, folder: (
        os.mkfifo(folder / "pipe"),
        target.symlink_to(folder / "pipe"),
    ),
    "a folder": lambda target, folder: target.mkdir(),
    "a file of 2 GB": _huge,
}
"""What stands in the place of a file: made at a path, with `secret` and `original` beside."""
