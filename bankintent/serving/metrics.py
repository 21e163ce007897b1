"""Prometheus metrics of an app, and of each model where it has several.

With several models the metrics of a model have the label `model`, whose values are names of models
that the server knows. With one model there is no such label. A user's text appears in none.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bankintent.decision.deciding import Decision, Verdict
from bankintent.serving.batching import Batch

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
"""Upper edges of the buckets of durations."""

TEXTS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Upper edges of the buckets of batch sizes."""

SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1)
"""Upper edges of the buckets of scores."""

Gauges = Callable[[], float]
"""Gives the value of a gauge when the metrics are read."""


class ModelMetrics(Protocol):
    """What is counted of one model."""

    def observe_batch(self, batch: Batch) -> None:
        """Count one batch; called on the batcher's thread."""

    def observe_answers(self, decisions: Sequence[Decision], labels: Sequence[str]) -> None:
        """Count what was decided on the texts of a request."""

    def count_cached(self, texts: int) -> None:
        """Count answers that were known from before."""

    def follow(self, queue: Gauges, held: Gauges, ready: Gauges) -> None:
        """Take the values of these gauges from the service each time the metrics are read."""


class Metrics:
    """The metrics of one app, in its own registry: two apps in one process count separately.

    Methods that take `model` count for that model; without it, for the only one.
    """

    def __init__(self, several: bool = False) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        own = ["model"] if several else []

        # The client library adds _total to the names of counters.
        self.requests = counter(
            "bankintent_requests", "Requests by route and status", ["route", "method", "status"]
        )
        self.request_seconds = histogram(
            "bankintent_request_seconds", "From arrival to answer", ["route"], buckets=SECONDS
        )
        self.rejected = counter("bankintent_rejected", "Requests refused, by reason", ["reason"])

        self.queue = gauge("bankintent_queue_texts", "Texts that wait for a batch", own)
        self.held = gauge("bankintent_held_texts", "Texts admitted and not yet answered", own)
        self.ready = gauge("bankintent_ready", "1 when the API takes texts", own)

        self.connections = gauge("bankintent_connections", "Open connections")
        self.closed = counter(
            "bankintent_closed_connections", "Connections closed by a bound, by reason", ["reason"]
        )

        self.batch_texts = histogram(
            "bankintent_batch_texts", "Texts in a batch", own, buckets=TEXTS
        )
        self.batch_seconds = histogram(
            "bankintent_batch_seconds", "Seconds that a batch took", own, buckets=SECONDS
        )
        self.tokens = counter("bankintent_tokens", "Tokens through the model", [*own, "kind"])

        self.cached = counter("bankintent_cached_answers", "Answers known from before", own)
        self.predictions = counter(
            "bankintent_predictions", "Texts answered, by intent", [*own, "intent"]
        )
        self.decisions = counter(
            "bankintent_decisions", "Texts answered and refused", [*own, "decision", "reason"]
        )
        self.scores = histogram(
            "bankintent_scores", "Score of the best intent, answered or not", own, buckets=SCORES
        )
        if several:
            self._add_models(counter, gauge, histogram)

    def _add_models(self, counter: Any, gauge: Any, histogram: Any) -> None:
        """Metrics that only several models have."""
        self.model_requests = counter(
            "bankintent_model_requests", "Requests by model and status", ["model", "status"]
        )
        self.model_request_seconds = histogram(
            "bankintent_model_request_seconds",
            "From arrival to answer, by model",
            ["model"],
            buckets=SECONDS,
        )
        self.models = gauge("bankintent_models", "Models by state", ["state"])
        self.model_memory = gauge(
            "bankintent_model_memory_bytes", "Memory that the loaded models take"
        )
        self.loads = counter("bankintent_model_loads", "Models loaded, by result", ["result"])
        self.evictions = counter("bankintent_model_evictions", "Models unloaded for their memory")

    def of(self, model: str) -> "OneOfSeveral":
        """The metrics of one of several models."""
        return OneOfSeveral(self, model)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        self.requests.labels(route, method, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def observe_model_request(self, model: str, status: int, seconds: float) -> None:
        """Count a request for one of several models."""
        self.model_requests.labels(model, str(status)).inc()
        self.model_request_seconds.labels(model).observe(seconds)

    def observe_batch(self, batch: Batch, *model: str) -> None:
        """Count one batch; called on the batcher's thread."""
        texts = len(batch.sizes)
        tokens = sum(batch.sizes)
        padding = max(batch.sizes) * texts - tokens

        labelled(self.batch_texts, model).observe(texts)
        labelled(self.batch_seconds, model).observe(batch.seconds)
        self.tokens.labels(*model, "text").inc(tokens)
        self.tokens.labels(*model, "padding").inc(padding)

    def observe_answers(
        self, decisions: Sequence[Decision], labels: Sequence[str], *model: str
    ) -> None:
        """Count what was decided on the texts of a request."""
        for decision in decisions:
            self.decisions.labels(*model, decision.verdict.value, decision.reason.value).inc()
            labelled(self.scores, model).observe(decision.score)
            if decision.verdict is Verdict.ANSWER:
                self.predictions.labels(*model, labels[decision.label]).inc()

    def count_cached(self, texts: int, *model: str) -> None:
        """Count answers that were known from before."""
        labelled(self.cached, model).inc(texts)

    def follow(self, queue: Gauges, held: Gauges, ready: Gauges, *model: str) -> None:
        """Take the values of these gauges from the service each time the metrics are read."""
        labelled(self.queue, model).set_function(queue)
        labelled(self.held, model).set_function(held)
        labelled(self.ready, model).set_function(ready)

    def forget(self, model: str) -> None:
        """Drop the series of a model that is not served any more."""
        for metric, names in self._of_models():
            for series in series_of(metric, names):
                if series[0] == model:
                    metric.remove(*series)

    def _of_models(self) -> list[tuple[Any, list[str]]]:
        """The metrics that have the label `model`, and their labels, that one first."""
        alone: list[Any] = [self.queue, self.held, self.ready, self.batch_texts, self.batch_seconds]
        alone += [self.cached, self.scores, self.model_request_seconds]
        with_others: list[tuple[Any, list[str]]] = [
            (self.tokens, ["model", "kind"]),
            (self.predictions, ["model", "intent"]),
            (self.decisions, ["model", "decision", "reason"]),
            (self.model_requests, ["model", "status"]),
        ]
        return [*((metric, ["model"]) for metric in alone), *with_others]


class OneOfSeveral:
    """The metrics of one of several models: those of the app, with the label `model`."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics = metrics
        self._model = model

    def observe_batch(self, batch: Batch) -> None:
        """Count one batch; called on the batcher's thread."""
        self._metrics.observe_batch(batch, self._model)

    def observe_answers(self, decisions: Sequence[Decision], labels: Sequence[str]) -> None:
        """Count what was decided on the texts of a request."""
        self._metrics.observe_answers(decisions, labels, self._model)

    def count_cached(self, texts: int) -> None:
        """Count answers that were known from before."""
        self._metrics.count_cached(texts, self._model)

    def follow(self, queue: Gauges, held: Gauges, ready: Gauges) -> None:
        """Nothing: two versions of a model may be loaded at once, and its gauges are of both."""


def series_of(metric: Any, names: Sequence[str]) -> set[tuple[str, ...]]:
    """The values of these labels of every series of a metric."""
    series = set()
    for family in metric.collect():
        for sample in family.samples:
            series.add(tuple(sample.labels[name] for name in names))
    return series


def labelled(metric: Any, model: tuple[str, ...]) -> Any:
    """The series of a model; without a model, the metric itself, which then has no labels."""
    return metric.labels(*model) if model else metric
