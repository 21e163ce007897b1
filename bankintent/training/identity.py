"""The identity of a run: everything that can change its weights; imports no torch.

A run with the identity of a published bundle is not made again, and an interrupted one continues.
This module is a light one, for the reason that `rows` gives.
"""

from pathlib import Path

from bankintent import public_names, tracking
from bankintent.bundle import layout
from bankintent.config import ExplainSection, TrainConfig
from bankintent.corpus.dataset import Dataset
from bankintent.errors import ModelError
from bankintent.files import JsonObject

Identity = JsonObject
"""Plain JSON values: `settings`, and hashes of the data and of the weights that it starts from."""

WITHOUT_EFFECT = {
    "output_dir",
    "data_dir",
    "cache_dir",
    "stream_above",
    "tracking",
    "eval_batch_size",
    "decision",
}
"""Settings that change no weight. The data has its hash."""

DIFFERENCES = {
    "data_hash": "it was trained on other data",
    "labels_hash": "it was trained on other data",
    "unlabelled_hash": "it was trained on other data",
    "model": "it started from another model",
    "teacher": "it learned from another teacher",
}
"""What it means that two runs differ in a hash."""


WITHOUT_THE_KEY = {"keep": "last", "explain.texts": False, "explain.index": True}
"""Settings that an identity lacks where they have this value."""


def identity(config: TrainConfig, data: Dataset) -> Identity:
    """What makes two runs the same: the settings that are on, the data, the starting weights.

    Raises ModelError if a student's teacher is no trained model.
    """
    settings = config.model_dump(mode="json", exclude=WITHOUT_EFFECT)
    # Of a folder the weights have a hash; where it is on this machine is nobody else's business.
    settings["model_name"] = public_names.path(config.model_name)
    if config.regime != "lora":
        # The section always has values; in another regime nothing reads them.
        del settings["lora"]
    if _keeps_what_was_kept_without_the_key(config):
        del settings["keep"]

    what: Identity = {
        "settings": _without_what_is_off(settings),
        "data_hash": data.hash,
        "labels_hash": data.labels.hash,
    }
    # A run that leaves the sentences without labels alone does not change with them.
    if config.pseudo_labels is not None and data.unlabelled_hash:
        what["unlabelled_hash"] = data.unlabelled_hash

    return what | _starting_weights(config)


def _keeps_what_was_kept_without_the_key(config: TrainConfig) -> bool:
    """Whether `keep` asks for what records without it have.

    They have the last epoch or, with early stopping, the best one; a probe was no candidate.
    """
    if config.early_stopping is None:
        return config.keep == "last"
    return config.keep == "best" and config.head_init == "random"


def same(recorded: Identity, expected: Identity) -> bool:
    """Whether two identities are those of one run."""
    return _comparable(recorded) == _comparable(expected)


def first_difference(recorded: Identity, expected: Identity) -> str:
    """The first point in which two identities differ, in words."""
    old = tracking.flatten(_comparable(recorded))
    new = tracking.flatten(_comparable(expected))

    for key in [*new, *old]:
        if old.get(key) == new.get(key):
            continue
        if key in DIFFERENCES:
            return DIFFERENCES[key]
        name = key.removeprefix("settings.")
        default = WITHOUT_THE_KEY.get(name)
        return f"{name} is {old.get(key, default)}, now {new.get(key, default)}"

    return "its record differs"


def _starting_weights(config: TrainConfig) -> dict[str, str]:
    """The hash of the weights to start from, if `model_name` is a folder.

    A folder can hold other weights tomorrow under the same name.
    """
    folder = Path(config.model_name).expanduser()
    if config.distill is None:
        return {"model": layout.weights_hash(folder)} if folder.is_dir() else {}

    if not folder.is_dir():
        raise ModelError(
            f"distill: needs a trained model to learn from, and {config.model_name} is no folder",
            "Set model_name to a bundle such as artifacts/models/banking77-full-ft",
        )
    # Opened to verify it: a hash of damaged files would be no teacher's.
    layout.open_checkpoint(folder)
    return {"teacher": layout.weights_hash(folder)}


def _comparable(recorded: Identity) -> Identity:
    """The identity without what older bundles recorded too: what is off, and places of folders."""
    settings = _without_what_is_off(recorded.get("settings", {}))
    if "model_name" in settings:
        settings["model_name"] = public_names.path(str(settings["model_name"]))
    return recorded | {"settings": settings}


def _without_what_is_off(settings: JsonObject) -> JsonObject:
    """The settings that change something.

    A key that a later version adds, and that is off, leaves the identity of earlier runs as it was.
    """
    rest = {key: value for key, value in settings.items() if value is not None}
    # The one switch that is False when it is off.
    if not rest.get("label_names"):
        rest.pop("label_names", None)
    # It changes no weight, but what the bundle tells of its sentences.
    if rest.get("explain") == ExplainSection().model_dump():
        del rest["explain"]
    return rest
