"""A runtime that any number of threads may use at once."""

import threading

from bankintent.inference.runtime import Logits, Outputs, Runtime, Tokens


class SharedRuntime:
    """A runtime whose callers wait for each other where its libraries do not.

    Tokenizers of transformers serve one thread at a time. A model computes `workers` calls at once:
    more would only take more memory.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._tokenizing = threading.Lock()
        self._free_workers = threading.BoundedSemaphore(runtime.workers)
        self.facts = runtime.facts
        self.policy = runtime.policy
        self.workers = runtime.workers

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each text, folded and cut to the model's longest input."""
        with self._tokenizing:
            return self._runtime.tokenize(texts)

    def outputs(self, items: list[Tokens]) -> Outputs:
        """Logits and features of at least one item, padded to the longest and masked."""
        with self._free_workers:
            return self._runtime.outputs(items)

    def logits(self, items: list[Tokens]) -> Logits:
        """The (items, labels) logits alone."""
        return self.outputs(items).logits
