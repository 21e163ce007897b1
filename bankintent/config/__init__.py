"""Every YAML file as one typed model.

Unknown keys are refused, values are checked, and the docstring under each key documents it.
"""

from bankintent.config.base import (
    Fraction,
    LabelledTableKeys,
    Name,
    Regime,
    RuntimeName,
    Section,
    Slug,
    Split,
    TableKeys,
    TrackingConfig,
)
from bankintent.config.data import DataConfig
from bankintent.config.evaluation import (
    BaselineConfig,
    CompareModelsConfig,
    EmbeddingSection,
    EvalConfig,
    NliSection,
    ScoreConfig,
)
from bankintent.config.serving import (
    BatchingSection,
    CompatName,
    FrontendConfig,
    LimitsSection,
    ServeConfig,
)
from bankintent.config.studies import (
    Choices,
    CompareConfig,
    FoldsSection,
    RangeSection,
    SweepSection,
)
from bankintent.config.training import (
    ContrastiveSection,
    DistillSection,
    ExportSection,
    LoraSection,
    PseudoLabelsSection,
    TrainConfig,
)

__all__ = [
    "BaselineConfig",
    "BatchingSection",
    "Choices",
    "CompareConfig",
    "CompareModelsConfig",
    "CompatName",
    "ContrastiveSection",
    "DataConfig",
    "DistillSection",
    "EmbeddingSection",
    "EvalConfig",
    "ExportSection",
    "FoldsSection",
    "Fraction",
    "FrontendConfig",
    "LabelledTableKeys",
    "LimitsSection",
    "LoraSection",
    "Name",
    "NliSection",
    "PseudoLabelsSection",
    "RangeSection",
    "Regime",
    "RuntimeName",
    "ScoreConfig",
    "Section",
    "ServeConfig",
    "Slug",
    "Split",
    "SweepSection",
    "TableKeys",
    "TrackingConfig",
    "TrainConfig",
]
