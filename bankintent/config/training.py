"""The settings of one training run (train.yaml)."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bankintent.config.base import Name, Regime, Section, TrackingConfig
from bankintent.config.decision import TrainDecisionSection
from bankintent.config.places import OutputPath
from bankintent.texts import is_blank


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
    """`contrastive:` groups sentences by intent: supervised contrastive learning (Khosla et al.,
    2020)."""

    steps: Annotated[int, Field(ge=1)] = 250
    """Optimizer steps of the stage."""
    lr: Annotated[float, Field(gt=0, lt=10)] = 1e-4
    """Peak learning rate of the stage."""
    temperature: Annotated[float, Field(gt=0)] = 0.1
    """Divides cosine similarities; lower gives more weight to the nearest sentences."""
    intents: Annotated[int, Field(ge=2)] = 32
    """Intents in a batch."""
    sentences: Annotated[int, Field(ge=2)] = 4
    """Sentences of each intent in a batch."""
    hard: Annotated[int, Field(ge=0)] = 0
    """Hard negatives that each sentence adds to its batch: the nearest sentences of other intents,
    mined with the pretrained encoder. They are written to `<output_dir>.negatives.csv`."""


class PseudoLabelsSection(Section):
    """`pseudo_labels:` sentences without labels get the intents of the labelled ones over the graph
    of nearest neighbours: label spreading (Zhou et al., 2004)."""

    neighbours: Annotated[int, Field(ge=1)] = 7
    """Nearest sentences, by the pretrained encoder, that a sentence shares its intents with."""
    spread: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Weight of a sentence's neighbours. The rest is the weight of a classifier that is trained on
    the labelled sentences."""


