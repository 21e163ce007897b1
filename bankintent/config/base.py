"""The base of every section of every YAML file, and the types that several of them share."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Regime = Literal["head-only", "lora", "full-ft"]
"""Which weights of a model learn."""

Split = Literal["train", "val", "test"]
"""A part of a dataset."""

RuntimeName = Literal["auto", "torch", "onnx", "onnx-int8", "openvino"]
"""What computes a model; auto: the fastest that is available and verified."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
"""A share that is neither nothing nor all."""

Name = Annotated[str, Field(min_length=1)]
"""A name that may hold any character; an empty one is a mistake."""

Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name that can also be the name of a file or folder."""


class Section(BaseModel):
    """Base of every config section: no unknown keys, no NaN, no booleans read as numbers."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        # Messages about a missing key repeat the docstring under it.
        use_attribute_docstrings=True,
        # Some versions of pydantic reserve names that begin with model_, such as model_name.
        protected_namespaces=(),
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans_as_numbers(cls, value: Any, info: Any) -> Any:
        # pydantic would read `epochs: true` as 1.
        annotation = str(cls.model_fields[info.field_name].annotation)
        if isinstance(value, bool) and "bool" not in annotation:
            raise ValueError(f"{str(value).lower()} is no value for this key")
        return value


class TrackingConfig(Section):
    """`tracking:` logging of runs to MLflow."""

    enabled: bool = True
    """false logs nothing to MLflow; the bundle holds the same record."""
    uri: Name = "sqlite:///artifacts/mlflow.db"
    """MLflow tracking URI."""
    artifacts: Path = Path("artifacts/mlruns")
    """Folder of MLflow's plots and files; it is used when the experiment is created."""
    experiment: Name = "bankintent"
    """MLflow experiment name."""
    files: bool = True
    """false logs parameters and metrics, but no plots and no models."""


def no_repeats(value: list[Any]) -> list[Any]:
    """Validator of lists that may not hold an item twice."""
    repeated = [item for item in value if value.count(item) > 1]
    if repeated:
        raise ValueError(f"{repeated[0]} stands twice")
    return value
