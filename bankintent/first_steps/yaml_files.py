"""data.yaml and train.yaml with comments: their text, and how they are put in place."""

import shlex
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from bankintent import console, files
from bankintent.config import DataConfig, TrainConfig
from bankintent.configfile import load
from bankintent.corpus import report
from bankintent.corpus.language import MULTILINGUAL_ENCODER
from bankintent.corpus.refusals import list_reasons
from bankintent.distribution import command
from bankintent.errors import ConfigError, OutputError
from bankintent.first_steps import recipes
from bankintent.first_steps.editor_line import editor_line
from bankintent.first_steps.estimate import about, gigabytes
from bankintent.first_steps.look import Look
from bankintent.first_steps.proposal import Proposal
from bankintent.labels import LabelSchema
from bankintent.texts import list_some
from bankintent.training.rows import require_words

DATA = "data.yaml"
TRAIN = "train.yaml"

WIDTH = 100
"""Columns of a comment."""

SOURCE_KEYS = ("dataset_name", "revision", "subset")
READING_KEYS = ("text_column", "label_column", "encoding", "delimiter", "sheet", "header")
DIVISION_KEYS = ("split", "folds", "repeats", "rare")
LAST_KEYS = ("seed", "output_dir")
"""Keys of data.yaml that have a place of their own in it."""

PLACES = ("data_dir", "output_dir")
"""Keys of a recipe that are the user's own."""


@dataclass(frozen=True)
class Written:
    """The two files of a proposal, and the settings that they hold."""

    folder: Path
    data: DataConfig
    train: TrainConfig

    @property
    def data_path(self) -> Path:
        return self.folder / DATA

    @property
    def train_path(self) -> Path:
        return self.folder / TRAIN


def require_free(folder: Path, overwrite: bool) -> None:
    """Raise OutputError for a file, or a folder that holds one of ours and no `overwrite`.

    DATA alone is passed over: `write` looks at it.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", "Name a folder with --output-dir")
    if not overwrite and (folder / TRAIN).exists():
        _refuse(folder / TRAIN)


def _refuse(path: Path) -> NoReturn:
    raise OutputError(
        f"{path} exists",
        "Name another with --name or --output-dir, or replace it with --overwrite",
    )


def write(folder: Path, proposal: Proposal, model_dir: Path, overwrite: bool) -> Written:
    """Write both files, after both were read back as they will be.

    Raises OutputError where DATA exists and is none that a killed call has written.
    """
    data_text = editor_line("data", folder) + data_yaml(proposal)
    train_text = editor_line("train", folder) + train_yaml(proposal, model_dir)

    with tempfile.TemporaryDirectory() as trial:
        for name, text in ((DATA, data_text), (TRAIN, train_text)):
            files.write_text(Path(trial) / name, text)
        data = load(DataConfig, Path(trial) / DATA)
        train = load(TrainConfig, Path(trial) / TRAIN)
    # What is written is what was looked at: a text that YAML reads as something else is our fault.
    assert data.model_dump() == proposal.look.config.model_dump()
    assert train.output_dir == model_dir

    data_file = folder / DATA
    if data_file.exists() and not overwrite and data_file.read_bytes() != data_text.encode():
        _refuse(data_file)
    files.write_text(data_file, data_text)
    files.write_text(folder / TRAIN, train_text)
    return Written(folder, data, train)


def data_yaml(proposal: Proposal) -> str:
    """The text of data.yaml."""
    look = proposal.look
    config = look.config
    lines = _comment(*_source_comments(look))
    lines += _pairs(_keys(config, SOURCE_KEYS))
    lines += _reading_lines(look)

    lines += ["", *_comment(f"{config.split}: {proposal.split_reason}.", look.division.note)]
    division = ("split", "folds", "repeats") if look.is_cross else ("split",)
    lines += _pairs({key: getattr(config, key) for key in division})
    if proposal.rare_reason:
        lines += ["", *_comment(f"{proposal.rare_reason}: {_rare_names(look)}.")]
        lines += _comment("Other choices are drop and merge:NAME (docs/reference/data.md).")
    if config.rare != "refuse":
        lines += _pairs({"rare": config.rare})

    lines += _other_lines(look)
    lines += _pairs({"seed": config.seed})
    lines += ["", *_comment("What ETL writes; train.yaml reads it.")]
    lines += _pairs({"output_dir": config.output_dir})
    return "\n".join(lines) + "\n"


def train_yaml(proposal: Proposal, model_dir: Path) -> str:
    """The text of train.yaml: the recipe of the proposed regime with the user's own places."""
    look = proposal.look
    regime = proposal.regime
    recipe = recipes.path_of(regime.name, look.is_cross)
    lines = _comment(
        f"{regime.name}: {regime.reason}.",
        f"The values are those of configs/recommended/{recipe.name};"
        " docs/explanation/recipes.md says how they were chosen.",
    )
    lines += _estimate_comments(proposal, model_dir)
    lines += _encoder_comments(look) or [""]

    own_places = {"data_dir": look.config.output_dir, "output_dir": model_dir}
    for line in recipes.lines_of(recipe):
        key = line.partition(":")[0]
        if key in PLACES:
            lines += _pairs({key: own_places[key]})
        elif key == "label_names" and not _are_words(look.labels):
            lines += [
                "# The intents' names are no words that a sentence could have.",
                f"{key}: false",
            ]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _are_words(labels: LabelSchema) -> bool:
    """Whether the intents' names can be sentences too."""
    try:
        require_words(labels)
    except ConfigError:
        return False
    return True


