"""Every YAML file as one typed model: unknown keys are refused, values checked, each key documented under itself."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

Regime = Literal["head-only", "lora", "full-ft"]
Split = Literal["train", "val", "test"]
RuntimeName = Literal["auto", "torch", "onnx", "onnx-int8", "openvino"]
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
    files: bool = True
    """false logs parameters and metrics, but no plots and no models."""


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
    extra_train: Name | None = None
    """A second source of the same intents whose sentences go to train alone, for example sentences written for the
    purpose; those that stand in the dataset already are left out. Named like `dataset_name`."""
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


class ContrastiveSection(Section):
    """`contrastive:` a stage before training that groups sentences by intent (supervised contrastive learning)."""

    steps: Annotated[int, Field(ge=1)] = 250
    """Optimizer steps of the stage."""
    lr: Annotated[float, Field(gt=0, lt=10)] = 1e-4
    """Peak learning rate of the stage."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Divides cosine similarities; lower looks harder at the nearest sentences."""
    intents: Annotated[int, Field(ge=2)] = 32
    """Intents in a batch."""
    sentences: Annotated[int, Field(ge=2)] = 4
    """Sentences of each intent in a batch."""
    hard: Annotated[int, Field(ge=0)] = 0
    """Hard negatives: how many of its nearest sentences of other intents, mined with the pretrained encoder, a sentence
    brings into the batch; they are written to `<output_dir>.negatives.csv`."""


class DistillSection(Section):
    """`distill:` a student with some layers of a trained model, which `model_name` names, learns the model's answers."""

    layers: Annotated[int, Field(ge=1)]
    """Encoder layers of the student (its `num_hidden_layers`), taken evenly from its teacher's: the last always, and from
    two on the first. A teacher with `pooling: mean` has one more than its backbone: the last, which takes the mean."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Divides the logits of both; higher makes more of what the teacher says of the other intents."""
    weight: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the loss that is distance from the teacher's answers; the rest is that on the labels."""


class ExportSection(Section):
    """`export:` formats that are published beside the model, each only where it passes its gate."""

    onnx: bool = True
    """onnx/model.onnx: float32 for ONNX Runtime and OpenVINO, within 1e-3 of the trained model."""
    int8: bool = True
    """onnx/model_int8.onnx: about twice as fast, within 0.2 points of validation accuracy; not without `onnx`."""


