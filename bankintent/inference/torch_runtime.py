"""The predictor as a runtime: float32 torch on the CPU, or on a GPU where there is one."""

import torch

from bankintent.bundle.layout import Checkpoint
from bankintent.decision.policy import Policy
from bankintent.errors import ModelError
from bankintent.inference.policies import advice, find_misfit, read_policy
from bankintent.inference.predictor import Predictor, pad
from bankintent.inference.runtime import (
    Logits,
    ModelFacts,
    Outputs,
    Tokens,
    describe_runtime,
    version,
)
from bankintent.texts import fold


class TorchRuntime:
    """A checkpoint of any kind, in float32 on a fixed number of threads."""

    def __init__(self, checkpoint: Checkpoint, threads: int, workers: int = 1) -> None:
        self._predictor = Predictor.load(checkpoint)
        self._max_length = int(self._predictor.tokenizer.model_max_length)
        self._head = self._predictor.head().attach()
        device = self._predictor.device.type

        # One GPU computes one batch at a time.
        self.workers = 1 if device == "cuda" else min(workers, threads)
        # For the whole process, and for each call: `workers` calls together use all threads.
        torch.set_num_threads(max(1, threads // self.workers))

        self.facts = self._gather_facts(checkpoint, device, threads)
        self.policy = self._read_policy(checkpoint)

    def _read_policy(self, checkpoint: Checkpoint) -> Policy | None:
        """The bundle's policy; ModelError where it cannot decide on this model's outputs."""
        policy = read_policy(checkpoint.root, checkpoint.manifest, checkpoint.labels)
        if policy is None or not policy.needs_features:
            return policy

        misfit = find_misfit(policy, self.outputs(self.tokenize(["a text"])))
        if misfit is not None:
            raise ModelError(f"{checkpoint.root}: {misfit}", advice())
        return policy

    def _gather_facts(self, checkpoint: Checkpoint, device: str, threads: int) -> ModelFacts:
        model = self._predictor.model
        manifest = checkpoint.manifest
        base_model = None if manifest is None else manifest.base_model
        engine = f"torch {torch.__version__}"

        return ModelFacts(
            name=checkpoint.name,
            version=version(checkpoint.root, checkpoint.manifest),
            labels=checkpoint.labels.names,
            labels_hash=checkpoint.labels.hash,
            backbone=base_model or str(model.config.model_type),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            max_length=self._max_length,
            runtime=describe_runtime(engine, "float32", device, threads),
            folder=checkpoint.root,
        )

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        """Token ids of each folded text, cut to the model's longest input."""
        items = []
        for text, features in zip(texts, self._predictor.encode(texts), strict=True):
            items.append(Tokens(features, self._is_cut(text, features)))
        return items

    def _is_cut(self, text: str, features: dict[str, list[int]]) -> bool:
        # The tokenizer does not report a cut: a text that fills the input is tokenized again whole.
        if len(features["input_ids"]) < self._max_length:
            return False

        # Not verbose: this would warn that the text is longer than the model reads.
        whole = self._predictor.tokenizer(fold(text), verbose=False)["input_ids"]
        return len(whole) > self._max_length

    def outputs(self, items: list[Tokens]) -> Outputs:
        """Logits and features, padded to the longest and masked."""
        predictor = self._predictor
        rows = [item.features for item in items]
        batch = pad(predictor.tokenizer, rows)
        return predictor.compute(batch.to(predictor.device), self._head)

    def logits(self, items: list[Tokens]) -> Logits:
        """The (items, labels) logits alone."""
        return self.outputs(items).logits
