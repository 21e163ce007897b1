"""The frozen label schema: which names there are, which id each has, and a hash that every later step checks."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bankintent import files
from bankintent.errors import LabelError


@dataclass(frozen=True)
class LabelSchema:
    """Label names in id order. Two schemas are the same when names and order are."""

    names: tuple[str, ...]

    @classmethod
    def from_names(cls, names: Iterable[str]) -> "LabelSchema":
        """Order names as BANKING77's Hub copies do: alphabetically, ignoring case."""
        return cls(tuple(sorted(set(names), key=lambda name: (name.lower(), name))))

    @cached_property
    def hash(self) -> str:
        """sha256 of the names in id order."""
        return hashlib.sha256(json.dumps(self.names, ensure_ascii=False).encode()).hexdigest()

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
        if len(self) != len(other):
            difference = f"{len(self)} labels against {len(other)}"
        else:
            pairs = zip(self.names, other.names, strict=True)
            index, (mine, yours) = next(
                (i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]
            )
            difference = f'id {index} is "{mine}" against "{yours}"'
        raise LabelError(
            f"the labels of {ours} and {theirs} differ ({difference}; hash {self.hash[:8]} against {other.hash[:8]})",
            "Use the data that the model was trained on, or train again on this data",
        )

    def save(self, path: Path) -> None:
        files.write_text(
            path,
            files.json_text(
                {
                    "hash": self.hash,
                    "id2label": {str(index): name for index, name in self.id2label.items()},
                    "label2id": self.label2id,
                }
            ),
        )

    @classmethod
    def load(cls, path: Path) -> "LabelSchema":
        """Read `labels.json`; LabelError where it is missing, malformed or does not match its own hash."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            names = content["id2label"]
            schema = cls(tuple(names[str(index)] for index in range(len(names))))
            recorded, label2id = content["hash"], content["label2id"]
        except FileNotFoundError:
            raise LabelError(
                f"{path} does not exist", "Run ETL first (python -m etl), or name its output"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise LabelError(f"{path} is no label file", "Run ETL again to write it anew") from None
        if recorded != schema.hash or label2id != schema.label2id:
            raise LabelError(
                f"{path} was changed by hand: its hash does not match its names", "Run ETL again"
            )
        return schema
