"""Exports of other tools, read as they are: one module for each tool, all give an `Export`."""
