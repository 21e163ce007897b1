"""The records that a bundle keeps: its manifest, and how its saved forms were compared."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Parity:
    """How far the saved forms of a model are from the trained one, and which formats passed."""

    rows: int
    """Sentences that were compared."""
    tolerance: float
    """Largest difference of a logit that a published bundle may have."""
    largest_logit_difference: dict[str, float]
    """Saved form and batch size -> largest absolute difference of a logit."""
    formats: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Exported format -> the figures of its gate."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Exported format that was not published -> the reason."""
    compared_on: str = "val"
    """Which sentences were compared: those of val or, where nothing was held out, of train."""


@dataclass(frozen=True)
class FileRecord:
    """One file of a bundle as it was published."""

    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The manifest of a bundle as it was read.

    Only `files` is in every manifest. A value that a bundle does not record is None or empty.
    """

    files: dict[str, FileRecord]
    """Path relative to the bundle -> the file, in sorted order; the manifest is not among them."""
    identity: dict[str, Any] = field(default_factory=dict)
    """Settings and hashes of data, labels and starting weights: what makes two runs the same."""
    base_model: str | None = None
    """Public name of the pretrained model."""
    data_dir: str | None = None
    """ETL's output that it was trained on, as the run named it."""
    data_hash: str | None = None
    parity: dict[str, Any] | None = None
    """The fields of `Parity`; bundles of earlier releases lack some of them."""
    versions: dict[str, str] = field(default_factory=dict)
    """Package -> its version at training."""
    run_id: str | None = None
    """The MLflow run that trained it."""

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Raises ValueError, KeyError, TypeError or AttributeError where it is no manifest."""
        content = json.loads(text)
        # Without a default: a manifest that lists no files could verify none.
        records = {}
        for name, entry in content["files"].items():
            records[name] = FileRecord(entry["size"], entry["sha256"])

        return cls(
            files=records,
            identity=content.get("identity", {}),
            base_model=content.get("base_model"),
            data_dir=content.get("data_dir"),
            data_hash=content.get("data_hash"),
            parity=content.get("parity"),
            versions=content.get("versions", {}),
            run_id=content.get("run_id"),
        )

    @property
    def formats(self) -> dict[str, dict[str, Any]]:
        """Exported format that passed its gate -> the figures of the gate."""
        return dict((self.parity or {}).get("formats", {}))

    @property
    def left_out(self) -> dict[str, str]:
        """Exported format that was not published -> the reason."""
        return dict((self.parity or {}).get("left_out", {}))

    def folder(self, part: str) -> dict[str, FileRecord]:
        """The files below one folder of the bundle, such as `merged`."""
        # With the slash, so that `base_7` does not match `base_77`.
        return {name: entry for name, entry in self.files.items() if name.startswith(f"{part}/")}
