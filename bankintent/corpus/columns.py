"""Names of the columns that a table is searched for, and the delimiter of a CSV's header."""

from collections.abc import Iterable, Sequence

from bankintent.config import DataConfig
from bankintent.errors import DataError

TEXT_COLUMNS = ("text", "sentence", "utterance", "query", "message")
"""Names of a column of sentences, the likeliest first."""

LABEL_COLUMNS = ("label_text", "label", "category", "intent", "class")
"""Names of a column of intents; `label_text` first, because `label` then holds numbers."""

DELIMITERS = ",;\t"
"""The earlier one counts where a header has as many of two."""


def find_delimiter(header: str) -> str:
    """Comma, semicolon or tab: the one that the header line has most of."""
    return max(DELIMITERS, key=header.count)


def find_column(
    columns: Sequence[str],
    key: str,
    configured: str | None,
    known: Iterable[str],
    where: str,
    hint: str = "",
) -> str:
    """The configured column, otherwise the first of the known names, in upper or lower case.

    Raises DataError that lists the columns of `where` (a file's name) and gives the hint, or
    names the config key to set.
    """
    listed = ", ".join(columns)
    if configured is not None:
        if configured in columns:
            return configured
        raise DataError(f'{where} has no column "{configured}"; it has {listed}', f"Correct {key}")

    # Of columns that differ by case alone, the first one counts.
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(column.strip().lower(), column)

    for name in known:
        if name in by_name:
            return by_name[name]
    raise DataError(
        f"{where} has none of the columns {', '.join(known)}; it has {listed}",
        hint or f"Name the column with --set {key}=...",
    )


def find_text_and_label(columns: Sequence[str], config: DataConfig, where: str) -> tuple[str, str]:
    """The names of the two columns that a labelled table must have; raises like `find_column`."""
    text = find_column(columns, "text_column", config.text_column, TEXT_COLUMNS, where)
    label = find_column(columns, "label_column", config.label_column, LABEL_COLUMNS, where)
    return text, label
