"""The records that a bundle keeps: its manifest, and how its saved forms were compared."""

from dataclasses import dataclass, field
from typing import Any, Self

from bankintent import typed_json
from bankintent.files import JsonObject


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
class PublishedFormats:
    """What is read of the record of `Parity` in a manifest."""

    formats: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


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
    parity: PublishedFormats | None = None
    versions: dict[str, str] = field(default_factory=dict)
    """Package -> its version at training."""
    run_id: str | None = None
    """The MLflow run that trained it."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError where it is no manifest."""
        manifest = typed_json.parse(cls, text)
        if not isinstance(manifest.settings, dict):
            raise ValueError("the settings are no mapping")
        return manifest

    @property
    def settings(self) -> JsonObject:
        """The settings of the run; none where they are not recorded."""
        settings: JsonObject = self.identity.get("settings", {})
        return settings

    @property
    def formats(self) -> dict[str, dict[str, Any]]:
        """Exported format that passed its gate -> the figures of the gate."""
        return {} if self.parity is None else self.parity.formats

    @property
    def left_out(self) -> dict[str, str]:
        """Exported format that was not published -> the reason."""
        return {} if self.parity is None else self.parity.left_out

    def folder(self, part: str) -> dict[str, FileRecord]:
        """The files below one folder of the bundle, such as `merged`."""
        # With the slash, so that `base_7` does not match `base_77`.
        return {name: entry for name, entry in self.files.items() if name.startswith(f"{part}/")}
