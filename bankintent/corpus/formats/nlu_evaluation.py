"""NLU Evaluation Corpora: one JSON file whose sentences say whether they are for training."""

from collections import Counter
from typing import Any

from bankintent.config import DataConfig
from bankintent.corpus.formats.export import Export, Format
from bankintent.corpus.formats.files import ExportFile, ExportFiles
from bankintent.corpus.formats.json_values import count, is_objects
from bankintent.corpus.formats.sentences import ENTITIES, pool, whole
from bankintent.corpus.rows import Row
from bankintent.errors import DataError

KEYS = {"text", "intent", "training"}
"""Keys of every sentence."""

SPLITS = {True: "train", False: "test"}


def find(files: ExportFiles) -> list[ExportFile]:
    """Files of sentences that are marked as training or as test."""
    return [file for file in files.with_ending(".json") if _has_sentences(file.json)]


def _has_sentences(content: Any) -> bool:
    if not isinstance(content, dict):
        return False

    sentences = content.get("sentences")
    if not is_objects(sentences):
        return False

    # "sentences" is a common word; these keys together are not.
    return all(one.keys() >= KEYS for one in sentences)


def read(files: ExportFiles, taken: list[ExportFile], config: DataConfig) -> Export:
    """The sentences as train and test; DataError where one is marked as neither."""
    rows: dict[str, list[Row]] = {"train": [], "test": []}
    left: Counter[str] = Counter()

    for file in taken:
        for number, sentence in enumerate(file.require_json()["sentences"], 1):
            split = _split_of(file, number, sentence["training"])
            row = Row(file.name, number, sentence["text"], sentence["intent"])
            rows[split].append(row)
            left[ENTITIES] += count(sentence.get("entities"))

    if not all(rows.values()):
        # One of the two alone is no division.
        everything = whole(pool(rows))
        return Export(everything, left=dict(left))

    note = 'Sentences with "training": true are train, the others test.'
    return Export(rows, left=dict(left), notes=(note,))


def _split_of(file: ExportFile, number: int, training: Any) -> str:
    # 0 and 1 would find a split too, so the type is checked and not the key.
    if not isinstance(training, bool):
        raise DataError(
            f'{file.name}: sentence {number} has "training": {training!r}',
            "Expected true or false",
        )
    return SPLITS[training]


FORMAT = Format("NLU Evaluation Corpora", "NLU Evaluation Corpora", find, read)
