"""Batch scoring: a label and a score for every row of a table, resumable and in bounded memory."""
