"""A trained model in this process: loaded for a runtime, it answers texts."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from bankintent.api.predictions import Prediction, make_predictions
from bankintent.errors import ConfigError, DataError, ModelError
from bankintent.texts import is_blank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bankintent.config import RuntimeName
    from bankintent.decision.deciding import Decisions, Floats
    from bankintent.explanation.explainer import Attribution, Neighbour
    from bankintent.inference.runtime import Outputs, Runtime, Tokens

CHUNK = 8192
"""Texts whose tokens and probabilities are in memory at once."""

BATCH_TOKENS = 512
"""Tokens in one forward pass on a CPU, padding included, as in `score.yaml`."""

GPU_BATCH_TOKENS = 16_384
"""The same on a GPU, for which small batches are slow."""

ADVICE = "Leave it out: there is no answer to it"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a text gets its answer."""

    prediction: Prediction
    """The answer that is explained."""
    words: "tuple[Attribution, ...]"
    """Each word, or some words of a long text, with its weight: the log-odds of the label that are
    lost without it. In the order of the text; none of a text of one word."""
    neighbours: "tuple[Neighbour, ...] | None"
    """The nearest training sentences by the index in the bundle, the nearest first; None where they
    are not known."""
    no_neighbours: str | None
    """Why they are not known."""


def load(
    path: str | os.PathLike[str],
    runtime: "RuntimeName" = "auto",
    threads: int | None = None,
) -> "Model":
    """Load a trained model into this process.

    `path` is a bundle, its `merged/` or `onnx/`, or a transformers folder of a sequence classifier
    with labels. `runtime` is what computes it, as for the HTTP API: `onnx-int8`, `openvino`,
    `onnx`, `torch`, or `auto`, the fastest that the bundle has verified and that is installed (on
    a GPU `torch`). A format other than `torch` needs neither PyTorch nor transformers. `threads`
    is how many threads compute; by default one for each core that the process may use.

    Raises UserError where there is no such model, a file of it was changed, or the runtime is not
    there.
    """
    from bankintent.config import ServeConfig
    from bankintent.configfile import build
    from bankintent.distribution import naming_missing_packages

    values = {"model_dir": Path(path), "runtime": runtime, "threads": threads}
    settings = build(ServeConfig, values)
    with naming_missing_packages("serve"):
        from bankintent.inference import choice

        return Model(choice.find(Path(path), settings.runtime, settings.threads).load())


