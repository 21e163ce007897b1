"""Every YAML file as one typed model: unknown keys are refused, values checked, each key documented under itself."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Regime = Literal["head-only", "lora", "full-ft"]
Split = Literal["train", "val", "test"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """Base of every config section: no unknown keys, no NaN, no booleans read as numbers."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
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


class DataConfig(Section):
    """data.yaml: from a source of labelled sentences to Parquet splits."""

    dataset_name: Name
    """A Hub name (`banking77` is pinned), a CSV, TSV, JSONL, JSON or Parquet file, a folder with train and test
    files, or `bundled`."""
    revision: str | None = None
    """Hub revision (commit, tag or branch); `banking77` brings its own."""
    subset: str | None = None
    """Hub configuration name, for datasets that have several."""
    text_column: str | None = None
    """Column that holds the sentence; found by name (text, sentence, utterance, query) when not given."""
    label_column: str | None = None
    """Column that holds the intent; found by name (label_text, label, category, intent) when not given."""
    split: Literal["stratified", "official"] = "stratified"
    """stratified: all rows pooled and split anew. official: the source's own test split kept whole, validation
    taken from the source's own or, where it has none, stratified out of train."""
    test_split: Fraction = 0.10
    """Share of each intent that goes to test (stratified only)."""
    val_split: Fraction = 0.10
    """Share of each intent that goes to validation (of all rows when stratified, of train when official)."""
    few_shot: Annotated[int, Field(ge=1)] | None = None
    """Keep only this many training sentences for each intent, drawn with `seed`."""
    seed: int = 6
    """Seed of the split and of the few-shot draw."""
    leakage: Literal["report", "drop", "fail"] = "report"
    """Rows that stand, near enough word for word, in two splits: report them, drop them from the split that is not
    evaluated on, or fail."""
    bad_rows: Literal["drop", "fail"] = "drop"
    """Rows that are empty, undecodable or over-long: drop and list them, or fail."""
    max_chars: Annotated[int, Field(ge=1)] = 5000
    """Longest text, in characters, that counts as a sentence rather than a broken row."""
    output_dir: Path = Path("data/processed")
    """Folder to write; replaced as a whole."""

    @model_validator(mode="after")
    def _shares_leave_train(self) -> Self:
        if self.split == "stratified" and self.test_split + self.val_split >= 1:
            raise ValueError(f"test_split + val_split is {self.test_split + self.val_split:g}, which leaves no train")
        return self


class LoraSection(Section):
    """`lora:` the low-rank adapter (Hu et al., 2021)."""

    r: Annotated[int, Field(ge=1)] = 16
    """Rank of the update."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """The update is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout on the adapter's input."""
    target_modules: list[Name] | Literal["auto"] = "auto"
    """Names of the linear modules to adapt; auto: every linear layer of the encoder."""

    @field_validator("target_modules")
    @classmethod
    def _some_module(cls, value: list[str] | str) -> list[str] | str:
        if not value:
            raise ValueError("an empty list adapts nothing; name modules or write auto")
        return value


class TrainConfig(Section):
    """train.yaml: one training run, whatever its regime."""

    model_name: Name
    """A Hub name, a folder, or `bundled/all-MiniLM-L6-v2`."""
    revision: str | None = None
    """Hub revision of the model."""
    regime: Regime | None = None
    """head-only, lora or full-ft; the --regime flag wins."""
    data_dir: Path = Path("data/processed")
    """ETL's output."""
    output_dir: Path
    """The bundle to write."""
    seed: int = 6
    """Seed of head initialisation, dropout and batch order."""
    max_length: Annotated[int, Field(ge=2)] = 128
    """Longest input in tokens; longer texts are truncated."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sentences in one forward pass of training."""
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    """Forward passes in one optimizer step."""
    eval_batch_size: Annotated[int, Field(ge=1)] = 128
    """Sentences in one forward pass of evaluation."""
    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the training split."""
    lr: Annotated[float, Field(gt=0, lt=10)] = 1e-3
    """Peak learning rate of AdamW."""
    head_lr: Annotated[float, Field(gt=0, lt=10)] | None = None
    """Peak learning rate of the classification head where it differs from `lr`."""
    head_init: Literal["random", "probe"] = "random"
    """probe: the head starts as a logistic regression on the frozen encoder's features, which takes one pass over the
    data."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Decoupled weight decay."""
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate goes on after warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.06
    """Share of the steps over which the learning rate rises."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target probability spread over all labels."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: an intent's loss is weighted by the inverse of its frequency."""
    early_stopping: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many epochs without a better validation macro-F1 and keep the best epoch's weights; without
    it the last epoch is kept."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of training; weights stay float32. auto: bf16 where the hardware has it, fp16 on older CUDA GPUs,
    else fp32."""
    lora: LoraSection = LoraSection()
    tracking: TrackingConfig = TrackingConfig()


class EvalConfig(Section):
    """eval.yaml: one evaluation of one checkpoint."""

    checkpoint_path: Path
    """A bundle, its merged/, or a transformers checkpoint folder with labels."""
    data_dir: Path | None = None
    """ETL's output; by default the one recorded with the model."""
    split: Split = "test"
    """Which split to read."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sentences in one forward pass; does not change the result."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind the 95 % intervals."""
    seed: int = 6
    """Seed of the bootstrap."""
    output_dir: Path | None = None
    """Where the report goes; by default artifacts/evals/<run>."""
    tracking: TrackingConfig = TrackingConfig()


