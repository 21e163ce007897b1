"""What a model makes of labelled rows: logits, and the decisions of its policy."""

from dataclasses import dataclass

from bankintent.bundle.layout import Checkpoint
from bankintent.decision.deciding import Decisions, decide
from bankintent.decision.policy import Policy
from bankintent.errors import ModelError
from bankintent.inference.policies import advice, find_misfit, read_policy
from bankintent.inference.runtime import Features, Logits, Outputs


@dataclass(frozen=True)
class Predicted:
    """The answers to some rows."""

    logits: Logits
    """(rows, labels)"""
    decisions: Decisions
    policy: Policy | None = None
    """None where the model has none: then everything is answered."""
    features: Features | None = None
    """(rows, width); None where they are not known."""
    outside: "Predicted | None" = None
    """The answers to the out-of-scope sentences of the same split; None where there are none."""

    @classmethod
    def of_logits(cls, logits: Logits) -> "Predicted":
        """The answers of a model without a policy."""
        return cls(logits, decide(logits, None, None))

    @classmethod
    def of_checkpoint(cls, outputs: Outputs, checkpoint: Checkpoint) -> "Predicted":
        """The answers of a checkpoint by the policy in its bundle.

        Raises ModelError where the policy needs other features than the outputs have.
        """
        policy = read_policy(checkpoint.root, checkpoint.manifest, checkpoint.labels)
        misfit = None if policy is None else find_misfit(policy, outputs)
        if misfit is not None:
            raise ModelError(f"{checkpoint.root}: {misfit}", advice())
        decisions = decide(outputs.logits, outputs.features, policy)
        return cls(outputs.logits, decisions, policy, outputs.features)
