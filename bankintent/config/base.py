"""What every section of every YAML file shares: no unknown keys, checked values, each key documented under itself."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Regime = Literal["head-only", "lora", "full-ft"]
Split = Literal["train", "val", "test"]
RuntimeName = Literal["auto", "torch", "onnx", "onnx-int8", "openvino"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]
Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """Base of every config section: no unknown keys, no NaN, no booleans read as numbers."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans_as_numbers(cls, value: Any, info: Any) -> Any:
        annotation = str(cls.model_fields[info.field_name].annotation)
        if isinstance(value, bool) and "bool" not in annotation:
            raise ValueError(f"{str(value).lower()} is no value for this key")
        return value


class TrackingConfig(Section):
    """`tracking:` where runs are logged."""

    enabled: bool = True
    """false logs nothing to MLflow; the bundle holds the same record."""
    uri: Name = "sqlite:///artifacts/mlflow.db"
    """MLflow tracking URI."""
    artifacts: Path = Path("artifacts/mlruns")
    """Where MLflow keeps plots and files (for an experiment that is made anew)."""
    experiment: Name = "bankintent"
    """MLflow experiment name."""
    files: bool = True
    """false logs parameters and metrics, but no plots and no models."""


def no_repeats(value: list[Any]) -> list[Any]:
    """Validator of lists in which nothing may stand twice."""
    repeated = [item for item in value if value.count(item) > 1]
    if repeated:
        raise ValueError(f"{repeated[0]} stands twice")
    return value
