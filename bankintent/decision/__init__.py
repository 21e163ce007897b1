"""From logits and features to an answer or a refusal; NumPy only, but for what fits a policy."""
