"""`models:` of serve.yaml: the keys of each of several models in one server."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from bankintent.config.base import RuntimeName, Section

ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""The name of a model in requests, addresses and metrics."""


class ModelBatchingSection(Section):
    """`batching:` of one model; what is not set is that of the file's own `batching:`."""

    max_texts: Annotated[int, Field(ge=1)] | None = None
    """Most texts in one forward pass."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens in one forward pass, padding included."""


class ModelLimitsSection(Section):
    """`limits:` of one model; what is not set is that of the file's own `limits:`.

    But for `max_queue` they may not be wider than those of the file, which bound every request.
    """

    max_texts: Annotated[int, Field(ge=1)] | None = None
    """Most texts in one request; more is 422."""
    max_chars: Annotated[int, Field(ge=1)] | None = None
    """Longest text, in characters; longer is 422."""
    max_queue: Annotated[int, Field(ge=1)] | None = None
    """Texts that may be admitted and not yet answered; more is 429. Each model has its own."""
    max_explained: Annotated[int, Field(ge=0)] | None = None
    """Most texts in one request with `explain: true`; more is 422."""
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    """Most seconds from a request's arrival to its answer; later is 504."""


class ModelSection(Section):
    """`models.NAME:` one of several models."""

    model_dir: Path
    """A bundle, its merged/, or a sequence classification folder."""
    runtime: RuntimeName | None = None
    """The runtime of this model; by default that of the file."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of this model; by default those of the file."""
    cache: Annotated[int, Field(ge=0)] | None = None
    """Number of texts whose answers are kept; by default that of the file."""
    preload: bool = False
    """true loads the model at the start, before the server says that it is ready; otherwise the
    first request for it does."""
    batching: ModelBatchingSection = ModelBatchingSection()
    limits: ModelLimitsSection = ModelLimitsSection()