class BatchingSection(Section):
    """`batching:` how texts that wait are put together."""

    max_texts: Annotated[int, Field(ge=1)] = 8
    """Most texts in one forward pass. On a CPU more than 8 gain nothing and pad more; a GPU wants 64 or so."""
    max_tokens: Annotated[int, Field(ge=1)] = 4096
    """Most tokens in one forward pass, padding included; a longer single text goes alone."""


class LimitsSection(Section):
    """`limits:` what one request and all of them may cost; `/info` shows them."""

    max_body_bytes: Annotated[int, Field(ge=100)] = 1_048_576
    """Longest request body; longer is 413."""
    max_texts: Annotated[int, Field(ge=1)] = 64
    """Most texts in one request; more is 422."""
    max_chars: Annotated[int, Field(ge=1)] = 5000
    """Longest text, in characters; longer is 422."""
    max_queue: Annotated[int, Field(ge=1)] = 1024
    """Texts that may be admitted and not yet answered; more is 429."""
    deadline_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds from a request's arrival to its answer; later is 504, and what has not begun is not done."""
    shutdown_s: Annotated[float, Field(gt=0)] = 15.0
    """Seconds from SIGTERM to the end of the process at the latest."""


class ServeConfig(Section):
    """serve.yaml: the HTTP API."""

    model_dir: Path | None = None
    """A bundle, its merged/, or a sequence classification folder; the MODEL_DIR variable wins over the file."""
    host: Name = "127.0.0.1"
    """Address to listen on; loopback unless told."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of the model; by default one for each core that the process may use."""
    evals_dir: Path = Path("artifacts/evals")
    """Where `python -m eval` put the confusion matrix of the bundle, for `/card`."""
    batching: BatchingSection = BatchingSection()
    limits: LimitsSection = LimitsSection()

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        limits = self.limits
        if limits.max_texts > limits.max_queue:
            raise ValueError(f"limits.max_texts is {limits.max_texts}, more than max_queue ({limits.max_queue}) takes")
        if limits.shutdown_s <= limits.deadline_s:
            raise ValueError(
                f"limits.shutdown_s is {limits.shutdown_s:g}, which would cut requests that deadline_s"
                f" ({limits.deadline_s:g}) still allows"
            )
        return self


class FrontendConfig(Section):
    """The Gradio page."""

    backend_url: str | None = None
    """The API's address, for example http://127.0.0.1:8000; without it the page starts an API of its own."""
    serve_config: Path | None = None
    """serve.yaml of the API that the page starts."""
    model_dir: Path | None = None
    """Model of the API that the page starts; wins over `serve_config` and MODEL_DIR."""
    host: Name = "127.0.0.1"
    """Address to listen on; loopback unless told."""
    port: Annotated[int, Field(ge=1, le=65535)] = 7860
    """Port to listen on."""
    top_k: Annotated[int, Field(ge=1)] = 5
    """Intents shown for a sentence."""
    max_rows: Annotated[int, Field(ge=1)] = 20_000
    """Most rows of an uploaded CSV."""
    max_file_mb: Annotated[int, Field(ge=1)] = 20
    """Largest uploaded CSV."""
    examples: list[Name] = [
        "My card still has not arrived, can you track it?",
        "Why was I charged for a cash withdrawal?",
        "How do I change my PIN?",
        "The exchange rate you used looks wrong",
    ]
    """Sentences to click."""
