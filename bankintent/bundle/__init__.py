"""Bundles: a trained model on disk with its labels, figures, manifest and model cards."""
