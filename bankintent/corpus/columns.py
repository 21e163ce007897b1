"""Names of the columns that a table is searched for."""

from collections.abc import Iterable, Sequence

from bankintent.config import LabelledTableKeys
from bankintent.corpus.records import Table
from bankintent.errors import DataError

TEXT_COLUMNS = ("text", "sentence", "utterance", "query", "message")
"""Names of a column of sentences, the likeliest first."""

LABEL_COLUMNS = ("label_text", "label", "category", "intent", "class")
"""Names of a column of intents; `label_text` first, because `label` then holds numbers."""


def find_column(
    columns: Sequence[str],
    key: str,
    configured: str | None,
    known: Iterable[str],
    where: str,
    hint: str = "",
) -> str:
    """The configured column, otherwise the first of the known names, in upper or lower case.

    A column without a name is one that nobody reads. Raises DataError where there is no such
    column, or more than one; it lists the columns of `where` (a file's name) and gives the hint, or
    names the config key to set.
    """
    named = [column for column in columns if column.strip()]
    listed = _list_names(named)
    if configured is not None:
        if configured not in named:
            raise DataError(
                f'{where} has no column "{configured}"; it has {listed}', f"Correct {key}"
            )
        return _require_one([configured] * named.count(configured), where, key)

    for name in known:
        matches = [column for column in named if column.strip().lower() == name]
        if matches:
            return _require_one(matches, where, key)
    raise DataError(
        f"{where} has none of the columns {', '.join(known)}; it has {listed}",
        hint or f"Name the column with --set {key}=NAME",
    )


def _list_names(names: Sequence[str]) -> str:
    """Names in a sentence; one that holds a comma is quoted, because it looks like two."""
    shown = [f'"{name}"' if "," in name else name for name in names]
    return ", ".join(shown) or "no column with a name"


def _require_one(matches: list[str], where: str, key: str) -> str:
    """The only one of the columns that bear a name; DataError where there are more."""
    name = matches[0]
    if len(matches) == 1:
        return name
    if matches.count(name) == len(matches):
        raise DataError(f'{where} has {len(matches)} columns "{name}"', "Rename all but one")

    listed = " and ".join(f'"{match}"' for match in matches)
    raise DataError(f"{where} has the columns {listed}", f"Name one of them with --set {key}=NAME")


def find_text(columns: Sequence[str], configured: str | None, where: str, hint: str = "") -> str:
    """The name of the column of sentences of a table that needs no labels.

    It is the configured one, the only one that has a name, or one of a known name; raises like
    `find_column`.
    """
    named = [column for column in columns if column.strip()]
    if configured is None and len(named) == 1:
        return named[0]
    return find_column(columns, "text_column", configured, TEXT_COLUMNS, where, hint)


def find_text_and_label(
    columns: Sequence[str], keys: LabelledTableKeys, where: str, more: str = ""
) -> tuple[str, str]:
    """The names of the two columns that a labelled table must have; raises like `find_column`.

    `more` is what else may be done where a column is not found.
    """
    hint = f"Name the column with --set text_column=NAME{more}"
    text = find_column(columns, "text_column", keys.text_column, TEXT_COLUMNS, where, hint)
    hint = f"Name the column with --set label_column=NAME{more}"
    label = find_column(columns, "label_column", keys.label_column, LABEL_COLUMNS, where, hint)
    if text == label:
        raise DataError(
            f'the column "{text}" of {where} cannot be both text and label',
            "Name another one with text_column or label_column",
        )
    return text, label


def find_table_text(table: Table, configured: str | None, hint: str = "") -> str:
    """The column of sentences of a table that needs no labels; raises like `find_column`."""
    found = table.header.text if table.header else None
    hint = hint or f"Name the column with --set text_column=NAME{_without_header(table)}"
    return find_text(table.columns, configured or found, table.path.name, hint)


def find_table_columns(table: Table, keys: LabelledTableKeys) -> tuple[str, str]:
    """The columns of sentences and of intents of a labelled table; raises like `find_column`."""
    if table.header is not None:
        found = {
            "text_column": keys.text_column or table.header.text,
            "label_column": keys.label_column or table.header.label,
        }
        keys = keys.model_copy(update=found)
    more = _without_header(table)
    return find_text_and_label(table.columns, keys, table.path.name, more)


def _without_header(table: Table) -> str:
    """What may be done where the first row of a table has been taken for its header."""
    if table.header is None or not table.header.rows:
        return ""
    return ", or --set header=none where its first row is no header"
