"""Rasa NLU 1.x: Markdown with a heading `## intent:name` above the sentences of each intent."""

import re
from pathlib import PurePosixPath

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.rasa_rows import OWN, TOOL, Gathered

INTENT = re.compile(r"^[ \t]*##+[ \t]*intent[ \t]*:[ \t]*\S", re.MULTILINE)

FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
"""Code in a text about Rasa."""

HEADING = re.compile(r"#+\s*(intent|synonym|regex|lookup)\s*:\s*(.*)", re.IGNORECASE)
"""Of a section of Rasa's. People also write it with one sign, and Rasa loses what is below."""

OTHER_HEADING = re.compile(r"##+\s*(.*)")

ITEM = re.compile(r"(?:-|[*+](?=\s))\s*(.*)")

COMMENT = re.compile(r"<!--.*?--!*>", re.DOTALL)

LEFT = {"synonym": "synonyms", "regex": "regexes", "lookup": "lookups"}
"""Sections that hold no sentences, and what people call them."""

STORY = re.compile(r"^##+[ \t]*\S", re.MULTILINE)
STORY_STEP = re.compile(r"^[ \t]*-[ \t]*(?:utter_|action_)", re.MULTILINE)


def find(files: ExportFiles) -> list[ExportFile]:
    """The Markdown files with a heading of an intent; a README that shows one is none."""
    found = []
    for file in files.with_ending(".md"):
        if PurePosixPath(file.name).stem.lower().startswith("readme"):
            continue
        if INTENT.search(FENCED.sub("", file.peek())):
            found.append(file)
    return found


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences of all files, with their entities as they are said.

    Raises DataError with file and line for an intent without sentences, and for sentences under
    a heading that names none.
    """
    gathered = Gathered()
    for file in taken:
        _Reader(file, gathered).read()

    names = {file.name for file in taken}
    for file in files.with_ending(".md"):
        text = file.peek()
        if file.name not in names and STORY_STEP.search(text):
            gathered.left["stories"] += len(STORY.findall(text))
    return gathered.export(config)


class _Reader:
    """Reads one file, and knows the heading under which it is."""

    def __init__(self, file: ExportFile, gathered: Gathered) -> None:
        self._file = file
        self._gathered = gathered
        self._kind = ""
        """intent, synonym, regex or lookup; empty under another heading."""
        self._name = ""
        self._line = 0
        """The line of the heading."""
        self._count = 0
        """Sentences under it so far."""

    def read(self) -> None:
        # A comment keeps its line breaks, so that the lines below it keep their numbers.
        text = COMMENT.sub(lambda comment: "\n" * comment[0].count("\n"), self._file.text)
        for line, content in enumerate(text.split("\n"), 1):
            self._read_line(line, content.strip())
        self._close()

    def _read_line(self, line: int, content: str) -> None:
        heading = HEADING.fullmatch(content)
        if heading:
            self._open(line, heading[1].lower(), heading[2].strip())
            return
        other = OTHER_HEADING.fullmatch(content)
        if other:
            self._open(line, "", other[1].strip())
            return

        # One sign alone is how people write comments.
        if not content or content.startswith("#"):
            return
        item = ITEM.fullmatch(content)
        if self._kind == "intent":
            if item:
                self._gathered.add_marked(self._file, line, item[1], self._name)
                self._count += 1
            else:
                self._gathered.leave_undashed(self._file, line)
        elif item and not self._kind:
            place = f'under the heading "{self._name}"' if self._name else "above the first heading"
            raise self._file.fault(
                line,
                f"a sentence stands {place}, and so belongs to no intent",
                "Write the heading of an intent as ## intent:name",
            )

    def _open(self, line: int, kind: str, name: str) -> None:
        self._close()
        if kind == "intent" and not name:
            raise self._file.fault(line, "an intent has no name", "Expected ## intent:name")
        if kind in LEFT:
            self._gathered.left[LEFT[kind]] += 1
        self._kind = kind
        self._name = name
        self._line = line
        self._count = 0

    def _close(self) -> None:
        if self._kind == "intent" and not self._count:
            raise self._file.fault(
                self._line,
                f'the intent "{self._name}" has no sentences',
                "Write them below it, each on a line that begins with a dash, or remove it",
            )


FORMAT = Format("Rasa NLU (Markdown)", TOOL, find, read, OWN)
