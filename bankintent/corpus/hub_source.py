"""A labelled dataset of the Hugging Face Hub."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bankintent import files, hub
from bankintent.config import DataConfig
from bankintent.corpus.class_names import name_class
from bankintent.corpus.cleaning import are_whole
from bankintent.corpus.columns import find_text_and_label
from bankintent.corpus.kept_columns import find_kept, with_kept
from bankintent.corpus.rows import SPLIT_NAMES, Reading, Row, Source, SourceIdentity
from bankintent.corpus.rows_hash import RowsHash
from bankintent.errors import DataError, SourceUnavailable

ROWS_AT_ONCE = 10_000
"""Rows that are Python values at a time."""


def read_hub(repository: str, revision: str, config: DataConfig) -> Source:
    """Read the train, val and test splits of a Hub dataset at one revision.

    Raises SourceUnavailable where it cannot be loaded, or only from a cache of another revision.
    """
    name = config.dataset_name
    parts = _load(repository, revision, config)
    commit = _loaded_commit(parts, repository, revision)

    rows: dict[str, list[Row]] = {}
    reading: list[Reading] = []
    unread: list[str] = []
    label_order: tuple[str, ...] | None = None
    for key, part in parts.items():
        split = SPLIT_NAMES.get(str(key).lower())
        if split is None:
            # Some datasets have more parts, for example one without labels.
            unread.append(str(key))
            continue

        text, label = find_text_and_label(part.column_names, config, f"{name} ({key})")
        names = _class_names(part.features[label])
        if names:
            label_order = names

        rows[split] = _read_split(part, str(key), text, label)
        kept = _read_kept(part, config.keep_columns, f"{name} ({key})")
        rows[split] = with_kept(rows[split], kept)
        reading.append(Reading(str(key), "Hub dataset", len(rows[split]), text, label))

    if "train" not in rows:
        listed = ", ".join(map(str, parts))
        raise DataError(f'the dataset "{name}" has no train split; it has {listed}')

    identity = {
        "kind": "hub",
        "repository": repository,
        "revision": commit,
        "content": _content_hash(rows),
    }
    return Source(identity, rows, label_order=label_order, reading=reading, unread=unread)


@dataclass(frozen=True)
class HubSplit:
    """A split of a loaded dataset, which lies in files that are mapped into memory."""

    name: str
    """train, val or test."""
    origin: str
    """Its name in the dataset."""
    text: str
    label: str
    part: Any
    digest: RowsHash

    def rows(self) -> Iterator[Row]:
        """Its rows in order; they are hashed as they pass."""
        self.digest.begin(self.name)
        number = 0
        for texts, labels in self._batches():
            self.digest.add(zip(texts, labels, strict=True))
            for text, label in zip(texts, labels, strict=True):
                number += 1
                yield Row(self.origin, number, text, label)

    def _batches(self) -> Iterator[tuple[list[Any], list[Any]]]:
        names = _class_names(self.part.features[self.label])
        columns = self.part.select_columns([self.text, self.label])
        for batch in columns.iter(ROWS_AT_ONCE):
            labels = batch[self.label]
            if names:
                labels = [name_class(one, names, f"the split {self.origin}") for one in labels]
            yield batch[self.text], labels

    def are_labels_whole(self) -> bool:
        """Whether the labels that are numbers with decimals are whole."""
        if not str(getattr(self.part.features[self.label], "dtype", "")).startswith("float"):
            return True
        return all(are_whole(labels) for _, labels in self._batches())


@dataclass(frozen=True)
class OpenedHub:
    """A dataset of the Hub whose rows can be read one after the other."""

    splits: list[HubSplit]
    identity: Callable[[], SourceIdentity]
    """To be called after all rows were read: it has their hash."""
    label_order: tuple[str, ...] | None
    unread: list[str]


def open_hub(repository: str, revision: str, config: DataConfig) -> OpenedHub:
    """Load a dataset to the disk and open its splits; raises like `read_hub`."""
    parts = _load(repository, revision, config)
    commit = _loaded_commit(parts, repository, revision)
    digest = RowsHash(None)

    splits = []
    unread = []
    order = None
    for key, part in parts.items():
        split = SPLIT_NAMES.get(str(key).lower())
        if split is None:
            unread.append(str(key))
            continue
        where = f"{config.dataset_name} ({key})"
        text, label = find_text_and_label(part.column_names, config, where)
        order = _class_names(part.features[label]) or order
        splits.append(HubSplit(split, str(key), text, label, part, digest))

    if "train" not in [split.name for split in splits]:
        listed = ", ".join(map(str, parts))
        raise DataError(f'the dataset "{config.dataset_name}" has no train split; it has {listed}')
    return OpenedHub(splits, lambda: _identify(repository, commit, digest), order, unread)


def _identify(repository: str, commit: str, digest: RowsHash) -> SourceIdentity:
    content = digest.hexdigest()
    return {"kind": "hub", "repository": repository, "revision": commit, "content": content}


def _class_names(feature: Any) -> tuple[str, ...] | None:
    """The names of a ClassLabel's classes, or of a list of them; None where there are none."""
    names = getattr(feature, "names", None) or getattr(
        getattr(feature, "feature", None), "names", None
    )
    return tuple(names) if names else None


