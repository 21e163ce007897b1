"""A trained model to a published bundle: saved, checked in a fresh process, exported, gated."""