class TrainConfig(Section):
    """train.yaml: one training run, whatever its regime."""

    model_name: Name
    """A Hub name, a folder (also a bundle), or `bundled/all-MiniLM-L6-v2`."""
    revision: str | None = None
    """Hub revision of the model."""
    regime: Regime | None = None
    """head-only, lora or full-ft; the --regime flag wins."""
    data_dir: Path = Path("data/processed")
    """ETL's output."""
    output_dir: Path
    """The bundle to write."""
    seed: int = 6
    """Seed of head initialisation, dropout, batch order and the few-shot draw."""
    few_shot: Annotated[int, Field(ge=1)] | None = None
    """Keep at most this many training sentences of each intent, drawn with `seed`; validation stays whole."""
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
    pooling: Literal["first", "mean"] = "first"
    """What the classifier reads: the first token, as the plain class does, or the mean over all tokens, which suits
    sentence encoders and costs one more layer (none for ModernBERT)."""
    cache_dir: Path = Path("artifacts/cache")
    """Where features of frozen encoders are kept, so that a second run need not compute them; safe to remove."""
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
    contrastive: ContrastiveSection | None = None
    """A supervised contrastive stage before training (not for head-only, whose encoder is frozen)."""
    distill: DistillSection | None = None
    """Make the trained model `model_name` the teacher of a smaller one (full-ft alone)."""
    early_stopping: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many epochs without a better validation macro-F1 and keep the best epoch's weights; without
    it the last epoch is kept."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of training; weights stay float32. auto: bf16 where the hardware has it, fp16 on older CUDA GPUs,
    else fp32."""
    lora: LoraSection = LoraSection()
    export: ExportSection = ExportSection()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _student_starts_trained(self) -> Self:
        if self.distill is None:
            return self
        if self.regime not in (None, "full-ft"):
            raise ValueError(f"distill: trains all weights of the student, with regime full-ft, not {self.regime}")
        changes = {
            "contrastive": self.contrastive is not None,
            "head_init: probe": self.head_init == "probe",
            "pooling: mean": self.pooling == "mean",
        }
        for key, is_set in changes.items():
            if is_set:
                raise ValueError(f"distill: the student takes encoder, pooling and head from its teacher; remove {key}")
        return self


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


def _size(value: Any) -> Any:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise ValueError(f"a size is a number of sentences for each intent, or all; found {value!r}")


Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Size = Annotated[int | Literal["all"], BeforeValidator(_size)]
Scalar = int | float | bool | str | None


class RangeSection(Section):
    """`{low: 1e-4, high: 5e-3, log: true}`: the numbers between two ends; whole ones where both ends are."""

    low: int | float
    """Smallest value."""
    high: int | float
    """Largest value."""
    log: bool = False
    """true: drawn evenly over orders of magnitude."""

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g}, not below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}; log: true takes numbers above zero")
        return self


Choices = Annotated[
    Annotated[RangeSection, Tag("range")] | Annotated[list[Scalar], Field(min_length=2), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "range"),
]


class FoldsSection(Section):
    """`{kfold: 5}`: stratified cross-validation of the train split."""

    kfold: Annotated[int, Field(ge=2, le=20)]
    """Number of folds."""


class SweepSection(Section):
    """`sweep:` settings chosen with Optuna before the comparison, never on the test split."""

    trials: Annotated[int, Field(ge=1)] = 20
    """Trials for each recipe."""
    choose_on: Annotated[
        Annotated[Literal["val"], Tag("val")] | Annotated[FoldsSection, Tag("folds")],
        Discriminator(lambda value: "val" if isinstance(value, str) else "folds"),
    ] = "val"
    """val: the validation split; {kfold: 5}: cross-validation of the train split."""
    metric: Literal["macro_f1", "accuracy"] = "macro_f1"
    """What the chosen values make largest: after the last epoch, or in the best one under early stopping."""
    seed: int = 6
    """Seed of the trials' runs, of the folds and of what is tried."""
    space: Annotated[dict[str, dict[str, Choices]], Field(min_length=1)]
    """recipe -> config key -> a list of values, or a range."""


class CompareConfig(Section):
    """compare.yaml: recipes x backbones x training sizes x seeds, one report."""

    name: Slug
    """Name of the study."""
    output_dir: Path | None = None
    """The study's folder; by default artifacts/studies/<name>."""
    data_dir: Path = Path("data/processed")
    """ETL's output."""
    recipes: Annotated[dict[Slug, Path], Field(min_length=1)]
    """name -> a train.yaml that says its regime. Data, output, seed, size and tracking are the study's."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [1, 2, 3, 4, 5]
    """One run of every cell for each seed."""
    backbones: list[Name] = []
    """Models that every recipe is run on; by default each recipe's own."""
    sizes: Annotated[list[Size], Field(min_length=1)] = ["all"]
    """Training sentences for each intent (all it has, where it has fewer), drawn with the run's seed; validation and
    test stay whole."""
    split: Literal["val", "test"] = "test"
    """The split of the final figures."""
    set: dict[str, Any] = {}
    """Overrides of every recipe, for example {epochs: 2, lora.r: 8}."""
    bootstrap: Annotated[int, Field(ge=1000)] = 10_000
    """Resamples behind the intervals of differences."""
    keep_models: bool = False
    """true keeps the bundle of every run, under models/ in the study's folder, without exported formats."""
    sweep: SweepSection | None = None
    tracking: TrackingConfig = TrackingConfig()
    """Where runs are logged: parameters and metrics, no files."""

    @property
    def folder(self) -> Path:
        """Where the study lives."""
        return self.output_dir or Path("artifacts/studies") / self.name

    @field_validator("seeds", "sizes", "backbones")
    @classmethod
    def _no_repeats(cls, value: list[Any]) -> list[Any]:
        repeated = [item for item in value if value.count(item) > 1]
        if repeated:
            raise ValueError(f"{repeated[0]} stands twice")
        return value

    @model_validator(mode="after")
    def _sweep_fits(self) -> Self:
        if self.sweep is None:
            return self
        for name in self.sweep.space:
            if name not in self.recipes:
                raise ValueError(f'sweep.space names the recipe "{name}"; there are {", ".join(self.recipes)}')
        if self.split == "val" and self.sweep.choose_on == "val":
            raise ValueError("the sweep would choose on the split of the final figures; choose_on {kfold: 5} does not")
        return self


