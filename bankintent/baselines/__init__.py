"""Baselines that train no encoder: majority, TF-IDF, random head, zero-shot."""