def _load(repository: str, revision: str, config: DataConfig) -> Any:
    """The splits of a dataset by the repository's names for them."""
    name = config.dataset_name
    hub.require_reachable(
        f'the dataset "{name}"',
        "name a local file or folder, or `bundled` (--set dataset_name=bundled)",
    )
    # The library looks at the environment when it is imported, and is slow to import.
    import datasets

    with hub.explained(f'the dataset "{name}" (revision {revision})'):
        datasets.disable_progress_bars()
        # Its warning of a stale cache is replaced by the check of the loaded commit.
        datasets.logging.set_verbosity_error()
        return datasets.load_dataset(repository, config.subset, revision=revision)


def _loaded_commit(parts: Any, repository: str, revision: str) -> str:
    """The commit that the loaded data came from; it must be the requested one.

    With a warm cache and the Hub away, load_dataset returns any cached revision without a word.
    """
    cache_files = next(iter(parts.values())).cache_files
    commit = ""
    if cache_files:
        # The library names the folders of its cache after commits.
        commit = Path(cache_files[0]["filename"]).parent.name

    is_other = hub.is_commit(revision) and commit != revision
    if is_other or not hub.is_commit(commit):
        raise SourceUnavailable(
            f"{repository} was loaded at revision {commit or 'unknown'} from the cache, "
            f"expected {revision}",
            "Connect to the Hub, or clear the cache of datasets",
        )
    return commit


def _read_split(part: Any, origin: str, text: str, label: str) -> list[Row]:
    """Rows of one split, from its columns of sentences and intents."""
    rows = []
    pairs = zip(part[text], _named_values(part, label, origin), strict=True)
    for number, (one_text, one_label) in enumerate(pairs, 1):
        rows.append(Row(origin, number, one_text, one_label))
    return rows


def _read_kept(part: Any, names: list[str], where: str) -> list[list[Any]]:
    """The values of each column to keep; DataError where the split lacks one."""
    columns = part.column_names
    found = [columns[index] for index in find_kept(columns, names, where)]
    return [_named_values(part, name, where) for name in found]


def _named_values(part: Any, column: str, where: str) -> list[Any]:
    """The values of a column; ids of a ClassLabel become the names of the classes."""
    names = _class_names(part.features[column])
    if not names:
        return list(part[column])
    return [name_class(value, names, f"the split {where}") for value in part[column]]


def _content_hash(rows: dict[str, list[Row]]) -> str:
    """sha256 of the rows, as the manifest records it with the commit."""
    pairs = {}
    for split, part in rows.items():
        pairs[split] = [[row.text, row.label] for row in part]
    return files.sha256_text(json.dumps(pairs))
