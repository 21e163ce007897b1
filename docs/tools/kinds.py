"""Every kind of YAML file that a `--config` takes: its model, its commands, an example."""

from dataclasses import dataclass

from bankintent.config import (
    AuditConfig,
    BaselineConfig,
    CompareConfig,
    CompareModelsConfig,
    DataConfig,
    EvalConfig,
    FrontendConfig,
    PolicyConfig,
    ScoreConfig,
    Section,
    ServeConfig,
    TrainConfig,
)
from bankintent.distribution import FRONT_DOOR, PROGRAM


@dataclass(frozen=True)
class Kind:
    """One kind of file."""

    name: str
    """The file is `<name>.yaml`, its schema `configs/schemas/<name>.schema.json`."""
    model: type[Section]
    verbs: tuple[str, ...]
    """The commands that read it."""
    example: str
    """A file that is as short as it can be."""
    on_the_command_line: tuple[str, ...] = ()
    """Required keys that have an option or an argument of their own: a file may leave them out."""


KINDS = (
    Kind(
        "data",
        DataConfig,
        ("etl",),
        "dataset_name: my.csv\noutput_dir: data/mine\n",
    ),
    Kind(
        "train",
        TrainConfig,
        ("train", "doctor"),
        "model_name: bundled/all-MiniLM-L6-v2\n"
        "regime: head-only\n"
        "data_dir: data/mine\n"
        "output_dir: artifacts/models/mine\n",
        ("regime",),
    ),
    Kind(
        "baseline",
        BaselineConfig,
        ("baseline",),
        "references: [majority, tfidf]\ndata_dir: data/mine\n",
    ),
    Kind(
        "eval",
        EvalConfig,
        ("eval",),
        "checkpoint_path: artifacts/models/mine\nby: [length]\n",
        ("checkpoint_path",),
    ),
    Kind(
        "serve",
        ServeConfig,
        ("serve",),
        "model_dir: artifacts/models/mine\nlimits: {max_texts: 32}\n",
    ),
    Kind(
        "page",
        FrontendConfig,
        ("page",),
        "model_dir: artifacts/models/mine\ntop_k: 3\n",
    ),
    Kind(
        "compare",
        CompareConfig,
        ("compare",),
        "name: mine\n"
        "data_dir: data/mine\n"
        "recipes:\n"
        "  head-only: configs/recommended/head-only.yaml\n"
        "  lora: configs/recommended/lora.yaml\n"
        "seeds: [1, 2, 3]\n",
    ),
    Kind(
        "compare-models",
        CompareModelsConfig,
        ("compare-models",),
        "model_a: artifacts/models/old\nmodel_b: artifacts/models/new\ndata_dir: messages.csv\n",
        ("model_a", "model_b"),
    ),
    Kind(
        "score",
        ScoreConfig,
        ("score",),
        "input: messages.csv\noutput: scored.csv\nmodel_dir: artifacts/models/mine\n",
        ("input", "output", "model_dir"),
    ),
    Kind(
        "audit",
        AuditConfig,
        ("audit",),
        "name: mine\ndata_dir: data/mine\n",
    ),
    Kind(
        "policy",
        PolicyConfig,
        ("policy",),
        "model_dir: artifacts/models/mine\ntarget: {precision: 0.95}\n",
        ("model_dir",),
    ),
)


def in_repository(verb: str) -> str:
    """What is typed for a command beside the repository."""
    file = FRONT_DOOR.get(verb)
    return f"python -m {file or f'{PROGRAM} {verb}'}"


BY_NAME = {kind.name: kind for kind in KINDS}