class DistillSection(Section):
    """`distill:` a student that starts from some of its teacher's layers learns its answers (Hinton
    et al., 2015)."""

    layers: Annotated[int, Field(ge=1)]
    """Encoder layers of the student (its `num_hidden_layers`), taken evenly from its teacher's: the
    last always, and from two on the first. A teacher with `pooling: mean` has one more than its
    backbone: the last, which takes the mean."""
    temperature: Annotated[float, Field(gt=0)] = 2.0
    """Divides the logits of both; higher gives more weight to the less likely intents."""
    weight: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the loss that is the distance from the teacher's answers; the rest is that of the
    labels."""


class ExportSection(Section):
    """`export:` formats to publish with the model, each only if it passes its checks."""

    onnx: bool = True
    """`onnx/model.onnx`: float32 for ONNX Runtime and OpenVINO, within 1e-3 of the trained
    model."""
    int8: bool = True
    """`onnx/model_int8.onnx`: about twice as fast, within 0.2 points of validation accuracy; it
    needs `onnx`."""


class ExplainSection(Section):
    """`explain:` what the bundle holds to explain answers by; see docs/how-to/explanations.md."""

    texts: bool = False
    """true: the index holds the training sentences themselves, which may be words of customers, for
    everybody who has the bundle; false: the ids of their rows and their intents."""
    index: bool = True
    """The index of training sentences, by which an answer's nearest are found. It takes one more
    pass over them and two bytes for each number of their vectors."""

    @model_validator(mode="after")
    def _texts_stand_in_the_index(self) -> Self:
        if self.texts and not self.index:
            raise ValueError("texts: true needs the index, and index is false")
        return self


class TrainConfig(Section):
    """train.yaml: one training run of any regime."""

    model_name: Name
    """A Hub name, a folder (also a bundle), or `bundled/all-MiniLM-L6-v2`. A trained head keeps the
    rows of the intents that the data has too."""
    revision: str | None = None
    """Hub revision of the model."""
    regime: Regime
    """Which weights learn; add --regime head-only, lora or full-ft, or regime: to the config. The
    flag wins. head-only: the classification head; lora: the head and low-rank adapters of the
    encoder; full-ft: all weights."""
    data_dir: Path = Path("data/processed")
    """ETL's output."""
    output_dir: OutputPath
    """The bundle to write."""
    seed: int = 6
    """Seed of head initialisation, dropout, batch order and the few-shot draw."""
    few_shot: Annotated[int, Field(ge=1)] | None = None
    """Keep at most this many training sentences of each intent, drawn with `seed`. Validation stays
    whole."""
    max_length: Annotated[int, Field(ge=2)] = 128
    """Longest input in tokens; longer texts are truncated."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Sentences in one forward pass of training. Several processes divide them, so that what is
    learned does not depend on how many there are."""
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
    """How the head starts. random: with small random weights, drawn with `seed`; probe: as a
    logistic regression on the frozen encoder's features, which takes one pass over the data; all of
    it, also where a trained head has rows to keep."""
    pooling: Literal["first", "mean"] = "first"
    """Input of the classifier. first: the first token, as in the plain transformers class; mean:
    the mean over all tokens, which suits sentence encoders and costs one more layer (none for
    ModernBERT, or for a bundle that has it). docs/reference/encoders.md lists the encoders."""
    prefix: str | None = None
    """Text before every sentence, in training and wherever the bundle answers, such as `"query: "`
    for E5 encoders. It is a part of the tokenizer that the bundle holds, and counts in
    `max_length`. null: none, or that of the bundle that `model_name` names."""
    cache_dir: Path = Path("artifacts/cache")
    """Folder for features of frozen encoders, which later runs read; it can be removed."""
    stream_above: Annotated[int, Field(ge=0)] = 200_000
    """Training sentences above which they and their tokens stay in files of `cache_dir`, for as
    long as the run; up to it they are in memory. It changes no result."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Decoupled weight decay."""
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    """Schedule of the learning rate after warm-up: linear and cosine fall to 0 by the last step,
    constant stays."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.06
    """Share of the steps over which the learning rate rises."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target probability spread over all labels."""
    class_weights: Literal["none", "balanced"] = "none"
    """none: every sentence counts the same; balanced: an intent's loss is weighted by the inverse
    of its frequency."""
    label_names: bool = False
    """true: each intent's name, with spaces for underscores, is one more training sentence. It
    helps where there are few."""
    pseudo_labels: PseudoLabelsSection | None = None
    """Train on sentences without labels too: those of `unlabelled` in data.yaml, and those that
    `few_shot` leaves out. Their pseudo-labels are written to `<output_dir>.pseudo-labels.csv`."""
    contrastive: ContrastiveSection | None = None
    """A supervised contrastive stage before training (not for head-only, whose encoder is
    frozen)."""
    distill: DistillSection | None = None
    """Train a smaller model on the answers of the trained model `model_name` (full-ft only)."""
    keep: Literal["best", "last"] = "best"
    """Which weights are published. best: those of the epoch with the best validation macro-F1,
    where a head that starts from a probe counts as epoch 0; last: those of the last epoch."""
    early_stopping: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many epochs without a better validation macro-F1. The probe before training
    does not count here."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of training; weights stay float32. auto: bf16 where the hardware has it, fp16 on
    older CUDA GPUs, otherwise fp32."""
    lora: LoraSection = LoraSection()
    export: ExportSection = ExportSection()
    explain: ExplainSection = ExplainSection()
    decision: TrainDecisionSection | None = TrainDecisionSection()
    """When the model answers, and when it says that it does not know. It changes no weight: `python
    -m bankintent policy` fits another one later. null: it answers everything, with scores that are
    not calibrated."""
    tracking: TrackingConfig = TrackingConfig()

    @field_validator("prefix")
    @classmethod
    def _prefix_is_seen(cls, value: str | None) -> str | None:
        if value is not None and is_blank(value):
            raise ValueError("a blank prefix changes nothing; remove it, or write null")
        return value

    @property
    def effective_batch(self) -> int:
        """Sentences in one optimizer step, over all forward passes and all processes."""
        return self.batch_size * self.gradient_accumulation

    @model_validator(mode="after")
    def _contrastive_needs_an_encoder_that_learns(self) -> Self:
        if self.contrastive is not None and self.regime == "head-only":
            raise ValueError(
                "contrastive: trains the encoder, which head-only keeps frozen;"
                " remove the section, or use lora or full-ft"
            )
        return self

    @model_validator(mode="after")
    def _student_starts_trained(self) -> Self:
        if self.distill is None:
            return self

        if self.regime != "full-ft":
            raise ValueError(
                "distill: trains all weights of the student, with regime full-ft,"
                f" not {self.regime}"
            )
        if self.pseudo_labels is not None:
            raise ValueError(
                "distill: the student learns its teacher's answer to every sentence;"
                " remove pseudo_labels"
            )
        # Each of these would change what the student has copied from its teacher.
        from_the_teacher = {
            "contrastive": self.contrastive is not None,
            "head_init: probe": self.head_init == "probe",
            "pooling: mean": self.pooling == "mean",
            "prefix": self.prefix is not None,
        }
        for key, is_set in from_the_teacher.items():
            if is_set:
                raise ValueError(
                    "distill: the student takes tokenizer, encoder, pooling and head from its"
                    f" teacher; remove {key}"
                )
        return self
