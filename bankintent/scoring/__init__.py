"""Batch scoring: an answer for every row of a table, resumable and in bounded memory."""