def _source_comments(look: Look) -> list[str]:
    """What the source is, a paragraph each."""
    comments = [f"{name}: {value}".removeprefix(": ") for name, value in facts(look)]
    return [*comments, "Paths are those of the folder in which the commands are run."]


def facts(look: Look) -> Iterator[tuple[str, str]]:
    """(name, value) of what a source holds."""
    yield from report.facts(look.report)
    yield "Sentences", _sentences(look)
    rare = look.report.rare.rows
    if rare:
        yield "Rare", f"{_rare_names(look)} (rows in brackets)"


def _sentences(look: Look) -> str:
    counts = look.per_intent.values()
    each = (
        f"{min(counts):,} to {max(counts):,}" if min(counts) < max(counts) else f"{min(counts):,}"
    )
    text = f"{len(look.texts):,} of {len(look.per_intent):,} intents, {each} of each"
    refused = look.report.refused
    if not refused.count:
        return text
    return f"{text}; left out: {list_reasons(refused.reasons)}"


def _rare_names(look: Look) -> str:
    return list_some([f"{name} ({count})" for name, count in look.report.rare.rows.items()])


def _reading_lines(look: Look) -> list[str]:
    """The keys that say how tables are read: what was found, written down."""
    written = _keys(look.config, READING_KEYS)
    if not written:
        return []
    return ["", *_comment("How its tables are read."), *_pairs(written)]


def _other_lines(look: Look) -> list[str]:
    """Keys that the user has set and that have no place of their own above."""
    config = look.config
    placed = {*SOURCE_KEYS, *READING_KEYS, *DIVISION_KEYS, *LAST_KEYS}
    others = [key for key in DataConfig.model_fields if key not in placed]
    return _pairs(_keys(config, tuple(others)))


def _keys(config: DataConfig, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of the keys that are set, in this order."""
    return {name: getattr(config, name) for name in names if name in config.model_fields_set}


def _pairs(values: dict[str, Any]) -> list[str]:
    return [f"{key}: {_scalar(value)}" for key, value in values.items()]


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    plain = str(value) if isinstance(value, Path) else value
    text = yaml.safe_dump(plain, allow_unicode=True, default_flow_style=True, width=10**6)
    return text.removesuffix("...\n").strip()


def _comment(*paragraphs: str) -> list[str]:
    """Paragraphs as comments of at most WIDTH columns."""
    lines = []
    for paragraph in paragraphs:
        lines += textwrap.wrap(
            " ".join(paragraph.split()),
            WIDTH,
            initial_indent="# ",
            subsequent_indent="#   ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _estimate_comments(proposal: Proposal, model_dir: Path) -> list[str]:
    """What each regime is likely to take on this machine, and how to have another."""
    lines = ["", *_comment(proposal.measured_note)]
    if proposal.estimates is None:
        return lines

    for regime, estimate in proposal.estimates.items():
        cost = f"{about(estimate.seconds)}, {proposal.at_least}{gigabytes(estimate.memory)}"
        lines.append(f"#   {regime:<10} {cost}")
    lines += ["#", *_comment("Another regime, with the data of this one:")]
    for regime in proposal.estimates:
        if regime != proposal.regime.name:
            lines.append(f"#   {other_regime(regime, proposal.look, model_dir)}")
    return lines


def other_regime(regime: str, look: Look, model_dir: Path) -> str:
    """The command that trains another regime on the same data."""
    recipe = recipes.path_of(regime, look.is_cross)
    words = [
        command("train"),
        f"--config {shlex.quote(console.show_path(recipe))}",
        f"--set {shlex.quote(f'data_dir={look.config.output_dir}')}",
        f"--set {shlex.quote(f'output_dir={model_dir}-{regime}')}",
    ]
    return " ".join(words)


def _encoder_comments(look: Look) -> list[str]:
    note = look.encoder_note
    if note is None:
        return []
    found = note.partition(". Train")[0]
    paragraph = f"{found}. This one reads many languages; it comes from the Hub, and takes longer:"
    return ["", *_comment(paragraph), f"# model_name: {MULTILINGUAL_ENCODER}"]
