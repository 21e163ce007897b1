"""Every YAML file as one typed model.

Unknown keys are refused, values are checked, and the docstring under each key documents it.
"""

from bankintent.config.audit import AuditConfig
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
from bankintent.config.cluster import (
    Engine,
    RaySection,
    ScoreRaySection,
    ServeRaySection,
    TaskRaySection,
)
from bankintent.config.data import DataConfig
from bankintent.config.decision import (
    DecisionSection,
    PolicyConfig,
    TargetSection,
    TrainDecisionSection,
)
from bankintent.config.evaluation import (
    BaselineConfig,
    CompareModelsConfig,
    EmbeddingSection,
    EvalConfig,
    ExplainConfig,
    NliSection,
    ScoreConfig,
)
from bankintent.config.models import (
    ModelBatchingSection,
    ModelId,
    ModelLimitsSection,
    ModelSection,
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
    ExplainSection,
    ExportSection,
    LoraSection,
    PseudoLabelsSection,
    TrainConfig,
)

__all__ = [
    "AuditConfig",
    "BaselineConfig",
    "BatchingSection",
    "Choices",
    "CompareConfig",
    "CompareModelsConfig",
    "CompatName",
    "ContrastiveSection",
    "DataConfig",
    "DecisionSection",
    "DistillSection",
    "EmbeddingSection",
    "Engine",
    "EvalConfig",
    "ExplainConfig",
    "ExplainSection",
    "ExportSection",
    "FoldsSection",
    "Fraction",
    "FrontendConfig",
    "LabelledTableKeys",
    "LimitsSection",
    "LoraSection",
    "ModelBatchingSection",
    "ModelId",
    "ModelLimitsSection",
    "ModelSection",
    "Name",
    "NliSection",
    "PolicyConfig",
    "PseudoLabelsSection",
    "RangeSection",
    "RaySection",
    "Regime",
    "RuntimeName",
    "ScoreConfig",
    "ScoreRaySection",
    "Section",
    "ServeConfig",
    "ServeRaySection",
    "Slug",
    "Split",
    "SweepSection",
    "TableKeys",
    "TargetSection",
    "TaskRaySection",
    "TrackingConfig",
    "TrainConfig",
    "TrainDecisionSection",
]
