"""Labelled sentences in, a served intent classifier out."""

__version__ = "0.1.0"
