"""JSON records of a bundle and of ETL's output with a value of a wrong type, or without it.

Held: the reader refuses the record in one line, or the value is one that nothing reads.
"""

import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from policy_fixtures import make_record, save_vectors
from serving_fixtures import LABELS, write_tiny_model

from bankintent import files
from bankintent.config import TrainConfig
from bankintent.decision.policy import POLICY, VECTORS, ScopeRule, Thresholds
from bankintent.errors import UserError
from bankintent.labels import LabelSchema
from faults.tally import Tally

WRONG = (None, 3, "x", [], {}, [1], {"x": 1}, True, -1.5)
"""A value of each type, of which most are wrong in any place."""

DEPTH = 4
"""Keys down to which a record is changed."""

Mutation = tuple[str, Any]
"""The change in words, and the whole record with it."""


def run(count: int) -> Tally:
    """Try at most `count` mutations of each record."""
    tally = Tally("records of wrong types")
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder) / "data")
        bundle = make_bundle(Path(folder) / "bundle", data)
        for name in ("manifest.json", "labels.json"):
            _try_all(tally, count, bundle, name, open_bundle)
            _try_all(tally, count, data, name, open_data)
        _try_all(tally, count, bundle, "policy.json", open_policy)
        _try_all(tally, count, bundle, "index/rows.json", open_index)
    return tally


def _try_all(
    tally: Tally, count: int, folder: Path, name: str, read: Callable[[Path], None]
) -> None:
    record = json.loads((folder / name).read_text(encoding="utf-8"))
    tried = folder.with_name(f"{folder.name}-tried")

    for words, changed in _spread(list(mutations(record)), count):
        shutil.rmtree(tried, ignore_errors=True)
        shutil.copytree(folder, tried)
        (tried / name).write_text(json.dumps(changed), encoding="utf-8")
        tally.add(f"{folder.name}/{name}: {words}", _fault(read, tried))


