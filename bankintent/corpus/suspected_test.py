"""Test rows whose label an audit suspects, as a file: for a second figure beside the official one.

The rows stay as they are, and no patch names them. The file holds hashes of the texts, not the
texts.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from bankintent import files, typed_json
from bankintent.corpus.dataset import SplitData
from bankintent.corpus.patches import text_key
from bankintent.errors import DataError

FILE = "suspected_test.json"
"""Its name in the folder of an audit."""

KIND = "bankintent suspected test rows"
"""What the file says that it is."""


@dataclass(frozen=True)
class SuspectedRow:
    """A test row whose label is suspected."""

    id: str
    text_sha256: str
    given: str
    """Its label."""


@dataclass(frozen=True)
class SuspectedTest:
    """The content of the file."""

    kind: str
    data_hash: str
    """Of the data that were audited."""
    method: str
    """What has answered the rows, in words."""
    rows: int
    """All test rows."""
    suspected: list[SuspectedRow]

    def find(self, rows: SplitData, names: tuple[str, ...]) -> list[bool]:
        """Whether each of the rows, whose label ids are places in `names`, is suspected."""
        keys = {(row.text_sha256, row.given) for row in self.suspected}
        found = []
        for text, label in zip(rows.texts, rows.labels, strict=True):
            found.append((text_key(text), names[label]) in keys)
        return found


def write(path: Path, suspected: SuspectedTest) -> None:
    """Write the file."""
    files.write_text(path, files.json_text(asdict(suspected)))


def read(path: Path) -> SuspectedTest:
    """Read the file; DataError where it is none."""
    try:
        content = typed_json.parse(SuspectedTest, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror})", f"Name the {FILE} of an audit"
        ) from None
    except ValueError:
        content = None

    if content is None or content.kind != KIND:
        raise DataError(
            f"{path} is no list of suspected test rows",
            f"Name the {FILE} that an audit with test: true writes",
        )
    return content
