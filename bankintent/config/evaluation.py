"""eval.yaml, baseline.yaml and score.yaml."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from bankintent.config.base import (
    LabelledTableKeys,
    Name,
    RuntimeName,
    Section,
    Slug,
    Split,
    TableKeys,
    TrackingConfig,
    no_repeats,
)
from bankintent.config.cluster import Engine, ScoreRaySection
from bankintent.config.places import OutputPath
from bankintent.texts import is_blank


class EvalConfig(LabelledTableKeys):
    """eval.yaml: one evaluation of one checkpoint."""

    checkpoint_path: Path
    """A bundle, its merged/, or a transformers checkpoint folder with labels."""
    data_dir: Path | None = None
    """ETL's output, or a labelled table or a folder of tables as such; by default ETL's output that
    is recorded with the model."""
    label_map: Path | None = None
    """A YAML file of `name in the table: name in the model`, where the intents have other names."""
    split: Split = "test"
    """Which split of ETL's output or of a folder of tables; a table as such has none."""
    bad_rows: Literal["few", "drop", "fail"] = "few"
    """Rows of a table that are empty, undecodable or over-long. few: they are left out and listed,
    and more than 5 % of them is an error; drop: left out, however many; fail: one is an error."""
    by: list[Name] = []
    """Columns whose values divide the rows, each with its own figures: columns of the data besides
    text and intent, or `length`, `language` and `intent`, which are computed."""
    without: Path | None = None
    """The suspected_test.json of an audit: beside the official figures a second one is given,
    marked, without the rows that it suspects."""
    with_texts: bool = False
    """true writes the sentences into predictions.parquet, which may be words of customers."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sentences in one forward pass; does not change the result."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind the 95 % intervals."""
    seed: int = 6
    """Seed of the bootstrap and of the noise floor of calibration."""
    output_dir: OutputPath | None = None
    """Folder of the report; by default `artifacts/evals/<run>`, and `<run>-<table>` for a table."""
    tracking: TrackingConfig = TrackingConfig()

    _different = field_validator("by")(no_repeats)


class CompareModelsConfig(LabelledTableKeys):
    """compare-models.yaml: two models on the same rows."""

    model_a: Path
    """The model to compare with, for example the one that is served: a bundle, its merged/, or a
    transformers checkpoint folder with labels."""
    model_b: Path
    """The model that may take its place."""
    data_dir: Path | None = None
    """A labelled table, a folder of tables or ETL's output; by default the data that both models
    record, where it is the same."""
    label_map: Path | None = None
    """A YAML file of `old name: new name` for intents that the table or one of the models calls
    otherwise."""
    split: Split = "test"
    """Which split of ETL's output or of a folder of tables; a table as such has none."""
    bad_rows: Literal["few", "drop", "fail"] = "few"
    """Rows of a table that are empty, undecodable or over-long: as for `python -m eval`."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sentences in one forward pass; does not change the result."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind the 95 % intervals."""
    seed: int = 6
    """Seed of the bootstrap."""
    output_dir: OutputPath | None = None
    """Folder of the report; by default `artifacts/comparisons/<a>-vs-<b>`."""