def _spread(items: list[Mutation], count: int) -> list[Mutation]:
    """At most `count` of the items, evenly spread."""
    step = max(1, len(items) // count)
    return items[::step][:count]


def _fault(read: Callable[[Path], None], folder: Path) -> str | None:
    try:
        read(folder)
    except UserError:
        return None
    except Exception as error:  # noqa: BLE001 (any other error is what is looked for)
        return f"{type(error).__name__}: {error}"
    return None


def mutations(value: Any) -> Iterator[Mutation]:
    """The record with each value replaced by each of WRONG, and without it."""
    for path in _paths(value, DEPTH):
        name = ".".join(map(str, path)) or "the record"
        if path:
            yield f"without {name}", _without(value, path)
        for wrong in WRONG:
            yield f"{name} = {wrong!r}", _with(value, path, wrong)


def _paths(value: Any, depth: int) -> Iterator[tuple[str, ...]]:
    yield ()
    if depth == 0 or not isinstance(value, dict):
        return
    for key, child in value.items():
        for path in _paths(child, depth - 1):
            yield (key, *path)


def _with(value: Any, path: tuple[str, ...], new: Any) -> Any:
    if not path:
        return new
    changed = copy.deepcopy(value)
    _parent(changed, path)[path[-1]] = new
    return changed


def _without(value: Any, path: tuple[str, ...]) -> Any:
    changed = copy.deepcopy(value)
    del _parent(changed, path)[path[-1]]
    return changed


def _parent(value: Any, path: tuple[str, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


def make_data(folder: Path) -> Path:
    """ETL's output of a small table with the labels of the tiny model."""
    from conftest import write_csv, write_yaml

    import etl
    from bankintent import console

    folder.parent.mkdir(parents=True, exist_ok=True)
    pairs = [(f"sentence {number} of {label}", label) for label in LABELS for number in range(20)]
    table = write_csv(folder.with_suffix(".csv"), pairs)
    config = write_yaml(
        folder.with_suffix(".yaml"),
        dataset_name=str(table),
        output_dir=str(folder),
        split="stratified",
    )
    with console.silence():
        etl.main(config=config)
    return folder


def open_data(folder: Path) -> None:
    """Read everything that the commands read of ETL's records."""
    from bankintent.corpus import dataset, moves
    from bankintent.corpus.language import Languages, encoder_note
    from bankintent.training import identity, rows

    data = dataset.load(folder)
    config = _settings(folder)
    assert data.name
    dict(data.manifest.source).pop("unlabelled", None)
    encoder_note(Languages(data.manifest.languages))
    identity.identity(config, data)
    rows.read_rows(config, data)
    data.read_unlabelled()
    moves.against_former({"train": []}, folder)


def _settings(data: Path) -> TrainConfig:
    output = data.with_name("trained")
    return TrainConfig(regime="head-only", model_name="x", data_dir=data, output_dir=output)


def make_bundle(folder: Path, data: Path) -> Path:
    """A tiny bundle whose manifest has every record."""
    from bankintent.bundle import layout
    from bankintent.corpus import dataset
    from bankintent.training import identity

    source = dataset.load(data)
    labels = source.labels
    folder.mkdir(parents=True)
    merged = write_tiny_model(folder / layout.MERGED)
    _name_labels(merged / layout.MODEL_CONFIG, labels.id2label)
    (folder / layout.ONNX).mkdir()
    labels.save(folder / layout.LABELS)
    gate = {"accuracy": 1.0, "agreement": 1.0, "lost_accuracy": 0.0, "rows": 5}
    facts = {
        "name": "tiny",
        "identity": identity.identity(_settings(data), source),
        "labels_hash": labels.hash,
        "data_hash": source.hash,
        "data_dir": str(data),
        "base_model": "tiny",
        "parity": {"rows": 5, "formats": {"onnx-int8": gate}, "left_out": {"openvino": "slow"}},
        "versions": {"torch": "2"},
        "run_id": "r",
    }
    _add_policy_and_index(folder, labels)
    layout.seal(folder, facts)
    return folder


def _add_policy_and_index(bundle: Path, labels: LabelSchema) -> None:
    """Write both into a bundle that is sealed later, with every value that a reader reads."""
    from bankintent.bundle import index
    from bankintent.corpus.dataset import SplitData

    intents = len(labels)
    save_vectors(bundle, np.eye(intents))
    promise = {
        "confidence": 0.9,
        "rows": 200,
        "coverage": 0.9,
        "precision": 0.98,
        "precision_interval": [0.97, 0.99],
        "precision_at_least": 0.975,
        "refused": {"out_of_scope": 1, "below_threshold": 2, "close_call": 3},
    }
    record = make_record(
        labels.names,
        thresholds=Thresholds(0.7, {labels.names[0]: 0.8}),
        vectors=files.sha256(bundle / VECTORS),
        out_of_scope=ScopeRule({"max_logit": 1.0, "nearest": 2.0}, threshold=0.5),
        target={"precision": 0.98, "confidence": 0.9},
        promise=promise,
        figures={
            "out_of_scope": {"max_logit+nearest": {"near": 0.9, "mean": 0.9}},
            "near": {"max_logit": {"auroc": 0.9, "share": 0.9}},
        },
    )
    (bundle / POLICY).write_text(record.to_json(), encoding="utf-8")

    ids = [str(number) for number in range(intents)]
    rows = SplitData(ids, ids, list(range(intents)))
    vectors = np.eye(intents, dtype=np.float32)
    index.write(bundle, labels, rows, vectors, trained_on=intents, with_texts=True)


def _name_labels(path: Path, names: dict[int, str]) -> None:
    """Give a tiny model the order of labels of ETL."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["id2label"] = {str(index): name for index, name in names.items()}
    config["label2id"] = {name: index for index, name in names.items()}
    path.write_text(json.dumps(config), encoding="utf-8")


def open_bundle(folder: Path) -> None:
    """Read everything that the commands read of a bundle's records."""
    from bankintent.bundle import layout
    from bankintent.config import EvalConfig, ServeConfig
    from bankintent.inference import evaluation, labelled, trained_on
    from bankintent.inference.runtime import version
    from bankintent.serving.service import find_model
    from bankintent.training import identity

    checkpoint = layout.open_checkpoint(folder)
    formats = layout.open_formats(folder)
    assert formats is not None
    list(formats.passed.values())
    ", ".join(formats.left_out.values())

    manifest = checkpoint.manifest
    assert manifest is not None
    version(checkpoint.root, manifest)
    if not identity.same(manifest.identity, manifest.identity | {"backbone": "other"}):
        identity.first_difference(manifest.identity, manifest.identity | {"backbone": "other"})
    evaluation._training_tags(folder)
    data = labelled.find_data(checkpoint, EvalConfig(checkpoint_path=folder))
    trained_on.trained_rows(checkpoint, data.source)
    find_model(ServeConfig(model_dir=folder))


def seal_again(bundle: Path) -> None:
    """Seal a bundle with its files as they are: a stranger's bundle is sealed too."""
    from bankintent.bundle import layout

    facts = json.loads((bundle / layout.MANIFEST).read_text(encoding="utf-8"))
    (bundle / layout.MANIFEST).unlink()
    del facts["files"]
    layout.seal(bundle, facts)


def open_policy(bundle: Path) -> None:
    """Read everything that the commands read of a policy, and decide by it."""
    from bankintent.bundle import layout
    from bankintent.decision.deciding import decide
    from bankintent.decision.wording import describe
    from bankintent.export.policy_change import find_near
    from bankintent.inference.policies import read_policy
    from bankintent.inference.policy_on_rows import describe_policy, measure_policy
    from bankintent.inference.predicted import Predicted
    from bankintent.measures.metrics import Bootstrap
    from bankintent.serving.info_bodies import describe_policy as info

    seal_again(bundle)
    checkpoint = layout.open_checkpoint(bundle)
    policy = read_policy(bundle, checkpoint.manifest, checkpoint.labels)
    assert policy is not None
    find_near(policy)
    describe(policy.record)
    json.dumps(info(policy).model_dump(mode="json"), allow_nan=False)

    logits = np.eye(len(checkpoint.labels), dtype=np.float32)
    decisions = decide(logits, logits, policy)
    assert np.isfinite(decisions.probabilities).all()
    predicted = Predicted(logits, decisions, policy, logits)
    right = np.ones(len(logits), dtype=np.bool_)
    measured = measure_policy(predicted, right, Bootstrap(resamples=10, seed=0))
    assert measured is not None
    describe_policy(measured)


def open_index(bundle: Path) -> None:
    """Read the index, and ask it for neighbours."""
    from bankintent.bundle import index, layout

    seal_again(bundle)
    checkpoint = layout.open_checkpoint(bundle)
    found = index.read(bundle, checkpoint.manifest, checkpoint.labels)
    assert found is not None
    features = np.ones((1, found.width), dtype=np.float32)
    json.dumps([near.text for near in found.nearest(features, 3)[0]])
