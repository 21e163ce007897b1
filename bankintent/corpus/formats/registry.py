"""All formats of exports, and the search for the one that a source has."""

import os.path
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bankintent.config import DataConfig
from bankintent.corpus.formats import (
    alexa,
    clu,
    dialogflow_cx,
    dialogflow_es,
    doccano,
    intents_json,
    label_studio,
    lex,
    luis,
    nlu_evaluation,
    prodigy,
    rasa_json,
    rasa_markdown,
    rasa_yaml,
    saved_datasets,
    snips,
    text_folders,
    watson,
    wit,
)
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles, open_files
from bankintent.corpus.rows import is_companion, is_program
from bankintent.errors import DataError
from bankintent.texts import list_some

TOOLS: tuple[Format, ...] = (
    rasa_yaml.FORMAT,
    rasa_markdown.FORMAT,
    rasa_json.FORMAT,
    luis.APP_FORMAT,
    luis.LU_FORMAT,
    clu.FORMAT,
    dialogflow_es.FORMAT,
    dialogflow_cx.FORMAT,
    watson.FORMAT,
    lex.V2_FORMAT,
    lex.V1_FORMAT,
    alexa.FORMAT,
    wit.FORMAT,
    snips.BENCHMARK_FORMAT,
    snips.DATASET_FORMAT,
    snips.YAML_FORMAT,
    nlu_evaluation.FORMAT,
    label_studio.FORMAT,
    doccano.FORMAT,
    prodigy.FORMAT,
    saved_datasets.FORMAT,
)
"""Formats of one tool each; at most one of them may find files in a source."""

LAYOUTS: tuple[Format, ...] = (
    intents_json.FORMAT,
    text_folders.FOLDERS_FORMAT,
    text_folders.FASTTEXT_FORMAT,
)
"""Formats without a mark of their own, which a tool's files may look like; they are tried where no
tool's format finds files."""

FORMATS = (*TOOLS, *LAYOUTS)


@dataclass(frozen=True)
class Found:
    """A source that is an export."""

    format: Format
    files: ExportFiles
    taken: list[ExportFile]
    """The files that hold sentences."""

    def read(self, config: DataConfig) -> Export:
        """The sentences of the export; DataError with file and line for a fault in it."""
        return self.format.read(self.files, self.taken, config)

    @property
    def unread(self) -> list[str]:
        """Names of files that are neither taken nor a part of such an export."""
        known = {file.name for file in self.taken}
        names = []
        for file in self.files.files:
            is_plain = is_companion(file.name) or is_program(file.name)
            is_own = self.format.own.fullmatch(file.name) is not None
            if file.name not in known and not is_plain and not is_own:
                names.append(file.name)
        return names


def find_export(path: Path, config: DataConfig) -> Found | None:
    """The format of a file, folder or zip; None where it is no export of a known tool.

    Raises DataError where it holds files of two formats.
    """
    files = open_files(path, config.encoding)
    found = _find(TOOLS, files) or _find(LAYOUTS, files)

    if len(found) > 1:
        places = [f"{one.format.name} in {list_some(_names(one))}" for one in found]
        raise DataError(f"{path} holds two formats: {' and '.join(places)}", _way_out(found))
    return found[0] if found else None


def known_tools() -> str:
    """The tools whose exports are read, for a message."""
    return ", ".join(dict.fromkeys(format.tool for format in FORMATS))


def _find(formats: tuple[Format, ...], files: ExportFiles) -> list[Found]:
    found = []
    for format in formats:
        taken = format.find(files)
        if taken:
            found.append(Found(format, files, taken))
    return found


def _names(found: Found) -> list[str]:
    return [file.name for file in found.taken]


def _way_out(found: list[Found]) -> str:
    """What to do with a source of several formats: the exact path to name for each."""
    path = found[0].files.path
    if not path.is_dir():
        return "Unpack it, and name the file or folder of one of them with dataset_name"

    choices = []
    for one in found:
        others = []
        for other in found:
            others += _names(other) if other is not one else []
        place = _place(_names(one), others)
        if place is not None:
            choices.append(f"--set dataset_name={path / place}")
    if not choices:
        return "Put the files of each into a folder of its own, and name one with dataset_name"
    return f"Name one of them: {' or '.join(choices)}"


def _place(names: list[str], others: list[str]) -> str | None:
    """The file, or the folder, that holds these and none of the others; None without one."""
    if len(names) == 1:
        return names[0]
    folder = os.path.commonpath([PurePosixPath(name).parent for name in names])
    is_shared = any(PurePosixPath(name).is_relative_to(folder) for name in others)
    return None if is_shared or not folder else folder
