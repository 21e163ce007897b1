"""Metrics, tests of significance, and plots, from arrays."""