class Model:
    """A trained model that `load` has loaded. Any number of threads may use it at once.

    Its answers are those of the HTTP API and of `score` for the same bundle and runtime. They
    depend on the other texts of a call by rounding errors at most.

    Texts are `str`; one of white space, control characters or nothing at all has no answer, and is
    refused (UserError) with its position before anything is computed. Longer texts than the model
    reads are cut, see `Prediction.truncated`. The results of a single text have no axis of texts.
    """

    def __init__(self, runtime: "Runtime") -> None:
        from bankintent.explanation.explainer import Explainer
        from bankintent.inference.shared_runtime import SharedRuntime

        self._runtime = SharedRuntime(runtime)
        facts = runtime.facts
        self._explainer = Explainer(facts.folder, facts.labels)
        is_on_gpu = ", cuda, " in facts.runtime
        self._batch_tokens = GPU_BATCH_TOKENS if is_on_gpu else BATCH_TOKENS

    def __repr__(self) -> str:
        return f"<Model {self.name}: {len(self.labels)} intents, {self.runtime}>"

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the intents, in the order of the columns of `logits`."""
        return self._runtime.facts.labels

    @property
    def name(self) -> str:
        """The name of the bundle."""
        return self._runtime.facts.name

    @property
    def version(self) -> str:
        """Twelve hex digits that change with the weights or the labels, as in `/info`."""
        return self._runtime.facts.version

    @property
    def runtime(self) -> str:
        """What computes it, for example `onnxruntime 1.32.0, int8, cpu, 2 threads`."""
        return self._runtime.facts.runtime

    @property
    def max_length(self) -> int:
        """Longest input in tokens; longer texts are cut."""
        return self._runtime.facts.max_length

    @property
    def path(self) -> Path:
        """The folder of the bundle or checkpoint."""
        return self._runtime.facts.folder

    @property
    def has_policy(self) -> bool:
        """Whether it may abstain; without a policy it answers everything."""
        return self._runtime.policy is not None

    @overload
    def predict(self, texts: str, top_k: int = 3) -> Prediction: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, texts: Iterable[str], top_k: int = 3) -> list[Prediction]: ...

    def predict(self, texts: str | Iterable[str], top_k: int = 3) -> Prediction | list[Prediction]:
        """The answer to a text; for several texts a list of answers, in order.

        `top_k` is how many intents `Prediction.top_k` has; more than there are gives all. Texts are
        computed in batches of like length, so that a long list is faster than many calls.

        Raises UserError where a text is blank or none (`texts[3] is empty or blank`), where
        `top_k` is below 1, and where the model gives a score that is not finite.
        """
        _require_count("top_k", top_k)
        predictions: list[Prediction] = []
        for items, outputs in self._computed(texts):
            decided = self._decide(outputs)
            predictions += make_predictions(items, outputs, decided, self.labels, top_k)
        return predictions[0] if isinstance(texts, str) else predictions

    def probabilities(self, texts: str | Iterable[str]) -> "Floats":
        """(texts, labels) probabilities: a row sums to 1, calibrated where there is a policy.

        Raises UserError as `predict` does.
        """
        parts = [self._decide(outputs).probabilities for _, outputs in self._computed(texts)]
        return _joined(parts, texts, len(self.labels))

    def logits(self, texts: str | Iterable[str]) -> "NDArray[np.float32]":
        """(texts, labels) float32 scores before the softmax, as the model gives them.

        Raises UserError as `predict` does.
        """
        parts = [outputs.logits for _, outputs in self._computed(texts)]
        return _joined(parts, texts, len(self.labels))

    def features(self, texts: str | Iterable[str]) -> "NDArray[np.float32]":
        """(texts, width) float32 vectors that the last layer reads: for search or clustering.

        Raises UserError as `predict` does, and where what computes the model gives none.
        """
        parts = []
        for _, outputs in self._computed(texts):
            if outputs.features is None:
                raise ModelError(
                    f"{self.name} gives no features with {self.runtime}",
                    'Load it with runtime="torch", or publish it again',
                )
            parts.append(outputs.features)
        return _joined(parts, texts, 0)

    def explain(self, text: str, top_k: int = 3, neighbours: int = 5) -> Explanation:
        """Why a text gets its answer: the weights of its words, the nearest training sentences.

        It takes as many passes through the model as the text has words, at most 65. `top_k` is that
        of the prediction, `neighbours` the number of sentences.

        Raises UserError as `predict` does.
        """
        from bankintent.explanation.explainer import plan

        _require_count("top_k", top_k)
        _require_count("neighbours", neighbours)
        asked = plan(_require_texts(text)[0])
        items = self._runtime.tokenize(asked.texts)
        _require_read(items[:1], text, 0)
        outputs = self._compute(items)
        decided = self._decide(outputs)

        # The first is the text itself, the others are the text without one of its words.
        prediction = next(make_predictions(items, outputs, decided, self.labels, top_k))
        decision = decided.of(0)
        scores = decided.probabilities[:, decision.label]
        features = None if outputs.features is None else outputs.features[0]
        found = self._explainer.explain(asked, decision, scores, features, neighbours)
        return Explanation(prediction, found.attributions, found.neighbours, found.no_neighbours)

    def _computed(self, texts: str | Iterable[str]) -> "Iterator[tuple[list[Tokens], Outputs]]":
        """The tokens and outputs of some texts at a time, in order; texts are checked first."""
        usable = _require_texts(texts)
        for start in range(0, len(usable), CHUNK):
            items = self._runtime.tokenize(usable[start : start + CHUNK])
            _require_read(items, texts, start)
            yield items, self._compute(items)

    def _compute(self, items: "list[Tokens]") -> "Outputs":
        """The outputs of some texts; ModelError where the logits are not finite."""
        from bankintent.inference.batches import batches, compute, threads
        from bankintent.inference.runtime import require_finite

        lengths = [len(item) for item in items]
        groups = list(batches(lengths, self._batch_tokens))
        with threads(self._runtime.workers) as pool:
            outputs = compute(items, groups, self._runtime, pool)
        require_finite(outputs.logits, self.name)
        return outputs

    def _decide(self, outputs: "Outputs") -> "Decisions":
        from bankintent.decision.deciding import decide

        return decide(outputs.logits, outputs.features, self._runtime.policy)


def _require_texts(texts: str | Iterable[str]) -> list[str]:
    """The texts as a list; DataError names the first that a model cannot read."""
    every: list[Any] = [texts] if isinstance(texts, str) else list(texts)
    for position, text in enumerate(every):
        fault = _find_fault(text)
        if fault is not None:
            # Not the text itself, which may be words of a customer.
            raise DataError(f"{_name_place(texts, position)} {fault}", ADVICE)
    return every


def _find_fault(text: object) -> str | None:
    """Why there is no answer to a value, in words; None where there is."""
    if not isinstance(text, str):
        return f"is no text but a {type(text).__name__}"
    if is_blank(text):
        return "is empty or blank"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode text"
    return None


def _require_read(items: "Sequence[Tokens]", texts: object, start: int) -> None:
    """Raise DataError where a model reads nothing of a text: it is a blank to it."""
    for position, item in enumerate(items, start):
        if len(item) == 0:
            where = _name_place(texts, position)
            raise DataError(f"{where} is blank to this model, which reads none of it", ADVICE)


def _require_count(name: str, value: object) -> None:
    """Raise ConfigError where a parameter is no number of things."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} is {value!r}", "Give a whole number of at least 1")


def _name_place(texts: object, position: int) -> str:
    """How a message names a text, as its caller would write it."""
    return "the text" if isinstance(texts, str) else f"texts[{position}]"


def _joined(parts: "Sequence[NDArray[Any]]", texts: object, width: int) -> "NDArray[Any]":
    """The rows of all parts; without any, (0, width). Of a single text its row."""
    import numpy as np

    whole = np.concatenate(parts) if parts else np.empty((0, width), dtype=np.float32)
    return whole[0] if isinstance(texts, str) else whole