def _one_gap(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError(f"a template holds {{}} once, where the text of the label goes; found {template!r}")
    return template


Template = Annotated[str, AfterValidator(_one_gap)]


class EmbeddingSection(Section):
    """`embedding:` zero-shot by the cosine of a text's embedding with those of the label texts."""

    template: Template = "{}"
    """What is embedded for a label; {} is its text."""
    scale: Annotated[float, Field(gt=0)] = 20.0
    """The cosines are multiplied by this before the softmax: sentence encoders are trained so, and confidence follows
    it; predictions do not."""


class NliSection(Section):
    """`nli:` zero-shot with a model of natural language inference (Yin et al., 2019)."""

    model_name: Name = "facebook/bart-large-mnli"
    """A Hub name or a folder: a sequence classifier that has an entailment label."""
    revision: str | None = None
    """Hub revision of the model."""
    template: Template = "This example is {}."
    """The hypothesis that a label stands for; {} is its text. The sentence itself is the premise."""
    max_length: Annotated[int, Field(ge=4)] = 128
    """Longest pair in tokens; of a longer one the sentence is cut, never the hypothesis."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Sentence-label pairs in one forward pass; does not change the result."""


class BaselineConfig(Section):
    """baseline.yaml: references that need no training of an encoder, on the split that models are evaluated on."""

    name: Slug = "baseline"
    """Name of the reports: `<name>-<reference>`."""
    references: Annotated[list[Name], Field(min_length=1)]
    """Which to measure, in this order: majority, tfidf, untrained, embedding, nli."""
    data_dir: Path = Path("data/processed")
    """ETL's output."""
    split: Literal["val", "test"] = "test"
    """Which split to predict."""
    output_dir: Path = Path("artifacts/evals")
    """Where each reference gets its report folder."""
    model_name: Name = "bundled/all-MiniLM-L6-v2"
    """Backbone of untrained and embedding: a Hub name, a folder, or `bundled/all-MiniLM-L6-v2`."""
    revision: str | None = None
    """Hub revision of the backbone."""
    max_length: Annotated[int, Field(ge=2)] = 128
    """Longest input of the backbone in tokens; longer texts are truncated."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sentences in one forward pass of the backbone; does not change the result."""
    label_texts: dict[Name, Name] = {}
    """intent -> how embedding and nli say it; by default its name with spaces for underscores."""
    embedding: EmbeddingSection = EmbeddingSection()
    nli: NliSection = NliSection()
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind the 95 % intervals."""
    seed: int = 6
    """Seed of the untrained head, of the folds of tfidf and of the bootstrap."""
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("references")
    @classmethod
    def _no_repeats(cls, value: list[str]) -> list[str]:
        repeated = [name for name in value if value.count(name) > 1]
        if repeated:
            raise ValueError(f"{repeated[0]} stands twice")
        return value


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
    runtime: RuntimeName = "auto"
    """What computes the answers; auto: the fastest that the bundle has verified and the installation offers."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of the model; by default one for each core that the process may use."""
    cache: Annotated[int, Field(ge=0)] = 0
    """Different texts whose answers are kept, so that a repeated text costs nothing; 0 keeps no text in memory."""
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


class ScoreConfig(Section):
    """score.yaml: a label and a score for every row of a table."""

    input: Path
    """A Parquet, CSV or TSV file; .csv.gz and .tsv.gz too."""
    output: Path
    """The file to write; its ending says in which of these formats."""
    model_dir: Path
    """A bundle, its merged/, or a sequence classification folder."""
    text_column: str | None = None
    """Column that holds the sentence; found by name (text, sentence, utterance, query, message) when not given."""
    prefix: str = ""
    """Put before the names of the added columns, for example predicted_ where the table has a `label` already."""
    bad_rows: Literal["keep", "fail"] = "keep"
    """Rows without a text (null or blank): keep them with neither label nor score, or fail before any is scored."""
    runtime: RuntimeName = "auto"
    """What computes the answers; auto: the fastest that the bundle has verified and the installation offers."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of the model; by default one for each core that the process may use."""
    batch_tokens: Annotated[int, Field(ge=1)] = 512
    """Tokens in one forward pass, padding included; a longer single text goes alone. A GPU wants 16384 or so."""
    chunk_rows: Annotated[int, Field(ge=1)] = 8192
    """Rows that are read together, sorted by length and kept as one part; a kill costs at most one part's work."""


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
