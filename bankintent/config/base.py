"""The base of every section of every YAML file, and the types that several of them share."""

import codecs
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

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
        if "bool" in annotation:
            return value

        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, bool):
                raise ValueError(f"{str(item).lower()} is no value for this key")
        return value


def _known_encoding(name: str) -> str:
    """The encoding's name in Python; ValueError where it is none of text."""
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        raise ValueError(f"{name!r} is no encoding; try utf-8 or cp1252") from None
    # codecs.lookup also knows transformations of bytes, such as base64.
    if not getattr(codec, "_is_text_encoding", True):
        raise ValueError(f"{name!r} is no encoding of text; try utf-8 or cp1252")
    return codec.name


def _one_delimiter(value: str) -> str:
    """The character that a delimiter or its name stands for."""
    delimiter = DELIMITER_NAMES.get(value.lower(), value)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        names = ", ".join(DELIMITER_NAMES)
        raise ValueError(f"a delimiter is one character or one of {names}; found {value!r}")
    return delimiter


DELIMITER_NAMES = {"tab": "\t", r"\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}
"""Words for delimiters that are awkward to write in YAML or in a shell."""

Encoding = Annotated[str, AfterValidator(_known_encoding)]
"""An encoding that Python knows."""

Delimiter = Annotated[str, AfterValidator(_one_delimiter)]
"""A character between the cells of a CSV, or its name."""


class TableKeys(Section):
    """The keys of every config that reads tables: what cannot be told from the file itself."""

    text_column: str | None = None
    """Column that holds the sentence; found by name (text, sentence, utterance, query, message)
    when not given."""
    encoding: Encoding | None = None
    """Encoding of CSV and JSON files that are not Unicode, for example cp1252; UTF-8 is expected
    when not given. A file that is UTF-8, or that begins with a byte order mark, is read as such."""
    delimiter: Delimiter | None = None
    """The character between the cells of a CSV, or `tab`; found in the first lines when not
    given."""
    sheet: str | None = None
    """Sheet of an .xlsx workbook; the first when not given."""
    header: Literal["first", "none"] | None = None
    """Where the names of the columns of a CSV or workbook stand. first: in its first row; none:
    nowhere, and the columns are called 1, 2, 3 and so on. When not given: in its first row, unless
    a table of two columns has a sentence and an intent there."""


class LabelledTableKeys(TableKeys):
    """The same for tables with intents."""

    label_column: str | None = None
    """Column that holds the intent; found by name (label_text, label, category, intent, class)
    when not given."""


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
    models: Literal["link", "copy", "none"] = "link"
    """How a run holds its bundle. link: its large files are hard links to the bundle's, which take
    no space, where the tracking store is on the same disk, and copies elsewhere; copy: files of its
    own; none: by the tag `bundle` alone, which has its path."""


def no_repeats(value: list[Any]) -> list[Any]:
    """Validator of lists that may not hold an item twice."""
    repeated = [item for item in value if value.count(item) > 1]
    if repeated:
        raise ValueError(f"{repeated[0]} stands twice")
    return value
