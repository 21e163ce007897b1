"""The general set: everyday sentences that no bank's intents fit, shipped with the bundled data.

A model's refusal is fitted with them where nothing else is known to be out of scope.
"""

from bankintent import files
from bankintent.config import TableKeys
from bankintent.corpus.sources import BUNDLED
from bankintent.corpus.tables import open_table
from bankintent.errors import DataError
from bankintent.texts import fold

GENERAL = BUNDLED.parent / "general.csv"


def read_general() -> list[str]:
    """The folded sentences, in file order; DataError where the file is missing or has others."""
    if not GENERAL.is_file():
        raise DataError(
            f"{GENERAL} does not exist",
            "It comes with the package: restore it (git checkout data/bundled), or install again",
        )

    table = open_table(GENERAL, TableKeys())
    if table.columns != ["text"]:
        listed = ", ".join(table.columns)
        raise DataError(f"{GENERAL} has the columns {listed}", "Expected text alone")
    return [fold(record.cells[0]) for record in table.records()]


def general_hash() -> str:
    """sha256 of the file, which says which sentences something was fitted with."""
    return files.sha256(GENERAL)