def _one_gap(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError(
            f"a template holds {{}} once, where the text of the label goes; found {template!r}"
        )
    return template


Template = Annotated[str, AfterValidator(_one_gap)]
"""A sentence with one {} for the text of a label."""


class EmbeddingSection(Section):
    """`embedding:` zero-shot by the cosine of the embeddings of a text and of the label texts."""

    template: Template = "{}"
    """The text that is embedded for a label; {} is the label's text."""
    scale: Annotated[float, Field(gt=0)] = 20.0
    """Factor of the cosines before the softmax, as sentence encoders are trained. It changes the
    confidence, not the prediction."""


class NliSection(Section):
    """`nli:` zero-shot with a model of natural language inference (Yin et al., 2019)."""

    model_name: Name = "facebook/bart-large-mnli"
    """A Hub name or a folder: a sequence classifier that has an entailment label."""
    revision: str | None = None
    """Hub revision of the model."""
    template: Template = "This example is {}."
    """The hypothesis for a label; {} is its text. The sentence itself is the premise."""
    max_length: Annotated[int, Field(ge=4)] = 128
    """Longest pair in tokens; in a longer one the sentence is cut, never the hypothesis."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Sentence-label pairs in one forward pass; does not change the result."""


class BaselineConfig(Section):
    """baseline.yaml: references that train no encoder, on one split of the data."""

    name: Slug = "baseline"
    """Name of the reports: `<name>-<reference>`."""
    references: Annotated[list[Name], Field(min_length=1)]
    """References to measure, in this order: of `majority`, `tfidf`, `untrained`, `embedding` and
    `nli`."""
    data_dir: Path = Path("data/processed")
    """ETL's output."""
    split: Literal["val", "test"] = "test"
    """Which split to predict."""
    output_dir: OutputPath = Path("artifacts/evals")
    """Folder of the reports, with a folder for each reference."""
    model_name: Name = "bundled/all-MiniLM-L6-v2"
    """Backbone of untrained and embedding: a Hub name, a folder, or `bundled/all-MiniLM-L6-v2`."""
    revision: str | None = None
    """Hub revision of the backbone."""
    max_length: Annotated[int, Field(ge=2)] = 128
    """Longest input of the backbone in tokens; longer texts are truncated."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sentences in one forward pass of the backbone; does not change the result."""
    label_texts: dict[Name, Name] = {}
    """The text of an intent for embedding and nli; by default its name with spaces for
    underscores."""
    embedding: EmbeddingSection = EmbeddingSection()
    nli: NliSection = NliSection()
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind the 95 % intervals."""
    seed: int = 6
    """Seed of the untrained head, of the folds of tfidf and of the bootstrap."""
    tracking: TrackingConfig = TrackingConfig()

    _unique = field_validator("references")(no_repeats)


class ScoreConfig(TableKeys):
    """score.yaml: an answer for every row of a table."""

    input: Path
    """A Parquet, CSV, TSV, JSON, JSON lines or .xlsx file, also gzipped; or a folder of such files
    with the same columns, which are read in the order of their names."""
    output: OutputPath
    """The file to write, in the format of its ending."""
    model_dir: Path
    """A bundle, its merged/, or a sequence classification folder."""
    prefix: str = ""
    """Prefix of the names of the added columns, for example predicted_ where the table already has
    a `label`."""
    bad_rows: Literal["keep", "fail"] = "keep"
    """Rows without a text (null or blank). keep: they get no answer; fail: one is an error, before
    any row is scored."""
    runtime: RuntimeName = "auto"
    """The runtime that computes the answers. auto: the fastest that the bundle has verified and the
    installation offers, or torch on a GPU; torch: PyTorch; onnx: ONNX Runtime in float32;
    onnx-int8: ONNX Runtime in 8 bits; openvino: OpenVINO in bf16."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of the model; by default one for each core that the process may use."""
    batch_tokens: Annotated[int, Field(ge=1)] = 512
    """Tokens in one forward pass, padding included; a longer text gets a pass of its own. A GPU
    works best with about 16384."""
    chunk_rows: Annotated[int, Field(ge=1)] = 8192
    """Rows that are read together, sorted by length and saved as one part. A process that is killed
    loses the work of at most one part."""
    engine: Engine = "local"
    """What computes the answers. local: this process; ray: actors on a Ray cluster."""
    ray: ScoreRaySection = ScoreRaySection()


class ExplainConfig(Section):
    """The keys of `python -m bankintent explain`: why some texts get their answers."""

    texts: Annotated[list[str], Field(min_length=1)]
    """The texts, none of them blank."""
    model_dir: Path
    """A bundle, its merged/, or a sequence classification folder."""
    neighbours: Annotated[int, Field(ge=1, le=100)] = 5
    """Nearest training sentences to show."""
    brief: bool = False
    """Print the decisions alone."""
    runtime: RuntimeName = "auto"
    """The runtime that computes the answers. auto: the fastest that the bundle has verified and the
    installation offers, or torch on a GPU; torch: PyTorch; onnx: ONNX Runtime in float32;
    onnx-int8: ONNX Runtime in 8 bits; openvino: OpenVINO in bf16."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of the model; by default one for each core that the process may use."""

    @field_validator("texts")
    @classmethod
    def _something_to_read(cls, texts: list[str]) -> list[str]:
        if any(is_blank(text) for text in texts):
            raise ValueError("a text is blank; write a sentence in quotes")
        return texts
