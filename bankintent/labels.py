"""The frozen label schema: label names, their ids, and a hash that every later step checks."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bankintent import files
from bankintent.distribution import command
from bankintent.errors import LabelError
from bankintent.texts import is_blank

WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


def in_order(names: Iterable[str]) -> list[str]:
    """Each name once, as numbers where all are whole numbers, otherwise as words ignoring case.

    So id 10 of a table of numbers is the label 10, and names have the order of BANKING77's Hub
    copies.
    """
    different = set(names)
    # The name itself comes second: names that differ by case, or 7 and 007, have one order.
    if all(map(WHOLE_NUMBER.fullmatch, different)):
        return sorted(different, key=lambda name: (int(name), name))
    return sorted(different, key=lambda name: (name.lower(), name))


def find_fault(names: Sequence[object]) -> str | None:
    """Why values in the order of ids are no names of labels, in words; None where they are.

    A name is a text that shows something, and stands once. Case and white space tell names apart,
    as they do in data.
    """
    ids: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str):
            return f"label {index} is {json.dumps(name)}, which is no text"
        if is_blank(name):
            return f"label {index} has an empty name"
        if name in ids:
            return f'"{name}" is the name of label {ids[name]} and of label {index}'
        ids[name] = index
    return None


@dataclass(frozen=True)
class LabelSchema:
    """Label names in id order. Two schemas are the same when names and order are."""

    names: tuple[str, ...]

    @classmethod
    def from_names(cls, names: Iterable[str]) -> "LabelSchema":
        """The schema of names that come in no order of their own: as `in_order` has them."""
        return cls(tuple(in_order(names)))

    @cached_property
    def hash(self) -> str:
        """sha256 of the names in id order."""
        return files.sha256_text(json.dumps(self.names, ensure_ascii=False))

    @cached_property
    def label2id(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @cached_property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.names))

    @cached_property
    def phrases(self) -> tuple[str, ...]:
        """Each name as words, in id order: spaces for underscores."""
        return tuple(name.replace("_", " ") for name in self.names)

    def __len__(self) -> int:
        return len(self.names)

    def require_same(self, other: "LabelSchema", ours: str, theirs: str) -> None:
        """Raise LabelError, naming the first difference, unless `other` is the same schema."""
        if self.hash == other.hash:
            return
        hashes = f"hash {self.hash[:8]} against {other.hash[:8]}"
        raise LabelError(
            f"the labels of {ours} and {theirs} differ ({self._difference(other)}; {hashes})",
            "Use the data that the model was trained on, or train again on this data",
        )

    def _difference(self, other: "LabelSchema") -> str:
        """The first difference from another schema."""
        if len(self) != len(other):
            return f"{len(self)} labels against {len(other)}"

        for index, name in enumerate(self.names):
            other_name = other.names[index]
            if name != other_name:
                return f'id {index} is "{name}" against "{other_name}"'
        # Called only where the hashes differ.
        raise AssertionError("the schemas are the same")

    def save(self, path: Path) -> None:
        content = {
            "hash": self.hash,
            "id2label": {str(index): name for index, name in self.id2label.items()},
            "label2id": self.label2id,
        }
        files.write_text(path, files.json_text(content))

    @classmethod
    def load(cls, path: Path) -> "LabelSchema":
        """Read `labels.json`.

        Raises LabelError where it is missing, malformed, unreadable or does not match its own hash.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            id2label = content["id2label"]
            # By number, because the order of keys in a JSON object means nothing.
            names = [id2label[str(index)] for index in range(len(id2label))]
            schema = cls(tuple(names))
            recorded_hash = content["hash"]
            recorded_ids = content["label2id"]
        except FileNotFoundError:
            raise LabelError(
                f"{path} does not exist", f"Run ETL first ({command('etl')}), or name its output"
            ) from None
        except OSError as error:
            raise LabelError(
                f"{path} cannot be read ({error.strerror})", "Check its owner and mode"
            ) from None
        # The file may hold JSON of any shape, or none.
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise LabelError(f"{path} is no label file", "Run ETL again to replace it") from None

        fault = find_fault(names)
        if fault is not None:
            raise LabelError(f"{path}: {fault}", "Run ETL again to replace it")
        if recorded_hash != schema.hash or recorded_ids != schema.label2id:
            raise LabelError(
                f"{path} was changed by hand: its hash does not match its names", "Run ETL again"
            )
        return schema
